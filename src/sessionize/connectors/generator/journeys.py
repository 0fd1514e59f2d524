"""Walks through a profile's table, drawn once and then reused.

A walk is sequential, from activity to activity, so it cannot be vectorised. A few thousand walks are therefore drawn
in advance; a visit is one of them (or several in a row), with its own times, user and products.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sessionize.connectors.generator.profiles import Profile

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int8]

JOURNEY_COUNT = 8_192
_STEPS_MAX = 200
# The spread of the logarithm of a think time: a third of the steps take longer than 1.7 medians, one in fifty
# 12.
THINK_SIGMA = 1.2
THINK_S_MAX = 1_200.0


@dataclass(frozen=True, slots=True)
class Journeys:
    """JOURNEY_COUNT walks, one after the other.

    activity int8[n]: the activity of each step. look int16[n]: the number of the product within the walk,
    from 0. first int64[count]: where each walk begins. length int64[count]: its steps. steps_mean: steps of a
    walk. think_ms_mean: mean time from a step to the next.
    """

    activity: Codes
    look: npt.NDArray[np.int16]
    first: Ints
    length: Ints
    steps_mean: float
    think_ms_mean: float

    @classmethod
    def drawn(cls, profile: Profile, rng: np.random.Generator) -> "Journeys":
        """Draw JOURNEY_COUNT walks from a profile's start until leaving."""
        walk, activity = _walks(profile, rng)
        length = np.bincount(walk, minlength=JOURNEY_COUNT).astype(np.int64)
        first = np.cumsum(length) - length
        turns = np.isin(activity, [profile.code(name) for name in profile.looks])
        looks = np.cumsum(turns)
        look = np.maximum(looks - (looks - turns)[first[walk]] - 1, 0).astype(np.int16)
        think_ms = [1_000.0 * _capped_mean_s(a.think_s) for a in profile.activities]
        return cls(
            activity=activity,
            look=look,
            first=first,
            length=length,
            steps_mean=float(length.mean()),
            think_ms_mean=float(np.array(think_ms)[activity].mean()),
        )


def _walks(profile: Profile, rng: np.random.Generator) -> tuple[Ints, Codes]:
    """All steps of all walks, in the order of the walks: walk int64[n], activity int8[n]."""
    chances = np.cumsum(np.array([profile.start, *profile.moves]), axis=1)
    walking = np.arange(JOURNEY_COUNT)
    row = np.zeros(JOURNEY_COUNT, dtype=np.int64)
    walks, activities = [], []
    for step in range(_STEPS_MAX):
        draw = rng.random(len(walking))
        if step == 0:
            draw *= chances[0, -1]  # no user leaves before the first step
        activity = (draw[:, None] >= chances[row]).sum(axis=1)
        stays = activity < len(profile.activities)
        walking, activity = walking[stays], activity[stays]
        if not len(walking):
            break
        walks.append(walking)
        activities.append(activity.astype(np.int8))
        row = activity + 1
    walk = np.concatenate(walks)
    order = np.argsort(walk, kind="stable")
    return walk[order], np.concatenate(activities)[order]


def _capped_mean_s(median_s: float) -> float:
    """Mean of a log-normal think time capped at THINK_S_MAX."""

    def below(z: float) -> float:
        return 0.5 * (1.0 + math.erf(z / math.sqrt(2.0)))

    cut = math.log(THINK_S_MAX / median_s) / THINK_SIGMA
    mean = median_s * math.exp(THINK_SIGMA**2 / 2)
    return mean * below(cut - THINK_SIGMA) + THINK_S_MAX * (1.0 - below(cut))
