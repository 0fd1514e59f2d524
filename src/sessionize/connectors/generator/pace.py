"""Real time: each record is written when it is due, and writing catches up after a stall without a burst.

A delay of up to a second is caught up at once. After a longer one the schedule continues at twice its speed until it
is on time; so consumers never get more than twice the rate, however long the stall was.
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

# Records due within this time are written together, when the last of them is due.
TICK_S = 0.005
_STALL_S = 1.0
_CATCH_UP = 2.0
_SLACK_S_MAX = 2.0


@dataclass(frozen=True, slots=True)
class Timer:
    """The source of real time: a monotonic clock and a way to wait, both in seconds.

    wall_ms: ms since 1970; with it a run starts at the time when its writing starts, instead of settings.start_ms.
    """

    now_s: Callable[[], float] = time.monotonic
    sleep_s: Callable[[float], None] = time.sleep
    wall_ms: Callable[[], int] | None = None


class Pace:
    """How far the schedule of a run may be written at any time, in seconds from the run's start."""

    def __init__(self, timer: Timer, *, began_s: float) -> None:
        """began_s: the start of the run on the timer."""
        self._timer = timer
        self._at_s, self._from_s, self._speed = began_s, 0.0, 1.0  # it passed from_s at at_s
        self._began_s = began_s

    def wait(self, due_s: float) -> float:
        """Wait until records due at due_s may be written; returns the time up to which records may be written now."""
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
    """When the records of a run are due: at their arrival, or evenly if a rate is given and not small.

    With late or unordered events the number of arrivals varies at random; then records are due a little after their
    arrival, so that the rate stays even.
    """

    def __init__(self, settings: GeneratorSettings) -> None:
        rate = settings.rate_per_s or 0.0
        self._rate_per_s = rate if rate >= EVEN_PER_S else None
        self._events = 0
        late = settings.late_fraction
        # Variance of the number of arrivals, in events for each event a second.
        variance_s = 2 * settings.late_by_ms / 1_000 * late * (1 - late) + settings.out_of_order_ms / 3_000
        self._slack_s = min(3 * math.sqrt(variance_s / rate), _SLACK_S_MAX) if rate else 0.0

    def due_s(self, block: Block, *, begun_ms: int) -> Floats:
        """Seconds after the start, ascending, one for each record. begun_ms: the time of the start in the block."""
        arrival_s = (block.records.arrival_ms - begun_ms) / 1_000
        if self._rate_per_s is None:
            return arrival_s
        is_event = block.records.role == EVENT
        before = self._events + np.cumsum(is_event) - is_event
        self._events += int(np.count_nonzero(is_event))
        even_s = before / self._rate_per_s + self._slack_s
        return np.asarray(np.maximum(arrival_s, even_s), dtype=np.float64)
