"""Pauses between tries, which end at once when the run they belong to ends.

A connector that tries again within one call, and an engine that repeats the call, pause here. What ends a pause is
known to the thread (a context variable), so no connector needs an event handed down to it; where nothing is known, a
pause is a plain sleep.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_LOOK_EVERY_S = 0.05


class Pauses:
    """The pauses of one run. stopping: any of them ends every pause, as give_up does."""

    def __init__(self, *stopping: threading.Event) -> None:
        self._stopping = stopping
        self._given_up = threading.Event()

    def cancel(self) -> None:
        """The run ends by an error: nobody waits for results any more."""
        self._given_up.set()

    @property
    def given_up(self) -> bool:
        """Whether nobody waits for results any more."""
        return self._given_up.is_set()

    @property
    def ended(self) -> bool:
        """Whether no pause is made any more."""
        return self.given_up or any(event.is_set() for event in self._stopping)

    def pause(self, seconds: float) -> bool:
        """Wait; whether it lasted to its end. May be called by several threads."""
        until = time.monotonic() + seconds
        while not self.ended:
            left_s = until - time.monotonic()
            if left_s <= 0:
                return True
            self._given_up.wait(min(left_s, _LOOK_EVERY_S))
        return False

    @contextmanager
    def around(self) -> Iterator[None]:
        """In this block, and in this thread, pause and given_up of the module are those of this run."""
        before = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(before)


_CURRENT: ContextVar[Pauses | None] = ContextVar("sessionize_pauses", default=None)


def pause(seconds: float) -> bool:
    """Wait before another try; whether the wait lasted to its end. False: the run ends, which is no time to wait."""
    current = _CURRENT.get()
    if current is not None:
        return current.pause(seconds)
    time.sleep(seconds)
    return True


def given_up() -> bool:
    """Whether the run that this call belongs to has ended by an error, so that another try serves nobody."""
    current = _CURRENT.get()
    return current is not None and current.given_up
