"""An epoch is written and committed while the next one is read.

The work is on a daemon thread, so that what hangs in it never keeps the process from ending.
"""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, replace
from typing import Any

from sessionize.engine.retry import Retrier
from sessionize.engine.run_events import Observer, StepReached
from sessionize.engine.run_events.reports import EpochReport
from sessionize.engine.stream.checkpoints import Checkpoints
from sessionize.engine.stream.reporting import StatusReporter
from sessionize.errors import UnavailableError
from sessionize.kernel.changes import Changes
from sessionize.ports import Clock, EpochId, EpochOutput, EpochSink

_LOOK_EVERY_S = 0.05
_LEFT_S = 5.0  # how long a run that has failed waits for an epoch that is being written


def in_a_thread(name: str, work: Callable[[], None]) -> "Future[None]":
    """Begin the work. Not in a pool's thread: Python waits for those before it ends."""
    done: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except BaseException as error:  # raised where the result is asked for
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=run, name=name, daemon=True).start()
    return done


class EpochWriter:
    """One piece of work at a time beside the caller's. retrier: what the work calls servers through.

    Work that fails ends every pause of the retrier, also the caller's own.
    """

    def __init__(self, retrier: Retrier) -> None:
        self._retrier = retrier
        self._writing: Future[None] | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin; the piece before has to be through."""
        self._writing = in_a_thread("epoch writer", work)
        self._writing.add_done_callback(self._end_pauses)

    def look(self) -> None:
        """See how it is getting on, without waiting. Errors: what ended the work; those of Retrier.note_silence."""
        if self._writing is None:
            return
        if not self._writing.done():
            self._retrier.note_silence()
            return
        writing, self._writing = self._writing, None
        writing.result()

    def wait(self) -> None:
        """Until it is through. Errors: those of look."""
        while self._writing is not None:
            wait_for([self._writing], _LOOK_EVERY_S)
            self.look()

    def leave(self, error: BaseException) -> None:
        """The run ends by this error, which gets a note of what became of the work.

        What hangs is left behind, as if the process had been killed.
        """
        self._retrier.cancel()
        writing, self._writing = self._writing, None
        if writing is not None:
            left_s = 0.0 if isinstance(error, KeyboardInterrupt) else _LEFT_S
            if not wait_for([writing], left_s).done:
                error.add_note("and the epoch before is still being written: the next run repeats it")
            elif (another := writing.exception()) is not None:
                error.add_note(f"and the epoch before was not written: {another}")
        self._retrier.close()

    def _end_pauses(self, done: "Future[None]") -> None:
        if done.exception() is not None:
            self._retrier.cancel()


@dataclass(frozen=True, slots=True)
class AdvancedEpoch:
    """An epoch that is planned, and whose final sessions are made.

    output: what the sinks get. changes, header: what the checkpoint gets. report: without the time of writing.
    """

    id: EpochId
    output: EpochOutput
    changes: Changes
    header: dict[str, Any]
    report: EpochReport


class EpochCommitter:
    """Gives an epoch to every sink, in their order, and then to the checkpoint. It does not touch the engine's state.

    retrier: what sinks and checkpoints are called through. reporter: gets what was committed, observer: each step.
    """

    def __init__(
        self,
        sinks: Mapping[str, EpochSink],
        checkpoints: Checkpoints,
        retrier: Retrier,
        reporter: StatusReporter,
        *,
        observer: Observer,
        clock: Clock,
    ) -> None:
        self._sinks, self._checkpoints, self._clock = sinks, checkpoints, clock
        self._retrier, self._reporter, self._observer = retrier, reporter, observer

    def commit(self, epoch: AdvancedEpoch) -> None:
        """Write and commit it. Errors: those of the sinks and of the checkpoint."""
        try:
            self._commit(epoch)
        except UnavailableError as error:
            error.add_note("the epoch is planned: the next run repeats it, and nothing is lost or doubled")
            raise

    def _commit(self, epoch: AdvancedEpoch) -> None:
        started_s = self._clock.monotonic_s()
        for name, sink in self._sinks.items():
            self._observer.on_event(StepReached(f"write {name}"))
            self._retrier.call(name, lambda sink=sink: sink.write_epoch(epoch.id, epoch.output))  # type: ignore[misc]
        self._observer.on_event(StepReached("commit"))
        self._retrier.call("state", lambda: self._checkpoints.commit(epoch.id.number, epoch.header, epoch.changes))
        self._observer.on_event(StepReached("committed"))
        self._reporter.merge_error()
        self._reporter.committed(replace(epoch.report, write_s=self._clock.monotonic_s() - started_s))
