"""Which gap fits the data: candidates with the reasons for them, what each makes of the sessions, and how much depends
on it. Where the data support no gap, that is the answer.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import log, sqrt
from typing import Any, Literal

from sessionize.analytics.mixture import Mixture, Valley, considered, fit, valley
from sessionize.analytics.silences import SilenceCounts
from sessionize.session.durations import format_duration

# Gaps that people would write into a rule. Each is counted exactly; an estimate is rounded to the nearest of them.
LADDER_MS: tuple[int, ...] = (
    *(1_000 * seconds for seconds in (10, 30)),
    *(60_000 * minutes for minutes in (1, 2, 3, 5, 10, 15, 20, 25, 30, 45, 60, 90)),
    *(3_600_000 * hours for hours in (2, 3, 4, 6, 8, 12, 24)),
)
CONVENTION_MS = 1_800_000
# The rows of the histogram: doublings, so that the convention is a border.
BORDERS_MS: tuple[int, ...] = tuple(round(CONVENTION_MS * 2.0**step) for step in range(-11, 12))

Support = Literal["clear", "weak", "none"]
_SILENCES_MIN = 200
_DEPTH_WEAK, _DEPTH_CLEAR = 0.2, 0.5
_CERTAIN = 4.0  # standard deviations; below, a valley may be chance
_WRONG_CLEAR = 0.1
_SIDE_MIN = 0.01  # of the silences, on each side of a valley
_AGREE = 0.02  # the two methods agree when their gaps make numbers of sessions that differ by no more than this share


@dataclass(frozen=True, slots=True, kw_only=True)
class GapFigures:
    """What one gap makes of the sessions. near: silences within ±10 % of it, each of which is a boundary or not by a
    little. why: the reasons to consider it.
    """

    gap_ms: int
    sessions: int
    without_duration: int
    mean_ms: float
    median_ms: float
    p90_ms: float
    longest_ms: int
    near: int
    near_share_of_silences: float
    near_share_of_sessions: float
    why: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As JSON-compatible values."""
        fields = {name: getattr(self, name) for name in GapFigures.__slots__}
        return {"gap": format_duration(self.gap_ms), **fields, "why": list(self.why)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """The answer. support: whether the data support a gap. gap_ms: the one they do, None for none. reasons: in words.

    gaps: the figures of every gap that was counted, the candidates among them with their reasons. notes: what limits
    the answer.
    """

    counts: SilenceCounts
    mixture: Mixture | None
    valley: Valley | None
    support: Support
    gap_ms: int | None
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    gaps: tuple[GapFigures, ...]

    @property
    def candidates(self) -> tuple[GapFigures, ...]:
        """The gaps that there is a reason to consider."""
        return tuple(each for each in self.gaps if each.why)

    def rows(self) -> list[tuple[int, int, int]]:
        """The histogram in doublings: (silences longer than, and up to, how many), without empty ends."""
        counts = self.counts
        above = [counts.silences - counts.simultaneous, *(counts.above_ms(border) for border in BORDERS_MS), 0]
        first, last = counts.first_ms or 0, counts.last_ms or 0
        ends = (*BORDERS_MS, max(BORDERS_MS[-1], last - first))
        found = [(low, high, above[at] - above[at + 1]) for at, (low, high) in enumerate(pairwise((0, *ends)))]
        filled = [at for at, (_, _, count) in enumerate(found) if count]
        return found[filled[0] : filled[-1] + 1] if filled else []

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON-compatible values."""
        counts, mixture, found = self.counts, self.mixture, self.valley
        return {
            "events": counts.events,
            "users": counts.users,
            "silences": counts.silences,
            "simultaneous": counts.simultaneous,
            "first_ms": counts.first_ms,
            "last_ms": counts.last_ms,
            "support": self.support,
            "gap_ms": self.gap_ms,
            "gap": None if self.gap_ms is None else format_duration(self.gap_ms),
            "reasons": list(self.reasons),
            "notes": list(self.notes),
            "mixture": None
            if mixture is None
            else {
                "border_ms": mixture.border_ms,
                "wrong_side_share": mixture.wrong,
                **{
                    name: {"share": kind.share, "median_ms": kind.median_ms, "sd_of_log": kind.sd}
                    for name, kind in (("within_visits", mixture.within), ("between_visits", mixture.between))
                },
            },
            "valley": None
            if found is None
            else {"at_ms": found.at_ms, "depth": found.depth, "standard_deviations": found.certainty},
            "candidates": [each.as_dict() for each in self.candidates],
            "gaps": [each.as_dict() for each in self.gaps],
            "histogram": [{"longer_than_ms": a, "up_to_ms": b, "silences": n} for a, b, n in self.rows()],
        }


def counts_to_fill(asked_ms: tuple[int, ...] = ()) -> SilenceCounts:
    """Empty counts of everything that an answer needs. asked_ms: gaps to look at beside the ladder's."""
    return SilenceCounts.of((*LADDER_MS, *asked_ms), BORDERS_MS)


def tuning(counts: SilenceCounts, asked_ms: tuple[int, ...] = ()) -> Tuning:
    """The answer by these counts. asked_ms: gaps that are to be among the candidates."""
    mixture, found = fit(counts.bins), valley(counts.bins)
    looked_at = int(considered(counts.bins)[1].sum())
    support, reasons = _support(counts, mixture, found)
    why: dict[int, list[str]] = {}
    if support != "none":
        assert found is not None
        if mixture is not None:
            exact = f"the border between the two kinds of silence: {about(mixture.border_ms)}"
            why.setdefault(_nearest(mixture.border_ms), []).append(exact)
        why.setdefault(_nearest(found.at_ms), []).append(f"the valley of the histogram: {about(found.at_ms)}")
    gap_ms = None if support == "none" or found is None else _supported(counts, mixture, found)
    if gap_ms is not None and gap_ms not in why:
        why[gap_ms] = ["the middle of both"]
    why.setdefault(CONVENTION_MS, []).append("the convention of web analytics")
    for gap in asked_ms:
        why.setdefault(gap, []).append("asked for")
    figures = tuple(_figures(counts, gap, tuple(why.get(gap, ()))) for gap in counts.gaps_ms)
    return Tuning(
        counts=counts,
        mixture=mixture,
        valley=found,
        support=support,
        gap_ms=gap_ms,
        reasons=tuple(reasons),
        notes=tuple(_notes(counts, gap_ms, looked_at)),
        gaps=figures,
    )


def about(ms: float) -> str:
    """A duration for people, to three digits or so: 1m47s, 2h5m, 3d4h."""
    for unit, finest in ((86_400_000, 3_600_000), (3_600_000, 60_000), (60_000, 1_000), (10_000, 1_000)):
        if ms >= unit:
            return format_duration(round(ms / finest) * finest)
    return f"{ms / 1_000:.1f}s".replace(".0s", "s") if ms >= 1_000 else format_duration(round(ms))


def percent(share: float) -> str:
    """A share for people."""
    if 0 < share < 0.0001:
        return "< 0.01 %"
    return f"{100 * share:.2f} %" if 0 < share < 0.01 else f"{100 * share:.1f} %"


def _agree(counts: SilenceCounts, mixture: Mixture, found: Valley) -> bool:
    """Whether it makes no difference which of both is right, however far apart they are."""
    one, other = (counts.by_gap[_nearest(ms)].sessions for ms in (mixture.border_ms, found.at_ms))
    return abs(one - other) <= _AGREE * max(one, other)


def _supported(counts: SilenceCounts, mixture: Mixture | None, found: Valley) -> int:
    """The gap: the middle of both places where they agree, else the valley, which needs no model."""
    if mixture is None or not _agree(counts, mixture, found):
        return _nearest(found.at_ms)
    return _nearest(sqrt(mixture.border_ms * found.at_ms))


def _nearest(ms: float) -> int:
    return min(LADDER_MS, key=lambda gap: abs(log(gap / ms)))


def _support(counts: SilenceCounts, mixture: Mixture | None, found: Valley | None) -> tuple[Support, list[str]]:
    looked_at = int(considered(counts.bins)[1].sum())
    if looked_at < _SILENCES_MIN:
        return "none", [
            f"{looked_at:,} silences of a second or more are too few to tell; at least {_SILENCES_MIN:,} are needed"
        ]
    against = _against(counts, found)
    if found is None or against:
        return "none", [against, "so these data favour no gap; choose by convention or by what a visit means to you"]
    reasons = [
        f"the histogram has a valley at {about(found.at_ms)}: {percent(found.depth)} lower than the lower of both peaks"
    ]
    if mixture is None:
        return "weak", [*reasons, "two log-normal distributions do not fit, so there is one reason only"]
    within, between = mixture.within, mixture.between
    reasons.append(
        f"two log-normal distributions fit: {percent(within.share)} of the silences around {about(within.median_ms)}, "
        f"within a visit, and {percent(between.share)} around {about(between.median_ms)}, between visits; their border "
        f"is {about(mixture.border_ms)}, with {percent(mixture.wrong)} of the silences on the wrong side"
    )
    if not _agree(counts, mixture, found):
        differ = f"their numbers of sessions differ by more than {percent(_AGREE)}"
        return "weak", [*reasons, f"{differ}; the valley counts, as it needs no model"]
    if found.depth < _DEPTH_CLEAR:
        return "weak", [*reasons, f"the valley is shallow: {percent(_DEPTH_CLEAR)} would be clear"]
    if mixture.wrong > _WRONG_CLEAR:
        return "weak", [*reasons, "the two kinds of silence overlap much"]
    return "clear", reasons


def _against(counts: SilenceCounts, found: Valley | None) -> str:
    """Why the valley is none to go by; empty where it is."""
    if found is None or found.depth < _DEPTH_WEAK:
        return (
            "the silences form one hump: between 10s and 12h there is no valley that would separate pauses within a "
            "visit from those between visits"
        )
    if found.certainty < _CERTAIN:
        return (
            f"the valley at {about(found.at_ms)} may be chance: it is {found.certainty:.1f} standard deviations deep, "
            f"of the {_CERTAIN:.0f} that are asked for"
        )
    x, count = considered(counts.bins)
    longer = float(count[x > log(found.at_ms)].sum() / count.sum())
    if min(longer, 1 - longer) < _SIDE_MIN:
        few = "longer" if longer < 0.5 else "shorter"
        return (
            f"only {percent(min(longer, 1 - longer))} of the silences are {few} than the valley at "
            f"{about(found.at_ms)}, too few to be a kind of their own ({percent(_SIDE_MIN)} is asked for)"
        )
    return ""


def _notes(counts: SilenceCounts, gap_ms: int | None, looked_at: int) -> list[str]:
    notes = []
    span = 0 if counts.first_ms is None or counts.last_ms is None else counts.last_ms - counts.first_ms
    if span < 4 * (gap_ms or CONVENTION_MS):
        notes.append(
            f"the events span {about(span)}: longer silences cannot be seen, so long gaps look better than they are"
        )
    if counts.silences and counts.simultaneous / counts.silences > 0.5:
        notes.append(
            f"{percent(counts.simultaneous / counts.silences)} of the silences are 0 ms: events that come in bursts, "
            "or repetitions"
        )
    shorter = counts.silences - counts.simultaneous - looked_at
    if counts.silences and shorter / counts.silences > 0.1:
        notes.append(f"{percent(shorter / counts.silences)} of the silences are below a second and not looked at")
    return notes


def _figures(counts: SilenceCounts, gap_ms: int, why: tuple[str, ...]) -> GapFigures:
    its, near = counts.by_gap[gap_ms], counts.near(gap_ms)
    return GapFigures(
        gap_ms=gap_ms,
        sessions=its.sessions,
        without_duration=its.moments,
        mean_ms=its.duration_ms / max(its.sessions, 1),
        median_ms=its.quantile_ms(0.5),
        p90_ms=its.quantile_ms(0.9),
        longest_ms=its.longest_ms,
        near=near,
        near_share_of_silences=near / max(counts.silences, 1),
        near_share_of_sessions=near / max(its.sessions, 1),
        why=why,
    )
