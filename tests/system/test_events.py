"""What happens to a stream, in the order in which it happens, for the log and for other observers."""

import io
import json
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from sessionize.app.streams.logs import StreamLog
from sessionize.app.streams.run import open_stream
from sessionize.connectors.sql_store.sqlite import SqliteDatabase
from sessionize.engine.run_events import (
    CheckpointDamaged,
    EpochCommitted,
    Handler,
    MostlyLate,
    Observers,
    ServerRecovered,
    ServerUnavailable,
    StatusChanged,
    StreamStarted,
    StreamStopped,
)
from sessionize.testing.observers import Calls, RecordedEvents
from tests.system.test_directory_pipeline import START_MS, lines, pipeline, put
from tests.system.whole_runs import Crash, crash_before, run_once


def test_a_run_with_a_damaged_checkpoint_an_outage_late_events_and_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SqliteDatabase.__init__.__kwdefaults__, "busy_timeout_s", 0.1)
    config = pipeline(tmp_path, stream__epoch_rows=50)
    rows = [{"user": f"u{n % 7}", "ts": START_MS + n * 60_000, "id": f"{n}", "type": "view"} for n in range(60)]
    put(config, "1.ndjson", lines(rows), age_s=1)
    with pytest.raises(Crash):
        run_once(config, on_step=crash_before("write sqlite"))
    (plan,) = config.home.glob("state/p/plan-1.b")
    plan.write_bytes(plan.read_bytes()[:-1])
    late = [row | {"ts": START_MS - n * 1_000, "id": f"late-{n}"} for n, row in enumerate(rows)]
    put(config, "2.ndjson", lines(late), age_s=2)

    first, second, written, stopping = RecordedEvents(), RecordedEvents(), io.StringIO(), threading.Event()
    with closing(sqlite3.connect(config.home / "store.sqlite", isolation_level=None, check_same_thread=False)) as other:

        def lock_out(step: str) -> None:  # another program writes to the database, for longer than the store waits
            if step == "write sqlite" and not first.of(EpochCommitted):
                other.execute("BEGIN EXCLUSIVE")

        def stop_when_all_is_read(event: EpochCommitted) -> None:
            if event.report.accounting.consumed == len(rows) + len(late):
                stopping.set()

        observer = Observers(
            first,
            StreamLog("p", to=written),
            Calls(step=lock_out),
            Handler(ServerUnavailable, lambda event: other.execute("ROLLBACK")),
            Handler(EpochCommitted, stop_when_all_is_read),
            second,
        )
        with open_stream(config, stopping=stopping, observer=observer) as opened:
            accounting = opened.run()

    assert first == second
    names = first.names()
    assert [name for at, name in enumerate(names) if name != "epoch_committed" or names[at - 1] != name] == [
        "stream_started", "checkpoint_damaged", "server_unavailable", "server_recovered", "epoch_committed",
        "mostly_late", "stream_stopped",
    ]  # fmt: skip
    assert [event.server for event in first.of(ServerUnavailable)] == ["sqlite"]
    assert first.of(ServerRecovered) == [ServerRecovered(server="sqlite")]
    assert first.of(CheckpointDamaged)[0].problem.startswith("plan-1.b: ")
    assert sum(event.report.late for event in first.of(EpochCommitted)) == accounting.late > 50
    (mostly_late,) = first.of(MostlyLate)
    assert mostly_late.epoch == first.of(EpochCommitted)[-1].report.epoch
    assert first.of(StreamStarted) == [
        StreamStarted(writer="p", input="directory", output=config.destination(), dialect=config.dialect().name)
    ]
    (stopped,) = first.of(StreamStopped)
    assert (stopped.accounting, stopped.watermark_ms) == (accounting, opened.engine.watermark_ms)
    unavailable = [set(event.status.unavailable) for event in first.of(StatusChanged)]
    assert {"sqlite"} in unavailable
    assert unavailable[-1] == set()
    # the log has the same events, with the same fields
    found = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [{key: line[key] for key in line if key not in ("timestamp", "pipeline")} for line in found] == [
        {"event": event.name, "level": event.level, **event.fields()} for event in first if event.level != "debug"
    ]
