"""Runs of the local engine over streams in memory, which crash where they are told to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import strategies as st

from sessionize import Policy, Rules
from sessionize.engine.run_events import UNOBSERVED, Observer, Observers
from sessionize.engine.stream.checkpoints import DELTAS_MAX, Checkpoints
from sessionize.engine.stream.engine import LocalEngine
from sessionize.engine.stream.options import StreamOptions, StreamOutputs
from sessionize.ports import EpochSink, StreamSource
from sessionize.session.columns import SessionColumns
from sessionize.session.definition import SessionDefinition
from sessionize.session.own_columns import OwnColumns
from sessionize.testing.comparison import expected_sessions, sorted_rows
from sessionize.testing.observers import Calls
from sessionize.testing.oracle import judged
from sessionize.testing.strategies import events
from sessionize.testing.streams import InMemoryEpochSink, InMemoryStreamSource

BROKEN: dict[str, Any] = {"broken": True}


class Crash(BaseException):
    """The process is gone."""


class Steps:
    """Crashes at the n-th step; counts them."""

    def __init__(self, crash_at: int | None = None) -> None:
        self.crash_at, self.seen = crash_at, list[str]()

    def __call__(self, step: str) -> None:
        self.seen.append(step)
        if len(self.seen) == self.crash_at:
            raise Crash(step)


def engine(
    folder: Path,
    source: StreamSource,
    sinks: dict[str, EpochSink],
    *,
    policy: Policy | None = None,
    rule: Rules | None = None,
    lateness: int = 0,
    options: StreamOptions | None = None,
    deltas_max: int = DELTAS_MAX,
    observer: Observer = UNOBSERVED,
    columns: SessionColumns | None = None,
    **more: Any,
) -> LocalEngine:
    """more: of Calls, with on_ before the name, and of LocalEngine."""
    calls = {name.removeprefix("on_"): more.pop(name) for name in tuple(more) if name.startswith("on_")}
    return LocalEngine(
        source,
        StreamOutputs(sinks=sinks),
        SessionDefinition(policy=policy or Policy(), rules=rule or Rules(), columns=columns or SessionColumns()),
        Checkpoints(folder, writer="w", deltas_max=deltas_max),
        lateness_ms=lateness,
        options=options or StreamOptions(epoch_rows_max=15, poll_s=0, once=True),
        writer="w",
        observer=Observers(Calls(**calls), observer),
        **more,
    )


def run(make: Callable[[], LocalEngine], *, crashes: bool = False) -> LocalEngine:
    """Run to the end; with crashes, start again as often as it takes."""
    while True:
        made = make()
        try:
            made.run()
            return made
        except Crash:
            assert crashes
        finally:
            made.close()


def dealt(rows: list[dict[str, Any]], partitions: int) -> list[list[dict[str, Any]]]:
    """By user, as a producer with keys does."""
    return [[r for r in rows if crc32(str(r.get("user")).encode()) % partitions == p] for p in range(partitions)]


def sessions_of(sink: InMemoryEpochSink) -> list[dict[str, Any]]:
    rows = [dict(row) for table in sink.rows("user_sessions") for row in sorted_rows(table)]
    return sorted(rows, key=order)


def order(row: Any) -> tuple[Any, ...]:
    return (row["user"], row["session_start_time_ms"], row["session_end_time_ms"], row["session_id"])


def check(
    sink: InMemoryEpochSink,
    made: LocalEngine,
    partitions: Any,
    policy: Policy,
    rule: Rules,
    lateness: int,
    watermark: str = "confirmed",
    own: OwnColumns | None = None,
) -> None:
    kept, late = list[dict[str, Any]](), 0
    for rows in partitions:
        on_time, set_aside = judged((row for row in rows if "user" in row), lateness, watermark)
        kept, late = kept + on_time, late + len(set_aside)
    end = max((r["time"] for r in kept), default=0)
    assert sessions_of(sink) == sorted(expected_sessions(kept, policy, rule, end_ms=end, own=own), key=order)
    assert (sink.count("events"), sink.count("late_events")) == (len(kept), late)
    assert sink.count("rejected_events") == sum("user" not in row for rows in partitions for row in rows)
    assert made.accounting.balanced
    assert made.accounting.consumed == sum(map(len, partitions))
    assert (made.accounting.pending, made.accounting.late) == (0, late)
    assert made.accounting.sessions == sink.count("user_sessions")


def with_broken(rows: list[dict[str, Any]], places: list[int]) -> list[dict[str, Any]]:
    mixed = list(rows)
    for place in places:
        mixed.insert(place, BROKEN)
    return mixed


def with_fast_clock(rows: list[dict[str, Any]], places: list[int]) -> list[dict[str, Any]]:
    """Now and then a user whose clock is hours ahead."""
    mixed = list(rows)
    no_fields = dict.fromkeys(("source", "app", "timeout"))
    for place in places:
        mixed.insert(place, {**no_fields, "user": "fast", "time": 10_000_000 + place, "id": None})
    return mixed


some_events = st.builds(
    with_fast_clock,
    st.builds(with_broken, events(), st.lists(st.integers(0, 60), max_size=5)),
    st.lists(st.integers(0, 60), max_size=2),
)
VISITS = [{"user": f"u{i % 7}", "time": i * 1000, "id": str(i)} for i in range(200)]


def half_way(folder: Path, sink: InMemoryEpochSink, crash_at: str) -> None:
    """Three epochs, and a crash in the fourth before a step."""
    seen = list[str]()

    def step(name: str) -> None:
        seen.append(name)
        if name == crash_at and seen.count("plan") == 4:
            raise Crash(name)

    made = engine(folder, InMemoryStreamSource([VISITS]), {"kept": sink}, on_step=step)
    with pytest.raises(Crash):
        made.run()
    made.close()
