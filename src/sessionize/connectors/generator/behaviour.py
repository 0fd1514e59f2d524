"""A population of users who visit and pause: each user is a few numbers, the population one column for each.

`UserPopulation.until` advances all users to a point in time and returns their steps, ordered by time. A visit is one
or several walks of journeys.py; the rest of a walk waits for the next call, so memory holds the users and the
unfinished walks. Times are behaviour time, in ms since the origin (diurnal_cycle.py).
"""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from sessionize.connectors.generator.activity import LONG_VISIT_MS, LONG_VISIT_SHARE, PAUSE_MS_MIN, Demand
from sessionize.connectors.generator.catalogue import FLASH_COUNT, popularity
from sessionize.connectors.generator.diurnal_cycle import DiurnalCycle, Floats
from sessionize.connectors.generator.journeys import THINK_S_MAX, THINK_SIGMA, Codes, Ints, Journeys
from sessionize.connectors.generator.profiles import Profile

Small = npt.NDArray[np.int32]
Hashes = npt.NDArray[np.uint64]


def mixed(number: Ints | Hashes, salt: np.uint64) -> Hashes:
    """A pseudo-random uint64 for every number, without collisions: the finaliser of splitmix64."""
    z = (number.astype(np.uint64) + salt) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)


@dataclass(frozen=True, slots=True)
class Steps:
    """Steps of users, one row for each event.

    time_ms float64. user int32: number of the user, from 0. visit int32: number of the visit of this user,
    from 0. activity int8, product int8: codes of profiles.py and catalogue.py. number int64: of the event in
    the run, unique.
    """

    time_ms: Floats
    user: Small
    visit: Small
    activity: Codes
    product: Codes
    number: Ints

    def __len__(self) -> int:
        return len(self.number)

    def take(self, which: npt.NDArray[np.bool_] | Ints | slice) -> "Steps":
        """The rows of an index, mask or slice."""
        return Steps(*(getattr(self, f.name)[which] for f in fields(self)))

    @classmethod
    def joined(cls, parts: "list[Steps]") -> "Steps":
        """All rows of all parts, at least one part."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))


_HASTE = (0.2, 5.0)
_CATCH_UP_MS = 1_200_000.0
_NO_STEPS = Steps(*(np.zeros(0, dtype=t) for t in ("f8", "i4", "i4", "i1", "i1", "i8")))


class UserPopulation:
    """The users of a run. All randomness comes from rng, in an order that only the calls of until decide."""

    def __init__(
        self,
        profile: Profile,
        journeys: Journeys,
        demand: Demand,
        rhythm: DiurnalCycle,
        *,
        rng: np.random.Generator,
        salt: np.uint64,
    ) -> None:
        self._profile = profile
        self._journeys = journeys
        self._demand = demand
        self._rhythm = rhythm
        self._rng = rng
        self._salt = salt
        self._popularity = popularity()
        self._think_log_ms = np.log([1_000.0 * a.think_s for a in profile.activities])
        users = len(demand.think_scale)
        self._visit = np.zeros(users, dtype=np.int32)
        self._arriving = np.ones(users, dtype=np.bool_)  # the next walk starts a visit
        self._walks_left = self._visit_lengths(np.arange(users))
        self._next_ms = self._first_steps_ms()
        self._steps = 0
        self._walks = 0
        self._waiting = [_NO_STEPS]

    def until(self, end_ms: float, *, ahead_ms: float, behind_ms: float) -> Steps:
        """All steps before end_ms since the last call, ordered by time, then number.

        ahead_ms: how far the time of day is ahead of behaviour time. behind_ms: the time that the missing events
        would take.
        """
        parts = self._waiting
        due = np.flatnonzero(self._next_ms < end_ms)
        haste = self._haste(end_ms, self._rhythm.at(end_ms + ahead_ms), behind_ms)
        while len(due):
            parts.append(self._walk(due, end_ms, ahead_ms, haste))
            due = due[self._next_ms[due] < end_ms]
        steps = Steps.joined(parts)
        self._waiting = [steps.take(steps.time_ms >= end_ms)]
        steps = steps.take((steps.time_ms >= 0.0) & (steps.time_ms < end_ms))
        return steps.take(np.lexsort((steps.number, steps.time_ms)))

    def _first_steps_ms(self) -> Floats:
        """The time of each user's first step, as if the population had always been active.

        The golden ratio spreads the users evenly over their cycle, so even a small population starts at its rate.
        """
        demand = self._demand
        phase = (self._rng.random() + np.arange(len(self._visit)) * 0.6180339887498949) % 1.0
        rest_ms = self._rng.standard_exponential(len(phase)) * (demand.pause_ms_mean - PAUSE_MS_MIN)
        # Part of the pause has a fixed length; its rest is anything from nothing to all of it.
        fixed = self._rng.random(len(phase)) < PAUSE_MS_MIN / demand.pause_ms_mean
        draw = self._rng.random(len(phase))
        pausing_ms = self._rhythm.time_ms(self._rhythm.busy_ms(fixed * draw * PAUSE_MS_MIN) + rest_ms)
        # A visiting user is in the middle of a walk, which began before the origin.
        visiting = phase < demand.busy_share * self._rhythm.at(0.0)
        return np.asarray(np.where(visiting, -draw * demand.journey_ms, pausing_ms), dtype=np.float64)

    def _visit_lengths(self, who: Ints) -> Floats:
        """The number of walks in each user's next visit, at the usual pace: float64[n], whole numbers."""
        walks = self._rng.geometric(1.0 / self._demand.journeys_mean[who])
        long_ms = self._rng.uniform(*LONG_VISIT_MS, size=len(who))
        is_long = (self._rng.random(len(who)) < LONG_VISIT_SHARE) & ~self._demand.eager[who]
        long_walks = np.ceil(long_ms / self._demand.journey_ms[who])
        return np.where(is_long, long_walks, walks).astype(np.float64)

    def _haste(self, end_ms: float, rhythm: float, behind_ms: float) -> float:
        """Factor on the think times of eager users: visiting users compensate for pausing ones.

        rhythm: the activity at the time of day. behind_ms: the time of missing events, caught up within
        _CATCH_UP_MS.
        """
        wanted = self._demand.eager_rate_per_ms * rhythm * (1.0 + max(behind_ms, 0.0) / _CATCH_UP_MS)
        if wanted == 0.0:
            return 1.0
        visiting = ~self._arriving | (self._next_ms < end_ms)
        return float(np.clip(self._demand.eager_speed[visiting].sum() / wanted, *_HASTE))

    def _walk(self, who: Ints, end_ms: float, ahead_ms: float, haste: float) -> Steps:
        """Advance users by about as many walks as reach end_ms, but not beyond their visit."""
        demand, journeys = self._demand, self._journeys
        # A visit keeps its length: a user with half the think time takes twice as many walks.
        pace = np.where(demand.eager, haste, 1.0)[who]
        reach = 1 + ((end_ms - self._next_ms[who]) / (demand.journey_ms[who] * pace)).astype(np.int64)
        walks = np.minimum(reach, np.ceil(self._walks_left[who] / pace).astype(np.int64))
        self._walks_left[who] -= walks * pace
        leaves = self._walks_left[who] <= 0.0

        row = np.repeat(np.arange(len(who)), walks)  # of each walk
        last_walk = np.cumsum(walks) - 1
        first_walk = last_walk - walks + 1
        journey = self._rng.integers(0, len(journeys.first), len(row))
        before = np.zeros(len(row), dtype=np.int64)  # an opening activity comes before the walk's own
        after = np.zeros(len(row), dtype=np.int64)
        if self._profile.opening is not None:
            before[first_walk] = self._arriving[who]
        if self._profile.closing is not None:
            after[last_walk] = leaves & (self._rng.random(len(who)) < self._profile.closing_share)

        steps = before + journeys.length[journey] + after
        walk = np.repeat(np.arange(len(row)), steps)  # of each step
        walk_start = np.cumsum(steps) - steps
        position = np.arange(len(walk)) - walk_start[walk] - before[walk]
        activity, product = self._activities(journey[walk], position, self._walks + walk)
        user_row = row[walk]
        user = who[user_row]

        think_ms = np.exp(self._rng.standard_normal(len(walk)) * THINK_SIGMA + self._think_log_ms[activity])
        scale = (demand.think_scale[who] * pace)[user_row]
        think_ms = np.minimum(think_ms * scale, 1_000.0 * THINK_S_MAX)
        passed_ms = np.cumsum(think_ms)
        user_start = walk_start[first_walk]
        passed_before = passed_ms[user_start] - think_ms[user_start]
        time_ms = self._next_ms[user] + (passed_ms - think_ms) - passed_before[user_row]
        made = Steps(
            time_ms=time_ms,
            user=user.astype(np.int32),
            visit=self._visit[user],
            activity=activity,
            product=product,
            number=self._steps + np.arange(len(walk)),
        )
        self._steps += len(walk)
        self._walks += len(row)
        user_end = np.append(user_start[1:], len(walk)) - 1
        self._next_ms[who] += passed_ms[user_end] - passed_before
        self._arriving[who] = leaves
        self._pause(who[leaves], ahead_ms)
        return made

    def _activities(self, journey: Ints, position: Ints, walk: Ints) -> tuple[Codes, Codes]:
        """The activity and the product of each step: int8[n], int8[n].

        position: of the step in its walk; -1 is the opening, one past the last the closing.
        """
        length = self._journeys.length[journey]
        step = self._journeys.first[journey] + np.clip(position, 0, length - 1)
        activity = self._journeys.activity[step]
        if self._profile.opening is not None:
            activity[position < 0] = self._profile.code(self._profile.opening)
        if self._profile.closing is not None:
            activity[position >= length] = self._profile.code(self._profile.closing)
        # All steps of one look in a walk must have the same product.
        look = walk * 256 + self._journeys.look[step]
        draw = (mixed(look, ~self._salt) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        product = np.searchsorted(self._popularity, draw, side="right").astype(np.int8)
        if self._profile.hesitation is not None:
            wanted, done = (self._profile.code(name) for name in self._profile.hesitation)
            changes_mind = mixed(look, self._salt) % np.uint64(50) > 0
            activity[(activity == wanted) & (product < FLASH_COUNT) & changes_mind] = done
        return activity, product

    def _pause(self, who: Ints, ahead_ms: float) -> None:
        """Let users whose visit is over return after a pause; the time of day decides how soon."""
        self._visit[who] += 1
        self._walks_left[who] = self._visit_lengths(who)
        rest_ms = self._rng.standard_exponential(len(who)) * (self._demand.pause_ms_mean[who] - PAUSE_MS_MIN)
        ready_ms = self._next_ms[who] + PAUSE_MS_MIN + ahead_ms
        self._next_ms[who] = self._rhythm.time_ms(self._rhythm.busy_ms(ready_ms) + rest_ms) - ahead_ms
