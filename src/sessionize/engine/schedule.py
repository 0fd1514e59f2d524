"""Periodic work beside a stream, on its own thread, which looks further back from time to time.

An error is reported and ends nothing: the next time looks as far back as the one that failed should have looked.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from sessionize.ports import MovingClock
from sessionize.retry_pauses import Pauses

_END_S = 30.0
_FAILED_S = 1.0
_PAUSE_MIN_S = 0.02


class LookbackTiers:
    """Which of several windows is due: the shortest each time, a longer one once it has passed since its last time.

    windows_ms: any number, in any order. The first time is for the longest, as its last time is unknown.
    """

    def __init__(self, windows_ms: Sequence[int]) -> None:
        self._windows_ms = sorted(set(windows_ms))
        self._done_s = dict.fromkeys(self._windows_ms, float("-inf"))

    def due_ms(self, at_s: float) -> int:
        """The longest window that is due at this moment."""
        passed = [window for window in self._windows_ms if at_s - self._done_s[window] >= window / 1000]
        return max(passed, default=self._windows_ms[0])

    def done(self, window_ms: int, at_s: float) -> None:
        """The work has looked this far back, which covers the shorter windows too."""
        for window in self._windows_ms:
            if window <= window_ms:
                self._done_s[window] = at_s


class Scheduler:
    """Calls work(window_ms) every every_s seconds, from start() to close(), one call at a time.

    first_s: from the start to the first time, None for every_s. work: asks `ending` from time to time whether to end
    early. on_error: gets every error of the work. stopping: set when the run is to end; no work begins after it.
    """

    def __init__(
        self,
        work: Callable[[int], None],
        *,
        every_s: float,
        first_s: float | None = None,
        tiers: LookbackTiers,
        clock: MovingClock,
        stopping: threading.Event,
        on_error: Callable[[Exception], None],
    ) -> None:
        self._work, self._every_s, self._tiers, self._clock = work, every_s, tiers, clock
        self._stopping, self._on_error = stopping, on_error
        self._closed = threading.Event()
        self._pauses = Pauses(self._closed, stopping)
        self._thread: threading.Thread | None = None
        self._first_s = every_s if first_s is None else first_s
        self._next_s = clock.monotonic_s() + self._first_s

    def start(self) -> None:
        """Start the thread; the first call is after first_s."""
        self._next_s = self._clock.monotonic_s() + self._first_s
        self._thread = threading.Thread(target=self._run, name="periodic", daemon=True)
        self._thread.start()

    def cancel(self) -> bool:
        """Close for a run that has failed: work under way is not retried, and is waited for only briefly."""
        self._pauses.cancel()
        return self.close(wait_s=_FAILED_S)

    def close(self, *, wait_s: float = _END_S) -> bool:
        """End the thread, waiting at most wait_s for work that is under way; whether it ended."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(wait_s)
            return not self._thread.is_alive()
        return True

    @contextmanager
    def beside(self, *, ending: Callable[[], None] = lambda: None, unfinished: Callable[[], None]) -> Iterator[None]:
        """The work beside a run, which is the block. ending: called when the run has ended well, before the work is
        waited for; unfinished: when it did not end in time. Errors: those of the run.
        """
        self.start()
        try:
            yield
        except KeyboardInterrupt:
            self.close(wait_s=0)  # the second Ctrl-C: the next time of the work finishes or undoes what is under way
            raise
        except BaseException:
            self.cancel()
            raise
        ending()
        if not self.close():
            unfinished()

    def ending(self) -> bool:
        """Whether work that is under way should end."""
        return self._closed.is_set() or self._stopping.is_set()

    def step(self) -> float:
        """Do what is due; the seconds until something is due again."""
        began_s = self._clock.monotonic_s()
        if began_s < self._next_s or self.ending():
            return max(0.0, self._next_s - began_s)
        window_ms = self._tiers.due_ms(began_s)
        try:
            self._work(window_ms)
            self._tiers.done(window_ms, began_s)
        except Exception as error:
            self._on_error(error)
        took_s = self._clock.monotonic_s() - began_s
        # work that takes longer than the interval still leaves half of the time to other threads
        self._next_s = began_s + max(self._every_s, 2 * took_s)
        return max(0.0, self._next_s - self._clock.monotonic_s())

    def _run(self) -> None:
        with self._pauses.around():
            while not self._closed.wait(max(_PAUSE_MIN_S, self.step())):
                pass
