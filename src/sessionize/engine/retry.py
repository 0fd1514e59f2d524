"""Calls to servers that may be unavailable: retried with growing pauses, for a bounded time, and reported.

Only an UnavailableError is retried: waiting mends no other error. A server that accepts a call and never answers is
reported too, and the call fails after the same time.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import tenacity

from sessionize.engine.run_events import UNOBSERVED, Observer, ServerRecovered, ServerUnavailable
from sessionize.errors import UnavailableError
from sessionize.retry_pauses import Pauses

T = TypeVar("T")

_WAIT_MIN_S = 0.1
_WAIT_MAX_S = 10.0
_SILENT_S = 30.0  # how long a call may take before it is reported; a large commit may take some seconds


class Retrier:
    """Retries calls while a server is unavailable.

    retry_timeout_s: how long one call may fail in a row before the error is final. stopping: set when the run is to
    end, which ends a pause at once. observer: gets ServerUnavailable when a server is silent and each time a call fails
    that is retried, and ServerRecovered when the call succeeds after that.
    """

    def __init__(
        self,
        retry_timeout_s: float,
        *,
        stopping: threading.Event,
        observer: Observer = UNOBSERVED,
    ) -> None:
        self._retry_timeout_s = retry_timeout_s
        self._stopping = stopping
        self._observer = observer
        self._pauses = Pauses(stopping)
        self._closed = threading.Event()
        self._guard = threading.Lock()
        self._begun_s: dict[tuple[str, int], float] = {}  # calls under way, by server and thread
        self._silent: set[str] = set()  # servers that were reported as silent, until a call succeeds

    def cancel(self) -> None:
        """The run ends by another error: calls that pause in other threads are not retried."""
        self._pauses.cancel()

    def close(self) -> None:
        """The run has ended: a thread that still works makes no further calls."""
        self.cancel()
        self._closed.set()

    def call(self, server: str, what: Callable[[], T]) -> T:
        """The result of what(). Errors: its own; UnavailableError when it lasts too long, or the run is to end."""
        unavailable: UnavailableError | None = None

        def report(state: tenacity.RetryCallState) -> None:
            nonlocal unavailable
            error = state.outcome.exception() if state.outcome is not None else None
            if isinstance(error, UnavailableError):
                self._observer.on_event(ServerUnavailable.of(server, error))
                unavailable = error

        def pause(seconds: float) -> None:
            if not self._pauses.pause(seconds) and unavailable is not None:
                raise unavailable

        def once() -> T:
            if self._closed.is_set():
                raise UnavailableError("the run has ended", detail=f"{server} is not called any more")
            with self._timed(server):
                return what()

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(UnavailableError),
            wait=tenacity.wait_exponential_jitter(multiplier=_WAIT_MIN_S, max=_WAIT_MAX_S, jitter=_WAIT_MIN_S),
            stop=tenacity.stop_any(
                tenacity.stop_after_delay(self._retry_timeout_s), tenacity.stop_when_event_set(self._stopping)
            ),
            sleep=pause,
            before_sleep=report,
            reraise=True,
        )
        with self._pauses.around():
            result: T = retrying(once)
        with self._guard:
            was_silent = server in self._silent
            self._silent.discard(server)
        if (was_silent or unavailable is not None) and not self._stopping.is_set():
            # when the run is to stop, a call may return without a request to the server
            self._observer.on_event(ServerRecovered(server=server))
        return result

    def note_silence(self) -> None:
        """Report servers that were called in another thread and do not answer.

        Errors: UnavailableError when that lasts longer than a retry may, or for some time when the run is to end.
        """
        now_s = time.monotonic()
        with self._guard:
            waits = {server: now_s - begun_s for (server, _), begun_s in self._begun_s.items()}
        for server, silent_s in waits.items():
            if silent_s < _SILENT_S:
                continue
            error = UnavailableError(
                f"{server} does not answer",
                detail=f"for {silent_s:.0f} s",
                hint="check whether the server hangs; the next run repeats what was begun",
            )
            if silent_s >= self._retry_timeout_s or self._pauses.ended:
                raise error
            if server not in self._silent:
                self._silent.add(server)
                self._observer.on_event(ServerUnavailable.of(server, error))

    @contextmanager
    def _timed(self, server: str) -> Iterator[None]:
        key = (server, threading.get_ident())
        with self._guard:
            self._begun_s[key] = time.monotonic()
        try:
            yield
        finally:
            with self._guard:
                del self._begun_s[key]
