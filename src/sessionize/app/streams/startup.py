"""Opening the parts of a stream while servers may be away: tried again as in a run, told about, and ended at once.

Each part is opened by another thread, because some drivers answer nobody while they wait for a server.
"""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import replace
from typing import TypeVar

from sessionize.engine.retry import Retrier
from sessionize.engine.stream.status import Status
from sessionize.errors import UnavailableError

T = TypeVar("T")

_LOOK_EVERY_S = 0.05
_SILENT_S = 10.0  # after which a server that says nothing at all counts as away; loading a driver may take some
_SOURCE = "source"  # what the engine calls the input


class StoppedError(UnavailableError):
    """The run was told to end while it waited for a server; nothing was read or written."""


class AvailabilityTracker:
    """Who is away now, put together from those who notice: the opening, the engine, the live view.

    on_status, on_away: hear of every change; on_away gets all that are away, by name. source: what to call the input.
    """

    def __init__(
        self, *, source: str, on_status: Callable[[Status], None], on_unavailable: Callable[[dict[str, str]], None]
    ) -> None:
        self._source, self._on_status, self._on_away = source, on_status, on_unavailable
        self._noticed: dict[str, str] = {}
        self._last = Status()
        self._doing: str | None = None
        self._unfit = (0, 0)
        self._telling = threading.Lock()  # those who notice are threads of their own

    def note(self, who: str, error: UnavailableError | None) -> None:
        """Somebody is away, or (None) back."""
        with self._telling:
            if error is None:
                self._noticed.pop(who, None)
            else:
                detail = "" if error.detail is None else f" ({error.detail})"
                self._noticed[who] = f"{error.message}{detail}"
            self._tell(self._last)

    def note_silence(self, who: str) -> None:
        """Nothing was heard of somebody so far; what is known already says more."""
        with self._telling:
            self._noticed.setdefault(who, "no answer yet")
            self._tell(self._last)

    def note_doing(self, what: str | None) -> None:
        """What is done beside or after the stream, for whoever waits for it; None when it is done."""
        with self._telling:
            self._doing = what
            self._tell(self._last)

    def note_unfit(self, *, shortened: int = 0, skipped: int = 0) -> None:
        """Rows were larger than their topic takes; the status has the sums."""
        with self._telling:
            self._unfit = (self._unfit[0] + shortened, self._unfit[1] + skipped)
            self._tell(self._last)

    def status(self, now: Status) -> None:
        """How things stand with the engine."""
        with self._telling:
            self._last = now
            self._tell(now)

    def _tell(self, now: Status) -> None:
        unavailable = {self._source if who == _SOURCE else who: text for who, text in now.unavailable.items()}
        together = unavailable | self._noticed
        self._on_away(together)
        lag = None if self._source in together else now.lag  # what has come meanwhile nobody knows
        self._on_status(replace(now, unavailable=together, lag=lag, phase=self._doing, unfit=self._unfit))


class Opener:
    """Opens parts one after the other. patience: for servers that are away; stopping: ends the wait."""

    def __init__(self, retrier: Retrier, outages: AvailabilityTracker, *, stopping: threading.Event) -> None:
        self._retrier, self._outages, self._stopping = retrier, outages, stopping

    def call(self, who: str, make: Callable[[], T]) -> T:
        """What make() gives. Errors: its own, UnavailableError after too long; StoppedError when the run is to end."""
        made: Future[T] = Future()

        def work() -> None:
            try:
                made.set_result(self._retrier.call(who, make))
            except BaseException as error:  # told by whoever waits
                made.set_exception(error)

        threading.Thread(target=work, name=f"opening {who}", daemon=True).start()
        silent_s = 0.0
        while not wait_for([made], _LOOK_EVERY_S).done:
            if self._stopping.is_set():
                made.add_done_callback(_close)
                raise StoppedError(f"stopped while waiting for {who}")
            silent_s += _LOOK_EVERY_S
            if silent_s - _LOOK_EVERY_S < _SILENT_S <= silent_s:
                self._outages.note_silence(who)
        try:
            part = made.result()
        except UnavailableError as error:
            if self._stopping.is_set():
                raise StoppedError(f"stopped while waiting for {who}", detail=str(error)) from None
            raise
        self._outages.note(who, None)
        return part


def _close(made: "Future[T]") -> None:
    """What was opened too late is of no use to anybody."""
    close = None if made.exception() is not None else getattr(made.result(), "close", None)
    if close is not None:
        with contextlib.suppress(Exception):
            close()
