"""State that was damaged while nothing ran: a whole pipeline says so in its log, mends it, and misses nothing."""

import io
import json
import threading
from pathlib import Path

import pytest

from sessionize.app.config.pipeline import load_pipeline
from sessionize.app.streams.logs import StreamLog
from sessionize.app.streams.run import open_stream
from sessionize.app.tables.warehouse import Warehouse
from sessionize.engine.run_events import Observers
from sessionize.testing.observers import Calls

PIPELINE = """
name = "recovered"
[input]
kind = "directory"
paths = ["{inbox}"]
dialect = "clickstream"
[run]
once = true
home = "{home}"
"""


class Crash(BaseException):
    """The process is gone."""


def crash_at(step: str, at: str) -> None:
    if step == at:
        raise Crash


def test_a_damaged_plan_is_in_the_log_and_mended(tmp_path: Path) -> None:
    inbox, home = tmp_path / "inbox", tmp_path / "home"
    inbox.mkdir()
    events = [
        {"uuid": f"u{i % 5}", "event_id": str(i), "event_timestamp": str(1_700_000_000_000 + i)} for i in range(50)
    ]
    (inbox / "events.jsonl").write_text("\n".join(map(json.dumps, events)))
    path = tmp_path / "recovered.toml"
    path.write_text(PIPELINE.format(inbox=inbox, home=home))
    config = load_pipeline(str(path), environ={})

    def run(at: str = "") -> list[dict[str, object]]:
        log = StreamLog(config.name, to=(lines := io.StringIO()))
        observer = Observers(log, Calls(step=lambda step: crash_at(step, at)))
        with open_stream(config, stopping=threading.Event(), observer=observer) as opened:
            opened.run()
        return [json.loads(line) for line in lines.getvalue().splitlines()]

    with pytest.raises(Crash):
        run("write iceberg")
    (plan,) = home.glob("state/*/plan-1.b")
    whole = plan.read_bytes()
    plan.write_bytes(whole[:-1])
    (told,) = [line for line in run() if line["level"] == "warning"]
    assert told["event"] == "checkpoint_damaged"
    assert str(told["problem"]).startswith("plan-1.b: ")
    assert plan.read_bytes() == whole
    found = Warehouse(home).query("SELECT count(*) AS n, sum(event_count) AS events FROM user_sessions").to_pylist()
    assert found == [{"n": 5, "events": 50}]
    assert not [line for line in run() if line["level"] == "warning"]
