"""Pauses between retries, which end at once when their run ends.

A connector that retries within one call and an engine that repeats the call both pause here. A context variable holds
the pauses of the run, so no connector needs an event passed down; without it a pause is a plain sleep.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_POLL_INTERVAL_S = 0.05


class Pauses:
    """The pauses of one run. stopping: any of them ends every pause, as cancel does."""

    def __init__(self, *stopping: threading.Event) -> None:
        self._stopping = stopping
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """End all pauses: the run has failed, so its results are not needed."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether the run was cancelled."""
        return self._cancelled.is_set()

    @property
    def ended(self) -> bool:
        """Whether pauses now end at once."""
        return self.cancelled or any(event.is_set() for event in self._stopping)

    def pause(self, seconds: float) -> bool:
        """Wait; returns whether the full time passed. Thread-safe."""
        until = time.monotonic() + seconds
        while not self.ended:
            left_s = until - time.monotonic()
            if left_s <= 0:
                return True
            self._cancelled.wait(min(left_s, _POLL_INTERVAL_S))
        return False

    @contextmanager
    def around(self) -> Iterator[None]:
        """In this block and thread, the module's pause and cancelled use this run."""
        before = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(before)


_CURRENT: ContextVar[Pauses | None] = ContextVar("sessionize_pauses", default=None)


def pause(seconds: float) -> bool:
    """Wait before a retry; returns whether the full time passed. False: the run ends."""
    current = _CURRENT.get()
    if current is not None:
        return current.pause(seconds)
    time.sleep(seconds)
    return True


def cancelled() -> bool:
    """Whether the current run was cancelled by an error, so that a retry is pointless."""
    current = _CURRENT.get()
    return current is not None and current.cancelled
