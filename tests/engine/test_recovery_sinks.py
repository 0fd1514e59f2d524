"""The local engine's state and its sinks agree on what was written, or nothing is written."""

import shutil
from pathlib import Path

import pytest

from sessionize import Policy, Rules
from sessionize.engine.run_events import ServerUnavailable, SinkBehindState
from sessionize.errors import StateError, UnavailableError
from sessionize.ports import EpochSink
from sessionize.testing.observers import RecordedEvents
from sessionize.testing.streams import InMemoryEpochSink, InMemoryStreamSource
from tests.engine.stream_runs import VISITS, check, engine, half_way, run


def test_state_that_was_thrown_away_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    sink, new = InMemoryEpochSink(), InMemoryEpochSink()
    run(lambda: engine(tmp_path / "a", InMemoryStreamSource([VISITS]), {"kept": sink}))
    last = len(sink.epochs)
    with pytest.raises(StateError, match="ahead of the state") as caught:
        run(lambda: engine(tmp_path / "b", InMemoryStreamSource([VISITS, VISITS]), {"new": new, "kept": sink}))
    assert caught.value.detail == f"kept has epochs of writer 'w' up to {last}, the state knows of none"
    assert "empty" in str(caught.value.hint)
    assert (len(sink.epochs), sink.repeated, new.epochs) == (last, 0, [])


@pytest.mark.parametrize("step", ["commit", "plan"])
def test_state_of_an_older_backup_is_refused_and_the_right_one_goes_on(tmp_path: Path, step: str) -> None:
    """Taken before an epoch was planned, or while it was written: what is planned may be in the sinks, no more."""
    sink, folder, backup = InMemoryEpochSink(), tmp_path / "state", tmp_path / "backup"
    half_way(folder, sink, step)
    shutil.copytree(folder, backup)
    made = run(lambda: engine(folder, InMemoryStreamSource([VISITS]), {"kept": sink}))
    last = len(sink.epochs)
    with pytest.raises(StateError, match="ahead of the state"):
        run(lambda: engine(backup, InMemoryStreamSource([VISITS, VISITS]), {"kept": sink}))
    assert len(sink.epochs) == last
    made = run(lambda: engine(folder, InMemoryStreamSource([VISITS]), {"kept": sink}))
    check(sink, made, [VISITS], Policy(), Rules(), 0)


def test_an_output_of_an_older_backup_is_refused(tmp_path: Path) -> None:
    sink = InMemoryEpochSink()
    made = run(lambda: engine(tmp_path, InMemoryStreamSource([VISITS]), {"kept": sink}))
    last, older = len(sink.epochs), InMemoryEpochSink()
    for epoch, rows in sink.epochs[:-1]:
        older.write_epoch(epoch, rows)
    with pytest.raises(StateError, match="lacks epochs") as caught:
        run(lambda: engine(tmp_path, InMemoryStreamSource([VISITS]), {"kept": sink, "older": older}))
    assert caught.value.detail == f"older has epochs of writer 'w' up to {last - 1}, the state is at {last}"
    older.write_epoch(*sink.epochs[-1])
    made = run(lambda: engine(tmp_path, InMemoryStreamSource([VISITS]), {"kept": sink, "older": older}))
    check(older, made, [VISITS], Policy(), Rules(), 0)


def test_a_new_output_gets_what_comes_from_now_on_and_is_told(tmp_path: Path) -> None:
    class Printed(InMemoryEpochSink):
        def last_epoch(self, writer: str) -> None:  # type: ignore[override]
            """Keeps no record."""

    sink, new, events = InMemoryEpochSink(), InMemoryEpochSink(), RecordedEvents()
    first = VISITS[: len(VISITS) // 2]
    run(lambda: engine(tmp_path, InMemoryStreamSource([first]), {"kept": sink}))
    last = len(sink.epochs)
    for _ in range(2):
        sinks: dict[str, EpochSink] = {"kept": sink, "new": new, "printed": Printed()}
        run(lambda: engine(tmp_path, InMemoryStreamSource([VISITS]), sinks, observer=events))  # noqa: B023
    problem = f"new is new to writer 'w': it gets what comes after epoch {last}"
    assert events.of(SinkBehindState) == [SinkBehindState(problem)]
    assert [epoch for epoch, _ in new.epochs] == [epoch for epoch, _ in sink.epochs[last:]] != []


def test_a_sink_that_is_away_when_it_is_asked_for_its_last_epoch_is_waited_for(tmp_path: Path) -> None:
    class Away(InMemoryEpochSink):
        times = 2

        def last_epoch(self, writer: str) -> int:
            self.times -= 1
            if self.times >= 0:
                raise UnavailableError("the store is away")
            return super().last_epoch(writer)

    sink, events = Away(), RecordedEvents()
    made = run(lambda: engine(tmp_path, InMemoryStreamSource([VISITS]), {"kept": sink}, observer=events))
    check(sink, made, [VISITS], Policy(), Rules(), 0)
    assert events.of(ServerUnavailable) == [ServerUnavailable(server="kept", problem="the store is away")] * 2
