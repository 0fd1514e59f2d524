"""The live view shows what is open and nothing else, and an outage of it holds nothing up."""

import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sessionize import Policy, Rules
from sessionize.engine.run_events import ServerRecovered, ServerUnavailable
from sessionize.engine.stream import live_feed as livefeed
from sessionize.engine.stream.checkpoints import Checkpoints
from sessionize.engine.stream.engine import LocalEngine
from sessionize.engine.stream.live_feed import LiveFeed
from sessionize.engine.stream.options import StreamOptions, StreamOutputs
from sessionize.errors import OutputError, UnavailableError
from sessionize.kernel.sessionizer import Sessionizer
from sessionize.ports import StreamBatch
from sessionize.session.definition import SessionDefinition
from sessionize.testing.comparison import events_table
from sessionize.testing.observers import RecordedEvents
from sessionize.testing.streams import InMemoryEpochSink, InMemoryStreamSource

MINUTE = 60_000
TIMEOUT_S = 60


class Shown:
    """A view in memory: user -> events. away: it does not answer."""

    def __init__(self) -> None:
        self.there: dict[str, int] = {}
        self.unavailable = False
        self.calls = 0

    def wait(self) -> None:
        """Until nobody is in here."""
        for thread in threading.enumerate():
            if thread.name == "live view":
                thread.join(TIMEOUT_S)

    def clear(self) -> None:
        self._answer()
        self.there = {}

    def update(self, sessions: pa.Table, closed_users: pa.Array, *, now_ms: int) -> None:
        self._answer()
        for user in closed_users.to_pylist():
            self.there.pop(user, None)
        self.there |= {row["user"]: row["event_count"] for row in sessions.to_pylist()}

    def close(self) -> None:
        pass

    def _answer(self) -> None:
        self.calls += 1
        if self.unavailable:
            raise UnavailableError("the view is away")


class Counted(InMemoryStreamSource):
    """Counts how often it is asked for records."""

    polls = 0

    def poll(self, *, timeout_s: float, now_ms: int) -> list[StreamBatch]:
        self.polls += 1
        return super().poll(timeout_s=timeout_s, now_ms=now_ms)


@pytest.mark.parametrize("session_ids", ["start", "sequential", "running"])
def test_sessions_that_ended_are_shown_no_more(tmp_path: Path, session_ids: Any) -> None:
    rows = [{"user": "a", "time": 0}, {"user": "b", "time": 1}] + [
        {"user": "c", "time": minute * MINUTE} for minute in (300, 301)
    ]
    view = Shown()
    engine = LocalEngine(
        InMemoryStreamSource([rows], piece_max=1),
        StreamOutputs(sinks={"kept": InMemoryEpochSink()}, live=LiveFeed(view, every_s=0)),
        SessionDefinition(policy=Policy(session_ids=session_ids), rules=Rules()),
        Checkpoints(tmp_path / "state", writer="w"),
        lateness_ms=0,
        options=StreamOptions(epoch_rows_max=1, poll_s=0, once=True, drain=False, watermark="maximum"),
        writer="w",
    )
    try:
        engine.run()
    finally:
        engine.close()
    assert view.there == {"c": 2}


def test_an_outage_is_told_once_and_the_view_is_filled_anew_after_a_pause() -> None:
    view, events = Shown(), RecordedEvents()
    feed = LiveFeed(view, every_s=1, server="redis", observer=events)
    core = Sessionizer(Policy())

    def come(user: str, at_s: float) -> None:
        events = events_table([{"user": user, "time": 0}])
        core.push(events)
        feed.touched(events["user"])
        feed.refresh(core, at_s=at_s, now_ms=0)
        view.wait()

    feed.restart(core, now_ms=0)
    view.wait()
    come("a", 10)
    come("b", 10.5)  # too early for another look
    assert view.there == {"a": 1}
    view.unavailable = True
    come("c", 11)
    come("d", 12)
    assert events == [ServerUnavailable(server="redis", problem="the view is away")]
    view.unavailable, view.there = False, {}
    come("e", 16.5)  # still in the pause
    assert (view.there, events[1:]) == ({}, [])
    come("f", 17)
    assert view.there == dict.fromkeys("abcdef", 1)
    feed.refresh(core, at_s=17.1, now_ms=0)
    assert events[1:] == [ServerRecovered(server="redis")]


