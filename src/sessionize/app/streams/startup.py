"""Opening the parts of a stream while servers may be unavailable: retried and reported as in a run, and ended at once.

Each part is opened by another thread, because some drivers do not return while they wait for a server.
"""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import replace
from typing import TypeVar

from sessionize.engine.retry import Retrier
from sessionize.engine.run_events import (
    AllRejected,
    EpochCommitted,
    Event,
    MostlyLate,
    Observer,
    PhaseChanged,
    RowsShortened,
    RowsSkipped,
    ServerRecovered,
    ServerUnavailable,
    StatusChanged,
)
from sessionize.engine.run_events.reports import EpochReport, Status
from sessionize.errors import UnavailableError

T = TypeVar("T")

_LOOK_EVERY_S = 0.05
_SILENT_S = 10.0  # after which a server that does not answer counts as unavailable; loading a driver takes a while
_SOURCE = "source"  # what the engine calls the input


class StoppedError(UnavailableError):
    """The run was asked to stop while it waited for a server; nothing was read or written."""


class AvailabilityTracker:
    """Puts together what the parts of a run report, for an observer: a server is unavailable once, until it recovers.

    It gets the events of the opening, the engine, the live view and of what runs beside the stream. It passes them on,
    except that a ServerUnavailable of a server that is known to be unavailable, and a ServerRecovered of one that is
    not, only change the status. Each StatusChanged has all unavailable servers, the phase, and the rows that were too
    large. A committed epoch is followed by AllRejected or MostlyLate, where it is so.

    source: what to call the input. dialect: what its records are read as.
    """

    def __init__(self, observer: Observer, *, source: str, dialect: str | None = None) -> None:
        self._observer, self._source, self._dialect = observer, source, dialect
        self._unavailable: dict[str, str] = {}
        self._last = Status()
        self._phase: str | None = None
        self._unfit = (0, 0)
        self._guard = threading.Lock()  # events come from several threads

    def on_event(self, event: Event, /) -> None:
        """Pass the event on, with what follows from it."""
        match event:
            case ServerUnavailable():
                self._server_unavailable(event)
            case ServerRecovered():
                self._server_recovered(event)
            case StatusChanged(status):
                with self._guard:
                    self._last = status
                    self._report_status()
            case PhaseChanged(phase):
                self._observer.on_event(event)
                with self._guard:
                    self._phase = phase
                    self._report_status()
            case RowsShortened() | RowsSkipped():
                self._observer.on_event(event)
                self._count_unfit(event)
            case EpochCommitted(report):
                self._observer.on_event(event)
                for warning in epoch_warnings(report, self._dialect):
                    self._observer.on_event(warning)
            case _:
                self._observer.on_event(event)

    def note_silence(self, server: str) -> None:
        """A server has not answered so far; an earlier problem of it says more and stays."""
        with self._guard:
            if server in self._unavailable:
                return
        self.on_event(ServerUnavailable(server=server, problem="no answer yet"))

    def _server_unavailable(self, event: ServerUnavailable) -> None:
        event = replace(event, server=self._name_of(event.server))
        with self._guard:
            was_known = event.server in self._unavailable
            self._unavailable[event.server] = event.problem
            if not was_known:
                self._observer.on_event(event)
            self._report_status()

    def _server_recovered(self, event: ServerRecovered) -> None:
        event = replace(event, server=self._name_of(event.server))
        with self._guard:
            if self._unavailable.pop(event.server, None) is not None:
                self._observer.on_event(event)
                self._report_status()

    def _count_unfit(self, event: RowsShortened | RowsSkipped) -> None:
        with self._guard:
            shortened, skipped = self._unfit
            if isinstance(event, RowsShortened):
                shortened += event.rows
            else:
                skipped += event.rows
            self._unfit = (shortened, skipped)
            self._report_status()

    def _name_of(self, server: str) -> str:
        return self._source if server == _SOURCE else server

    def _report_status(self) -> None:
        unavailable = dict(self._unavailable)
        lag = None if self._source in unavailable else self._last.lag  # how many records came meanwhile is unknown
        status = replace(self._last, unavailable=unavailable, lag=lag, phase=self._phase, unfit=self._unfit)
        self._observer.on_event(StatusChanged(status))


def epoch_warnings(report: EpochReport, dialect: str | None) -> list[Event]:
    """What a person should know of a committed epoch."""
    warnings: list[Event] = []
    if report.all_rejected:
        reason = max(report.reasons, key=lambda reason: report.reasons[reason], default=None)
        warnings.append(AllRejected(epoch=report.epoch, rejected_rows=report.rejected, reason=reason, dialect=dialect))
    if report.mostly_late:
        warnings.append(
            MostlyLate(
                epoch=report.epoch,
                late_rows=report.late,
                input_rows=report.consumed,
                watermark_ms=report.watermark_ms,
            )
        )
    return warnings


class Opener:
    """Opens parts one after the other. retrier: for servers that are unavailable; stopping: ends the wait."""

    def __init__(self, retrier: Retrier, tracker: AvailabilityTracker, *, stopping: threading.Event) -> None:
        self._retrier, self._tracker, self._stopping = retrier, tracker, stopping

    def call(self, server: str, make: Callable[[], T]) -> T:
        """What make() returns.

        Errors: its own, UnavailableError after too long; StoppedError when the run is to end.
        """
        made: Future[T] = Future()

        def work() -> None:
            try:
                made.set_result(self._retrier.call(server, make))
            except BaseException as error:  # raised where the result is asked for
                made.set_exception(error)

        threading.Thread(target=work, name=f"opening {server}", daemon=True).start()
        silent_s = 0.0
        while not wait_for([made], _LOOK_EVERY_S).done:
            if self._stopping.is_set():
                made.add_done_callback(_close)
                raise self._stopped(server)
            silent_s += _LOOK_EVERY_S
            if silent_s - _LOOK_EVERY_S < _SILENT_S <= silent_s:
                self._tracker.note_silence(server)
        try:
            part = made.result()
        except UnavailableError as error:
            if self._stopping.is_set():
                raise self._stopped(server, detail=str(error)) from None
            raise
        self._tracker.on_event(ServerRecovered(server=server))
        return part

    def _stopped(self, server: str, detail: str | None = None) -> StoppedError:
        return StoppedError(f"stopped while waiting for {server}", detail=detail)


def _close(made: "Future[T]") -> None:
    """Close a part that was opened too late."""
    close = None if made.exception() is not None else getattr(made.result(), "close", None)
    if close is not None:
        with contextlib.suppress(Exception):
            close()
