"""Real time: each record is written when it is due, and after a stall the writing catches up without a burst.

A delay of up to a second is made up for at once. After a longer one the schedule runs at twice its speed from where it
stopped, until it is in time again; so nobody downstream gets more than twice the rate, however long the stall was.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sessionize.connectors.generator.arrival import EVENT
from sessionize.connectors.generator.diurnal_cycle import EVEN_PER_S, Floats
from sessionize.connectors.generator.settings import GeneratorSettings
from sessionize.connectors.generator.stream import Block

# Records that are due so close together are written together, when the last of them is due.
TICK_S = 0.005
_STALL_S = 1.0
_CATCH_UP = 2.0
_SLACK_S_MAX = 2.0


@dataclass(frozen=True, slots=True)
class Timer:
    """Where real time comes from: a clock that never goes back, and a way to wait; both in seconds.

    wall_ms: ms since 1970; with it a run is dated by the moment its writing starts, instead of settings.start_ms.
    """

    now_s: Callable[[], float] = time.monotonic
    sleep_s: Callable[[float], None] = time.sleep
    wall_ms: Callable[[], int] | None = None


class Pace:
    """How far the schedule of a run may be written at any moment. Seconds are counted from the run's start."""

    def __init__(self, timer: Timer, *, began_s: float) -> None:
        """began_s: when the run starts, by the timer."""
        self._timer = timer
        self._at_s, self._from_s, self._speed = began_s, 0.0, 1.0  # it passed from_s at at_s
        self._began_s = began_s

    def wait(self, due_s: float) -> float:
        """Wait until what is due then may be written; returns up to where everything may be written now."""
        now_s = self._timer.now_s()
        if self._allowed_s(now_s) - due_s > _STALL_S:
            self._at_s, self._from_s, self._speed = now_s, due_s, _CATCH_UP
        wait_s = (due_s - self._allowed_s(now_s)) / self._speed
        if wait_s > 0:
            self._timer.sleep_s(wait_s + TICK_S)
            now_s = self._timer.now_s()
        return self._allowed_s(now_s)

    def _allowed_s(self, now_s: float) -> float:
        in_time_s = now_s - self._began_s
        allowed_s = self._from_s + (now_s - self._at_s) * self._speed
        if allowed_s >= in_time_s:  # caught up
            self._at_s, self._from_s, self._speed = self._began_s, 0.0, 1.0
            return in_time_s
        return allowed_s


class Schedule:
    """When the records of a run are due: as they arrive, and at an even rate where the rate is given and not small.

    With late or unordered events the number of arrivals goes up and down by chance; then records are due a little
    later than they arrive, so that the even rate can be kept.
    """

    def __init__(self, settings: GeneratorSettings) -> None:
        rate = settings.rate_per_s or 0.0
        self._rate_per_s = rate if rate >= EVEN_PER_S else None
        self._events = 0
        late = settings.late_fraction
        # Variance of the number that has arrived, in events for each event a second.
        variance_s = 2 * settings.late_by_ms / 1_000 * late * (1 - late) + settings.out_of_order_ms / 3_000
        self._slack_s = min(3 * math.sqrt(variance_s / rate), _SLACK_S_MAX) if rate else 0.0

    def due_s(self, block: Block, *, begun_ms: int) -> Floats:
        """Seconds after the start, ascending, one for each record. begun_ms: how the start is dated in the block."""
        arrival_s = (block.records.arrival_ms - begun_ms) / 1_000
        if self._rate_per_s is None:
            return arrival_s
        is_event = block.records.role == EVENT
        before = self._events + np.cumsum(is_event) - is_event
        self._events += int(np.count_nonzero(is_event))
        even_s = before / self._rate_per_s + self._slack_s
        return np.asarray(np.maximum(arrival_s, even_s), dtype=np.float64)
