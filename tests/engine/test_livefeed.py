"""The live view shows what is open and nothing else, and an outage of it holds nothing up."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sessionize import Policy, Rules
from sessionize.engine.batch import Job
from sessionize.engine.checkpoint import Checkpoints
from sessionize.engine.livefeed import LiveFeed
from sessionize.engine.local import LocalEngine
from sessionize.engine.stream_options import StreamOutputs, Tempo
from sessionize.errors import UnavailableError
from sessionize.kernel.sessionizer import Sessionizer
from sessionize.testing.comparison import events_table
from sessionize.testing.streams import KeptEpochs, RecordedStream

MINUTE = 60_000


class Shown:
    """A view in memory: user -> events. away: it does not answer."""

    def __init__(self) -> None:
        self.there: dict[str, int] = {}
        self.away = False

    def clear(self) -> None:
        self._answer()
        self.there = {}

    def show(self, sessions: pa.Table, gone: pa.Array, *, now_ms: int) -> None:
        self._answer()
        for user in gone.to_pylist():
            self.there.pop(user, None)
        self.there |= {row["user"]: row["event_count"] for row in sessions.to_pylist()}

    def close(self) -> None:
        pass

    def _answer(self) -> None:
        if self.away:
            raise UnavailableError("the view is away")


@pytest.mark.parametrize("session_ids", ["start", "sequential", "running"])
def test_sessions_that_ended_are_shown_no_more(tmp_path: Path, session_ids: Any) -> None:
    rows = [{"user": "a", "time": 0}, {"user": "b", "time": 1}] + [
        {"user": "c", "time": minute * MINUTE} for minute in (300, 301)
    ]
    view = Shown()
    engine = LocalEngine(
        RecordedStream([rows], piece_max=1),
        StreamOutputs(sinks={"kept": KeptEpochs()}, live=LiveFeed(view, every_s=0)),
        Job(policy=Policy(session_ids=session_ids), rules=Rules()),
        Checkpoints(tmp_path / "state", writer="w"),
        lateness_ms=0,
        tempo=Tempo(epoch_rows_max=1, poll_s=0, once=True, drain=False),
        writer="w",
    )
    try:
        engine.run()
    finally:
        engine.close()
    assert view.there == {"c": 2}


def test_an_outage_is_told_once_and_the_view_is_filled_anew_after_a_pause() -> None:
    view, told = Shown(), list[UnavailableError | None]()
    feed = LiveFeed(view, every_s=1, on_outage=told.append)
    core = Sessionizer(Policy())

    def come(user: str, at_s: float) -> None:
        events = events_table([{"user": user, "time": 0}])
        core.push(events)
        feed.touched(events["user"])
        feed.refresh(core, at_s=at_s, now_ms=0)

    feed.restart(core, now_ms=0)
    come("a", 10)
    come("b", 10.5)  # too early for another look
    assert view.there == {"a": 1}
    view.away = True
    come("c", 11)
    view.away, view.there = False, {}
    come("d", 15)  # still in the pause
    assert (view.there, told[1:]) == ({}, [told[-1]])
    assert isinstance(told[-1], UnavailableError)
    come("e", 16)
    assert view.there == dict.fromkeys("abcde", 1)
    assert told[-1] is None
