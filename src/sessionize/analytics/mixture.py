"""Whether silences come in two kinds, within a visit and between visits, and where the border is.

Two independent looks at the same histogram over the logarithm of the silence. A **mixture** of two log-normal
distributions is fitted by expectation-maximisation; its border is where both are equally likely (Halfaker et al., "User
Session Identification Based on Strong Regularities in Inter-activity Time", 2015). The **valley** is the least dense
place between two peaks of the smoothed histogram, and needs no model. Any data can be fitted by two distributions, also
data that have one kind of silence; so a gap is only supported where there is a valley as well.
"""

from dataclasses import dataclass
from math import erf, log, pi, sqrt

import numpy as np
import numpy.typing as npt

from sessionize.analytics.silences import edges_ms

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

# Shorter silences are what programs do, not people (several requests for one page); longer ones are days apart, where
# the hours of sleep make valleys of their own.
SHORTEST_MS, LONGEST_MS = 1_000, 60 * 86_400_000
_VALLEY_FROM_MS, _VALLEY_TO_MS = 10_000, 43_200_000
_STARTS_MS = (30_000, 300_000, 1_800_000, 7_200_000, 28_800_000)
_ITERATIONS = 200
_SD_MIN = 0.1
_STEP = 0.05  # of the smoothed histogram, in doublings
_SMOOTH = 0.3  # the standard deviation of the smoothing, in doublings


@dataclass(frozen=True, slots=True)
class LogNormal:
    """One kind of silence: its share, and mean and standard deviation of the natural logarithm of the milliseconds."""

    share: float
    mean: float
    sd: float

    def density(self, x: Floats) -> Floats:
        """Its part of the density at these logarithms."""
        z = (x - self.mean) / self.sd
        made: Floats = self.share / (self.sd * sqrt(2 * pi)) * np.exp(-z * z / 2)
        return made

    def above(self, x: float) -> float:
        """The share of all silences that are of this kind and longer."""
        return self.share * (1 - erf((x - self.mean) / (self.sd * sqrt(2)))) / 2

    @property
    def median_ms(self) -> float:
        """The silence in its middle."""
        return float(np.exp(self.mean))


@dataclass(frozen=True, slots=True)
class Mixture:
    """Two kinds of silence. border_ms: where both are equally likely. wrong: the share on the wrong side of it."""

    within: LogNormal
    between: LogNormal
    border_ms: float
    wrong: float


@dataclass(frozen=True, slots=True)
class Valley:
    """The least dense place between two peaks. depth: 1 - density there / that of the lower peak.

    certainty: the difference to the lower peak, in standard deviations of the counts.
    """

    at_ms: float
    depth: float
    certainty: float


def considered(bins: Counts) -> tuple[Floats, Counts]:
    """The bins that people's silences are in: the logarithms of their middles, and their counts."""
    edges = edges_ms()
    low, high = edges[:-1], edges[1:]
    there = (bins > 0) & (low >= SHORTEST_MS) & (low < LONGEST_MS)
    return np.log((low[there] + high[there]) / 2), bins[there]


def fit(bins: Counts) -> Mixture | None:
    """The likeliest mixture; None where there is nothing to fit or no border between the two means."""
    x, count = considered(bins)
    if len(x) < 2:
        return None
    best: tuple[float, LogNormal, LogNormal] | None = None
    for start in _STARTS_MS:
        found = _climb(x, count.astype(float), log(start))
        if found is not None and (best is None or found[0] > best[0]):
            best = found
    if best is None:
        return None
    _, within, between = best
    grid = np.linspace(within.mean, between.mean, 2_000)
    sooner = np.flatnonzero(between.density(grid) >= within.density(grid))
    if not len(sooner) or not sooner[0]:
        return None
    border = float(grid[sooner[0]])
    wrong = within.above(border) + between.share - between.above(border)
    return Mixture(within, between, float(np.exp(border)), wrong)


def _climb(x: Floats, count: Floats, start: float) -> tuple[float, LogNormal, LogNormal] | None:
    """Expectation-maximisation from the two sides of a silence: the likelihood, and both kinds in order."""
    first = (x < start).astype(float)
    total = count.sum()
    if not 0 < first @ count < total:
        return None
    parts: list[LogNormal] = []
    likelihood = -np.inf
    for _ in range(_ITERATIONS):
        parts = []
        for belongs in (first, 1 - first):
            weight = belongs * count
            mass = weight.sum()
            if mass <= 0:
                return None
            mean = float(weight @ x / mass)
            sd = max(_SD_MIN, sqrt(float(weight @ (x - mean) ** 2 / mass)))
            parts.append(LogNormal(float(mass / total), mean, sd))
        one, both = parts[0].density(x), parts[0].density(x) + parts[1].density(x)
        both = np.maximum(both, 1e-300)
        before, likelihood = likelihood, float(count @ np.log(both))
        if likelihood - before < 1e-7 * total:
            break
        first = one / both
    within, between = sorted(parts, key=lambda each: each.mean)
    return likelihood, within, between


def smoothed(bins: Counts) -> tuple[Floats, Floats]:
    """The histogram over even steps of the logarithm: log2 of the silence, silences per doubling."""
    edges = edges_ms()
    log2 = np.log2(edges)
    low, high = np.log2(SHORTEST_MS), np.log2(LONGEST_MS)
    grid = np.arange(low, high + _STEP, _STEP)
    total = np.append(0, np.cumsum(bins)).astype(float)
    per_step = np.diff(np.interp(grid, log2, total))
    reach = round(4 * _SMOOTH / _STEP)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * _STEP / _SMOOTH) ** 2)
    weight = np.convolve(np.ones(len(per_step)), kernel, mode="same")  # less than all at both ends
    return (grid[:-1] + grid[1:]) / 2, np.convolve(per_step, kernel, mode="same") / weight / _STEP


def valley(bins: Counts) -> Valley | None:
    """The deepest valley; None where the histogram has none."""
    x, density = smoothed(bins)
    left = np.maximum.accumulate(density)
    right = np.maximum.accumulate(density[::-1])[::-1]
    peak = np.minimum(left, right)
    there = (x >= np.log2(_VALLEY_FROM_MS)) & (x <= np.log2(_VALLEY_TO_MS)) & (peak > density)
    if not there.any():
        return None
    depth = np.where(there, 1 - density / np.where(peak > 0, peak, 1), -1)
    deepest = depth.max()
    flat = np.flatnonzero(depth >= deepest - 1e-3)  # an empty stretch is as deep everywhere: its middle
    at = int(flat[len(flat) // 2])
    width = _SMOOTH * sqrt(2 * pi)  # as many doublings as one smoothed value looks at
    here, there_count = float(density[at]) * width, float(peak[at]) * width
    certainty = (there_count - here) / sqrt(max(there_count + here, 1e-9))
    return Valley(float(2.0 ** x[at]), float(depth[at]), certainty)
