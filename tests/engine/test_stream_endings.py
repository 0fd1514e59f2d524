"""How a run ends: nothing that waits, pauses or hangs keeps an error or an interrupt from being raised."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sessionize import Policy, Rules
from sessionize.engine import retry as delivery
from sessionize.engine.run_events import Handler, ServerUnavailable
from sessionize.engine.stream import epoch_writer as beside
from sessionize.engine.stream.engine import LocalEngine
from sessionize.engine.stream.options import StreamOptions
from sessionize.errors import InputError, OutputError, StateError, UnavailableError
from sessionize.ports import EpochId, EpochOutput, StreamBatch
from sessionize.testing.streams import InMemoryEpochSink, InMemoryStreamSource
from tests.engine.stream_runs import VISITS, check, engine, run

GUARD_S = 60.0  # against a test that never ends; what is waited for comes at once
GOES_ON = StreamOptions(epoch_rows_max=1, poll_s=0)


@pytest.fixture
def long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is unavailable is tried again in an hour."""
    monkeypatch.setattr(delivery, "_WAIT_MIN_S", 3600.0)
    monkeypatch.setattr(delivery, "_WAIT_MAX_S", 3600.0)


def ended(made: LocalEngine) -> BaseException:
    """What ends the run, on a thread of its own."""
    errors = list[BaseException]()

    def work() -> None:
        try:
            made.run()
        except BaseException as error:
            errors.append(error)

    running = threading.Thread(target=work, daemon=True)
    running.start()
    running.join(GUARD_S)
    assert not running.is_alive()
    made.close()
    return errors[0]


class Tried(InMemoryEpochSink):
    """A sink that does what it is told to with each epoch."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self._act = act

    def write_epoch(self, epoch: EpochId, rows: EpochOutput) -> None:
        self._act()
        super().write_epoch(epoch, rows)


class Polled(InMemoryStreamSource):
    """A stream that does what it is told to before each poll but the first."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__([VISITS])
        self._act, self._polls = act, 0

    def poll(self, **how: Any) -> list[StreamBatch]:
        self._polls += 1
        if self._polls > 1:
            self._act()
        return super().poll(**how)


def assert_set(event: threading.Event) -> None:
    assert event.wait(GUARD_S)


def raises(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.mark.usefixtures("long_pauses")
def test_a_fatal_error_does_not_wait_for_an_output_that_is_retried(tmp_path: Path) -> None:
    pausing = threading.Event()

    def paused(event: ServerUnavailable) -> None:
        if event.server == "kept":
            pausing.set()

    def fails_while_the_writer_pauses() -> None:
        assert_set(pausing)
        raise InputError("the topic is gone")

    sink = Tried(raises(UnavailableError("no server")))
    source = Polled(fails_while_the_writer_pauses)
    observer = Handler(ServerUnavailable, paused)
    error = ended(engine(tmp_path, source, {"kept": sink}, options=GOES_ON, observer=observer))
    assert str(error) == "the topic is gone"
    assert error.__notes__ == ["and the epoch before was not written: no server"]


@pytest.mark.usefixtures("long_pauses")
def test_an_output_that_refuses_does_not_wait_for_a_source_that_is_retried(tmp_path: Path) -> None:
    pausing = threading.Event()

    def paused(event: ServerUnavailable) -> None:
        if event.server == "source":
            pausing.set()

    def fails_while_the_source_pauses() -> None:
        assert_set(pausing)
        raise OutputError("wrong password")

    sink = Tried(fails_while_the_source_pauses)
    source = Polled(raises(UnavailableError("no broker")))
    observer = Handler(ServerUnavailable, paused)
    error = ended(engine(tmp_path, source, {"kept": sink}, options=GOES_ON, observer=observer))
    assert str(error) == "wrong password"


@pytest.mark.parametrize("stopping", [False, True], ids=["runs", "is to stop"])
def test_an_output_that_never_answers_is_reported_and_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopping: bool
) -> None:
    monkeypatch.setattr(delivery, "_SILENT_S", 0.1)
    monkeypatch.setattr(beside, "_LEFT_S", 0.1)
    hangs, stop, events = threading.Event(), threading.Event(), list[ServerUnavailable]()

    def hear(event: ServerUnavailable) -> None:
        events.append(event)
        if stopping:
            stop.set()

    sink = Tried(lambda: assert_set(hangs))
    options = StreamOptions(epoch_rows_max=1, poll_s=0, retry_timeout_s=GUARD_S if stopping else 0.5)
    observer = Handler(ServerUnavailable, hear)
    made = engine(
        tmp_path, InMemoryStreamSource([VISITS]), {"kept": sink}, options=options, observer=observer, stopping=stop
    )
    error = ended(made)
    assert (type(error), str(error).splitlines()[0]) == (UnavailableError, "kept does not answer")
    assert error.__notes__ == ["and the epoch before is still being written: the next run repeats it"]
    assert (events[0].server, events[0].problem) == ("kept", "kept does not answer (for 0 s)")
    hangs.set()


def test_what_was_left_behind_writes_nothing_any_more(tmp_path: Path) -> None:
    """The next run has the state for itself, though the thread of the run before comes back."""
    hangs, came_back = threading.Event(), threading.Event()

    def act() -> None:
        assert hangs.wait(GUARD_S)
        came_back.set()

    slow, later = Tried(act), InMemoryEpochSink()
    made = engine(tmp_path, Polled(raises(KeyboardInterrupt())), {"slow": slow, "later": later}, options=GOES_ON)
    assert isinstance(ended(made), KeyboardInterrupt)
    sink = InMemoryEpochSink()
    made = run(lambda: engine(tmp_path, InMemoryStreamSource([VISITS]), {"slow": sink, "later": sink}))
    files = sorted(tmp_path.iterdir())
    before = [path.read_bytes() for path in files]
    hangs.set()
    assert came_back.wait(GUARD_S)
    for thread in threading.enumerate():
        if thread.name == "epoch writer":
            thread.join(GUARD_S)
    assert later.epochs == []
    assert (sorted(tmp_path.iterdir()), [path.read_bytes() for path in files]) == (files, before)
    check(sink, made, [VISITS], Policy(), Rules(), 0)


def test_a_closed_folder_takes_no_files(tmp_path: Path) -> None:
    from sessionize.engine.stream.checkpoint_files import DurableFolder, FileOperations

    folder = DurableFolder(tmp_path / "state", FileOperations())
    folder.close()
    with pytest.raises(StateError, match="closed"):
        folder.put({"plan-1.a": [memoryview(b"x")]})
    DurableFolder(tmp_path / "state", FileOperations()).close()


def test_a_folder_is_let_go_when_the_last_file_is_written(tmp_path: Path) -> None:
    from sessionize.engine.stream.checkpoint_files import DurableFolder, FileOperations

    begun, goes_on = threading.Event(), threading.Event()

    class Slow(FileOperations):
        def rename(self, source: Path, target: Path) -> None:
            begun.set()
            assert goes_on.wait(GUARD_S)
            super().rename(source, target)

    folder = DurableFolder(tmp_path / "state", Slow())
    writing = threading.Thread(target=lambda: folder.put({"plan-1.a": [memoryview(b"x")]}))
    writing.start()
    assert begun.wait(GUARD_S)
    folder.close()
    with pytest.raises(StateError, match="in use"):
        DurableFolder(tmp_path / "state", FileOperations())
    goes_on.set()
    writing.join(GUARD_S)
    DurableFolder(tmp_path / "state", FileOperations()).close()
