"""Open sessions in the process of a stream, without any server: there while they are open, in the tables when final."""

import json
import os
from pathlib import Path

from sessionize.app.config.pipeline import load_pipeline
from sessionize.app.hooks import Hooks
from sessionize.app.runs import plan
from sessionize.app.streams.run import open_stream
from sessionize.app.tables.sessions import Sessions, WarehouseSessions
from sessionize.app.tables.warehouse import Warehouse
from sessionize.connectors.memory import MemoryLiveView
from sessionize.session import columns as col
from sessionize.testing.runs import BackgroundRun

START_MS = 1_700_000_000_000
PIPELINE = """
name = "live"
[input]
kind = "directory"
paths = ["{folder}/in"]
dialect = "clicks"
[rules]
lateness = "1m"
watermark = "maximum"   # one event of another user is to end a session here
[stream]
poll = "10ms"
epoch = "50ms"
live = "10ms"
reconcile = "none"
maintain = "none"
[run]
home = "{folder}/home"
"""


def put(folder: Path, name: str, *events: tuple[str, int]) -> None:
    """A file of events (user, minutes after the start), there whole."""
    lines = [json.dumps({"user_id": user, "timestamp": START_MS + at * 60_000, "url": f"/{at}"}) for user, at in events]
    (folder / f".{name}").write_text("\n".join(lines) + "\n")
    os.utime(folder / f".{name}", (1, 1))
    os.replace(folder / f".{name}", folder / "in" / name)


def test_open_sessions_are_read_in_the_process_and_closed_ones_from_the_tables(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "p.toml").write_text(PIPELINE.format(folder=tmp_path))
    config = load_pipeline(str(tmp_path / "p.toml"), environ={})
    view = MemoryLiveView(user_name=config.dialect().user_name)
    reader = Sessions(WarehouseSessions(Warehouse.of(config)), view)

    def count(user: str) -> int:
        return int((reader.open_session(user) or {col.EVENT_COUNT: 0})[col.EVENT_COUNT])

    with BackgroundRun(open_stream, config, live=view) as running:
        put(tmp_path, "1.ndjson", ("ann", 0), ("ben", 1))
        running.wait_for(lambda: (count("ann"), count("ben")) == (1, 1), "two open sessions")
        found = reader.open_session("ann") or {}
        assert (found[col.SESSION_START], found[col.END_REASON]) == (START_MS, None)
        put(tmp_path, "2.ndjson", ("ann", 5))
        running.wait_for(lambda: count("ann") == 2, "the second event of ann")
        put(tmp_path, "3.ndjson", ("cid", 120))
        running.wait_for(lambda: count("ann") == count("ben") == 0 and count("cid") == 1, "the end of two sessions")
        running.wait_for(lambda: reader.recent(9).num_rows == 2, "two closed sessions")
        (row,) = reader.sessions_of("ann", limit=5).to_pylist()
        assert (row[col.EVENT_COUNT], row[col.END_REASON]) == (2, "inactivity")
        running.end(stop=True)
    assert len(view) == 1  # cid's is open, and the next run goes on with it


def test_a_planned_stream_shows_them_too(tmp_path: Path) -> None:
    """By the one composition root; at the end nothing is open."""
    (tmp_path / "in").mkdir()
    (tmp_path / "p.toml").write_text(PIPELINE.format(folder=tmp_path))
    put(tmp_path, "1.ndjson", ("ann", 0), ("ben", 1))
    config = load_pipeline(str(tmp_path / "p.toml"), overrides={"run.once": True, "stream.drain": False}, environ={})
    view = MemoryLiveView(user_name=config.dialect().user_name)
    assert plan(config).run(Hooks(live=view)).consumed == 2
    assert len(view) == 2
    drained = load_pipeline(str(tmp_path / "p.toml"), overrides={"run.once": True}, environ={})
    plan(drained).run(Hooks(live=view))
    assert len(view) == 0
    assert WarehouseSessions(Warehouse.of(config)).recent(5).num_rows == 2
