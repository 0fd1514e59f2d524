"""The time as an engine sees it: a wall clock that may jump, and one that only moves forward."""

import time
from typing import Protocol


class MovingClock(Protocol):
    """A clock that knows no date."""

    def monotonic_s(self) -> float:
        """Seconds since some moment; only moves forward."""


class Clock(MovingClock, Protocol):
    """The two clocks an engine looks at."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC; may jump."""


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """The wall clock."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """The time since the machine started."""
        return time.monotonic()
