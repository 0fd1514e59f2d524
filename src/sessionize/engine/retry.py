"""Calls to servers that may be unavailable: retried with growing pauses, for a bounded time, and reported.

Only UnavailableError is worth another try. Everything else is a mistake that waiting does not mend. A server that takes
a call and never answers is reported too, and counts as unavailable for good after the same time.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import tenacity

from sessionize.errors import UnavailableError
from sessionize.pauses import Pauses

T = TypeVar("T")

_WAIT_MIN_S = 0.1
_WAIT_MAX_S = 10.0
_SILENT_S = 30.0  # how long a call may take before it is reported; a large commit may take some seconds


class Retrier:
    """Tries again while a server is unavailable.

    retry_timeout_s: how long one call may fail in a row before the error is final. stopping: set when the run is to
    end, which ends a pause at once. on_unavailable: gets the name of the server and the error; None for the error once
    the server answers again.
    """

    def __init__(
        self,
        retry_timeout_s: float,
        *,
        stopping: threading.Event,
        on_unavailable: Callable[[str, UnavailableError | None], None],
    ) -> None:
        self._outage_s_max = retry_timeout_s
        self._stopping = stopping
        self._on_outage = on_unavailable
        self._pauses = Pauses(stopping)
        self._closed = threading.Event()
        self._guard = threading.Lock()
        self._begun_s: dict[tuple[str, int], float] = {}  # calls under way, by name and thread
        self._silent: set[str] = set()

    def cancel(self) -> None:
        """The run ends by another error: calls that pause in other threads are not tried again."""
        self._pauses.cancel()

    def close(self) -> None:
        """The run has ended, and whoever is still at work in another thread begins nothing more."""
        self.cancel()
        self._closed.set()

    def call(self, who: str, what: Callable[[], T]) -> T:
        """The result of what(). Errors: its own; UnavailableError when it lasts too long, or the run is to end."""
        unavailable: UnavailableError | None = None

        def tell(state: tenacity.RetryCallState) -> None:
            nonlocal unavailable
            error = state.outcome.exception() if state.outcome is not None else None
            unavailable = error if isinstance(error, UnavailableError) else None
            self._on_outage(who, unavailable)

        def pause(seconds: float) -> None:
            if not self._pauses.pause(seconds) and unavailable is not None:
                raise unavailable

        def once() -> T:
            if self._closed.is_set():
                raise UnavailableError("the run has ended", detail=f"{who} is not called any more")
            with self._timed(who):
                return what()

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(UnavailableError),
            wait=tenacity.wait_exponential_jitter(multiplier=_WAIT_MIN_S, max=_WAIT_MAX_S, jitter=_WAIT_MIN_S),
            stop=tenacity.stop_any(
                tenacity.stop_after_delay(self._outage_s_max), tenacity.stop_when_event_set(self._stopping)
            ),
            sleep=pause,
            before_sleep=tell,
            reraise=True,
        )
        with self._pauses.around():
            result: T = retrying(once)
        if unavailable is not None and not self._stopping.is_set():
            self._on_outage(who, None)  # told to stop, a call may return without having asked anybody
        return result

    def note_silence(self) -> None:
        """Report whoever has been called in another thread and does not answer.

        Errors: UnavailableError when that lasts longer than an outage may, or for some time when the run is to end.
        """
        now_s = time.monotonic()
        with self._guard:
            waits = {who: now_s - begun_s for (who, _), begun_s in self._begun_s.items()}
        for who, silent_s in waits.items():
            if silent_s < _SILENT_S:
                continue
            error = UnavailableError(
                f"{who} does not answer",
                detail=f"for {silent_s:.0f} s",
                hint="check whether the server hangs; what was begun is repeated by the next run",
            )
            if silent_s >= self._outage_s_max or self._pauses.ended:
                raise error
            if who not in self._silent:
                self._silent.add(who)
                self._on_outage(who, error)

    @contextmanager
    def _timed(self, who: str) -> Iterator[None]:
        key = (who, threading.get_ident())
        with self._guard:
            self._begun_s[key] = time.monotonic()
        try:
            yield
        finally:
            with self._guard:
                del self._begun_s[key]
                was_silent = who in self._silent
                self._silent.discard(who)
            if was_silent and not self._stopping.is_set():
                self._on_outage(who, None)
