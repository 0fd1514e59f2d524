"""The machine's clocks: a wall clock that may jump, and one that only moves forward (ports.Clock)."""

import time


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """The wall clock."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """The time since the machine started."""
        return time.monotonic()
