"""How active each user is, so that all users together give the requested rate.

A user visits, pauses, and visits again. Usually the pauses adapt: the more events a user must give, the sooner the
next visit. If even the shortest pauses are too long (ten users and five events a second), visits become longer and
think times shorter, and the user is active half of the time.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sessionize.connectors.generator.diurnal_cycle import Floats
from sessionize.connectors.generator.journeys import Journeys
from sessionize.connectors.generator.profiles import Profile

PAUSE_MS_MIN = 2_400_000.0  # longer than the usual gap of 30 minutes, also after squeezing
_PAUSE_MS_MEAN_MIN = 3_600_000.0
# One visit in a thousand lasts for hours; otherwise hardly any would reach the maximum duration of a session.
# The visits of eager users are long enough.
LONG_VISIT_SHARE = 0.001
LONG_VISIT_MS = (7_800_000.0, 16_200_000.0)


@dataclass(frozen=True, slots=True)
class Demand:
    """The activity of each user, float64[users] each.

    think_scale: factor on think times, at most 1. journeys_mean: walks in a visit. journey_ms: mean length of
    a walk. pause_ms_mean: mean time between visits. busy_share: the share of time spent in visits. eager
    bool[users]: whether think times adapt. eager_speed: events per ms of an eager user during a visit, 0 for the
    others. eager_rate_per_ms: the rate of all eager users together, pauses included.
    """

    think_scale: Floats
    journeys_mean: Floats
    journey_ms: Floats
    pause_ms_mean: Floats
    busy_share: Floats
    eager: npt.NDArray[np.bool_]
    eager_speed: Floats
    eager_rate_per_ms: float

    @classmethod
    def of(cls, profile: Profile, journeys: Journeys, *, users: int, skew: float, rate_per_ms: float) -> "Demand":
        """Solve rate = events of a visit / (time of a visit + pause) for every user.

        With k events a visit, m ms between events and pauses of p ms, a user gives k / (k * m + p) events a
        ms. rate_per_ms: events of all users together, at the mean of the diurnal cycle.
        """
        weight = np.arange(1, users + 1, dtype=np.float64) ** -skew
        wanted = weight / weight.sum() * rate_per_ms
        m = journeys.think_ms_mean
        journey_ms = journeys.steps_mean * m
        extra = (1.0 if profile.opening else 0.0) + (profile.closing_share if profile.closing else 0.0)

        long_journeys = sum(LONG_VISIT_MS) / 2 / journey_ms
        natural = 1.0 + LONG_VISIT_SHARE * (long_journeys - 1.0)
        k = natural * journeys.steps_mean + extra
        pause_ms = k / wanted - k * m
        eager = pause_ms < _PAUSE_MS_MEAN_MIN
        # An eager user: think times that fill at most half of the time, then visits as long as needed.
        think_ms = np.where(eager, np.minimum(m, 0.5 / wanted), m)
        k_eager = _PAUSE_MS_MEAN_MIN / np.where(eager, 1.0 / wanted - think_ms, 1.0)
        events = np.where(eager, k_eager, k)
        pause_ms = np.where(eager, _PAUSE_MS_MEAN_MIN, pause_ms)
        return cls(
            think_scale=think_ms / m,
            journeys_mean=np.where(eager, np.maximum((events - extra) / journeys.steps_mean, 1.0), 1.0),
            journey_ms=journey_ms * think_ms / m,
            pause_ms_mean=pause_ms,
            busy_share=events * think_ms / (events * think_ms + pause_ms),
            eager=eager,
            eager_speed=eager / think_ms,
            eager_rate_per_ms=float(wanted[eager].sum()),
        )
