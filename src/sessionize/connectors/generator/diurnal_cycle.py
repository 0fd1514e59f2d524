"""The diurnal cycle of the users, and the clock that keeps a run at its rate.

Times are float milliseconds since the origin of the run. Behaviour is random, so an interval has a few events more or
fewer than the rate requires; the clock stretches or compresses it a little to compensate.
"""

import math

import numpy as np
import numpy.typing as npt

from sessionize.session.time import MS_PER_DAY

Floats = npt.NDArray[np.float64]

# Share of the mean, times per day, hour of the peak (UTC): a quiet night, a busy afternoon, a second peak in
# the evening.
_WAVES = ((0.55, 1, 15.0), (0.15, 2, 20.5))
# A silence of 40 minutes stays longer than 30 after compression, one of 20 minutes stays shorter after
# stretching.
SQUEEZE, STRETCH = 0.8, 1.25
# With a given rate from here on, events come evenly; below it they come at random, as people do.
EVEN_PER_S = 10.0


class DiurnalCycle:
    """The activity of the users at each time of day; 1.0 is the mean over a day. Flat if daily is False."""

    def __init__(self, *, origin_ms: int, daily: bool) -> None:
        self._phase_ms = origin_ms % MS_PER_DAY
        self._daily = daily
        self._grid_ms: Floats = np.linspace(0.0, MS_PER_DAY, 1441)
        self._grid_busy = self._from_midnight(self._grid_ms)
        self._busy_at_origin = self._from_midnight(np.array([float(self._phase_ms)]))[0]

    def at(self, time_ms: float) -> float:
        """The rate at this time, as a multiple of the mean."""
        if not self._daily:
            return 1.0
        days = (time_ms + self._phase_ms) / MS_PER_DAY
        return 1.0 + sum(a * math.cos(2 * math.pi * n * (days - hour / 24)) for a, n, hour in _WAVES)

    def busy_ms(self, time_ms: Floats) -> Floats:
        """Busy time since the origin, the integral of the rate: float64[n] in, float64[n] out."""
        return np.asarray(self._from_midnight(time_ms + self._phase_ms) - self._busy_at_origin)

    def time_ms(self, busy_ms: Floats) -> Floats:
        """The inverse of busy_ms: float64[n] in, float64[n] out."""
        since_midnight = busy_ms + self._busy_at_origin - self._grid_busy[0]
        # Every day adds the same amount, so one day's table is enough.
        day = np.floor(since_midnight / MS_PER_DAY)
        within = np.interp(since_midnight - day * MS_PER_DAY, self._grid_busy - self._grid_busy[0], self._grid_ms)
        return np.asarray(day * MS_PER_DAY + within - self._phase_ms, dtype=np.float64)

    def _from_midnight(self, time_ms: Floats) -> Floats:
        busy_ms = time_ms.copy()
        for share, per_day, hour in _WAVES if self._daily else ():
            turns = 2 * math.pi * per_day * (time_ms / MS_PER_DAY - hour / 24)
            busy_ms += MS_PER_DAY * share / (2 * math.pi * per_day) * np.sin(turns)
        return busy_ms


class Clock:
    """Converts behaviour time to event time, interval by interval, so that events come at the rate.

    rate_per_ms: the mean over the run, per busy millisecond. An interval changes to at least 0.8 and at most 1.25 of
    its length, so pauses stay pauses; sparse events keep their natural spacing. even: the events of an interval come
    at equal distances, in the order of the behaviour.
    """

    def __init__(self, rhythm: DiurnalCycle, *, rate_per_ms: float, even: bool = False) -> None:
        self._even = even
        self._rhythm = rhythm
        self._rate_per_ms = rate_per_ms
        self._events = 0
        self._behaviour_ms = 0.0
        self.now_ms = 0.0

    @property
    def ahead_ms(self) -> float:
        """How far event time has moved ahead of behaviour time."""
        return self.now_ms - self._behaviour_ms

    @property
    def behind_ms(self) -> float:
        """The time that the missing events would take at the current rate; negative if there were too many."""
        wanted = self._rate_per_ms * float(self._rhythm.busy_ms(np.array([self.now_ms]))[0])
        return (wanted - self._events) / (self._rate_per_ms * self._rhythm.at(self.now_ms))

    def advance(self, times_ms: Floats, *, end_ms: float) -> Floats:
        """Event times (float64[n]) of the events in the next interval of behaviour, which ends at end_ms.

        times_ms: behaviour times, ascending, from the end of the last interval up to end_ms. Advances now_ms.
        """
        length_ms = end_ms - self._behaviour_ms
        rate_now = self._rate_per_ms * self._rhythm.at(self.now_ms)
        needed_ms = len(times_ms) / rate_now - self.behind_ms
        scale = min(max(needed_ms / length_ms, SQUEEZE), STRETCH)
        event_ms = self.now_ms + (times_ms - self._behaviour_ms) * scale
        if self._even:
            event_ms = self.now_ms + np.arange(len(times_ms), dtype=np.float64) * (
                length_ms * scale / max(len(times_ms), 1)
            )
        self._events += len(times_ms)
        self._behaviour_ms = end_ms
        self.now_ms += length_ms * scale
        return np.asarray(event_ms, dtype=np.float64)
