"""Clocks: the only way in which time reaches an engine."""

from typing import Protocol


class MovingClock(Protocol):
    """A clock that knows no date."""

    def monotonic_s(self) -> float:
        """Seconds since some moment; only moves forward."""


class Clock(MovingClock, Protocol):
    """The two clocks an engine looks at."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC; may jump."""
