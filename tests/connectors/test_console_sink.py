"""Sessions printed for people."""

import io
import json
import os

import pytest

from sessionize.connectors.console import ConsoleSink
from sessionize.errors import OutputError
from sessionize.testing.epoch_sinks import epoch_id, epoch_rows
from sessionize.testing.further_tables import FURTHER_TABLES, alerts


def test_sessions_as_lines_of_json() -> None:
    stream = io.StringIO()
    sink = ConsoleSink(stream)
    sink.write_epoch(epoch_id(1), epoch_rows(1, ["ann", "zoë"]))
    sink.write_epoch(epoch_id(1), epoch_rows(1, ["ann", "zoë"]))

    rows = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [row["user"] for row in rows] == ["ann", "zoë"]
    assert rows[0]["events_by_type"] == {"purchase": 1, "view": 2}
    assert rows[0]["session_date"] == "2023-11-14"


def test_a_reader_that_is_gone() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    with pytest.raises(OutputError, match="cannot be printed"):
        ConsoleSink(stream).write_epoch(epoch_id(1), epoch_rows(1))
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_rows_of_other_tables_say_which_one_they_are_of() -> None:
    out = io.StringIO()
    sink = ConsoleSink(out, destinations={"user_sessions": "", "alerts": "alert"}, specs=FURTHER_TABLES)
    sink.write_epoch(epoch_id(1), epoch_rows(1, ["a"]).with_tables({"alerts": alerts(x=3)}))
    alert, session = [json.loads(line) for line in out.getvalue().splitlines()]
    assert alert == {"table": "alert", "user": "u-x", "alert_id": "x", "level": 3, "pages": ["/a", "b"]}
    assert (session["user"], "table" in session) == ("a", False)
    with pytest.raises(OutputError, match="not known"):
        ConsoleSink(out).write_epoch(epoch_id(1), epoch_rows(1).with_tables({"alerts": alerts(x=3)}))