class Hanging(Shown):
    """A view that answers nothing before it is released. begun: it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.released = threading.Event(), threading.Event()

    def _answer(self) -> None:
        self.begun.set()
        assert self.released.wait(TIMEOUT_S)
        super()._answer()


def test_a_view_that_hangs_holds_nothing_up_and_gets_the_newest_afterwards() -> None:
    view = Hanging()
    feed = LiveFeed(view, every_s=0)
    core = Sessionizer(Policy())

    def come(number: int, *users: str) -> None:
        events = events_table([{"user": user, "time": number} for user in users])
        core.push(events)
        feed.touched(events["user"])
        feed.refresh(core, at_s=number, now_ms=0)

    feed.restart(core, now_ms=0)
    assert view.begun.wait(TIMEOUT_S)
    for number in range(100):
        come(number, "a", f"u{number % 7}")
    feed.finish(core, now_ms=0, wait_s=0)
    assert view.calls == 0
    view.released.set()
    feed.finish(core, now_ms=0)
    assert view.there == {"a": 100, **{f"u{n}": 15 if n < 2 else 14 for n in range(7)}}
    assert view.calls == 3  # emptied, nobody yet, then all at once


def test_what_changed_while_a_view_hangs_is_kept_once_for_each_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(livefeed, "_CHANGED_MIN", 10)
    feed = LiveFeed(Shown())
    for _ in range(1_000):
        feed.touched(events_table([{"user": user, "time": 0} for user in "abcd"])["user"])
        assert sum(map(len, feed._changed)) <= 16


def test_users_are_shown_in_pieces_and_a_failure_between_shows_all_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(livefeed, "_USERS_MAX", 3)
    view, core = Shown(), Sessionizer(Policy())
    feed = LiveFeed(view, every_s=1)
    users = [f"u{number}" for number in range(10)]
    events = events_table([{"user": user, "time": 0} for user in users])
    core.push(events)
    feed.restart(core, now_ms=0)
    view.wait()
    assert len(view.there) == 3
    feed.refresh(core, at_s=0, now_ms=0)  # the rest of a round waits for no interval
    view.wait()
    assert len(view.there) == 6
    view.unavailable = True
    feed.finish(core, now_ms=0)
    view.unavailable, view.there = False, {"of another time": 1}
    feed.finish(core, now_ms=0)
    assert view.there == dict.fromkeys(users, 1)


def test_a_view_that_refuses_us_ends_the_run() -> None:
    class Refusing(Shown):
        def update(self, sessions: pa.Table, closed_users: pa.Array, *, now_ms: int) -> None:
            raise OutputError("no")

    feed, core = LiveFeed(Refusing()), Sessionizer(Policy())
    feed.restart(core, now_ms=0)
    with pytest.raises(OutputError, match="no"):
        feed.finish(core, now_ms=0)


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (OutputError("no right any more", detail="NOPERM", hint="give it back"), "no right any more (NOPERM)"),
        (ValueError("a fault of its own"), "the live view failed (ValueError: a fault of its own)"),
    ],
)
def test_a_view_that_worked_and_refuses_later_is_away_and_filled_anew(error: Exception, problem: str) -> None:
    class Refusing(Shown):
        refuses = False

        def update(self, sessions: pa.Table, closed_users: pa.Array, *, now_ms: int) -> None:
            if self.refuses:
                raise error
            super().update(sessions, closed_users, now_ms=now_ms)

    events, view = RecordedEvents(), Refusing()
    feed = LiveFeed(view, every_s=0, observer=events)
    core = Sessionizer(Policy())
    core.push(events_table([{"user": "a", "time": 0}]))
    feed.restart(core, now_ms=0)
    view.wait()
    feed.refresh(core, at_s=1, now_ms=0)
    view.refuses = True
    core.push(events_table([{"user": "b", "time": 0}]))
    feed.touched(pa.array(["b"]))
    for at_s in (2, 3, 4):
        feed.refresh(core, at_s=at_s, now_ms=0)
        view.wait()
    refused = ServerUnavailable(server="live view", problem=problem)
    assert (events, view.there) == ([refused], {"a": 1})
    view.refuses = False
    for at_s in (20, 21, 22):
        feed.refresh(core, at_s=at_s, now_ms=0)
        view.wait()
    feed.refresh(core, at_s=23, now_ms=0)
    assert (events, view.there) == ([refused, ServerRecovered(server="live view")], {"a": 1, "b": 1})


def test_a_run_comes_to_its_end_beside_a_view_that_never_answers(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(livefeed, "END_S", 0.0)
    rows = [{"user": f"u{number % 50}", "time": number * MINUTE} for number in range(300)]
    view, kept, source = Hanging(), InMemoryEpochSink(), Counted([rows], piece_max=5)
    engine = LocalEngine(
        source,
        StreamOutputs(sinks={"kept": kept}, live=LiveFeed(view, every_s=0)),
        SessionDefinition(policy=Policy(), rules=Rules()),
        Checkpoints(tmp_path / "state", writer="w"),
        lateness_ms=0,
        options=StreamOptions(epoch_rows_max=20, poll_s=0, once=True),
        writer="w",
    )
    try:
        accounting = engine.run()
    finally:
        engine.close()
        assert view.begun.is_set()
        assert view.calls == 0  # it still hangs
        view.released.set()
    assert accounting.consumed == len(rows)
    assert source.polls > 60
    assert len(kept.epochs) >= 15
