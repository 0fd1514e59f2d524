"""Counts the silences between the events of each user, and what sessions each possible gap would make of them.

One pass over a part of the users: one sort by (user, time), then differences of neighbours. What is kept is counts, so
the memory does not grow with the input. A longer gap only removes boundaries, so each gap looks at the boundaries that
the shorter one before it left over.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sessionize.kernel.ordering import sort_rows

Ints = npt.NDArray[np.int64]

_SUB_BITS = 6  # 64 bins in each doubling: a value read off a bin is at most 1/64 too small or too large
_SHIFT = 52 - _SUB_BITS
_ZERO = 1023 << _SUB_BITS  # the bin of 1.0 in the bits of a double
BINS = 50 << _SUB_BITS  # up to 2**50 ms; the calendar of spec rule 10 spans 2**49
_NEVER = np.iinfo(np.int64).max
NEAR = 0.1  # "near the gap": within ±10 %


def bin_of(ms: Ints) -> Ints:
    """The bin of each positive number of milliseconds: the exponent and the first bits of its double."""
    bits: Ints = ms.astype(np.float64).view(np.int64) >> _SHIFT
    return bits - _ZERO


def edges_ms() -> npt.NDArray[np.float64]:
    """The lower edge of each bin, and the upper one of the last: float64[BINS + 1]."""
    return ((np.arange(BINS + 1, dtype=np.int64) + _ZERO) << _SHIFT).view(np.float64)


def around(gap_ms: int) -> tuple[int, int]:
    """The two silences between which a silence is near the gap."""
    return round(gap_ms * (1 - NEAR)), round(gap_ms * (1 + NEAR))


@dataclass(slots=True, kw_only=True)
class GapCounts:
    """The sessions that one gap makes. moments: those without a duration. duration_ms: of all together.

    durations int64[BINS]: the sessions with a duration, by its bin.
    """

    sessions: int = 0
    moments: int = 0
    duration_ms: int = 0
    longest_ms: int = 0
    durations: Ints = field(default_factory=lambda: np.zeros(BINS, np.int64))

    @classmethod
    def of(cls, duration_ms: Ints) -> "GapCounts":
        """The counts of sessions with these durations."""
        longer = duration_ms[duration_ms > 0]
        return cls(
            sessions=len(duration_ms),
            moments=len(duration_ms) - len(longer),
            duration_ms=int(longer.sum()),
            longest_ms=int(longer.max(initial=0)),
            durations=np.bincount(bin_of(longer), minlength=BINS),
        )

    def add(self, more: "GapCounts") -> None:
        """Add other sessions."""
        self.sessions += more.sessions
        self.moments += more.moments
        self.duration_ms += more.duration_ms
        self.longest_ms = max(self.longest_ms, more.longest_ms)
        self.durations = self.durations + more.durations

    def quantile_ms(self, share: float) -> float:
        """The duration that this share of the sessions does not exceed, within 1/64."""
        rank = share * self.sessions
        if rank <= self.moments:
            return 0.0
        at = int(np.searchsorted(self.moments + np.cumsum(self.durations), rank))
        low, high = edges_ms()[at : at + 2].tolist()
        return float(min(self.longest_ms, (low + high) / 2))


@dataclass(slots=True, kw_only=True)
class SilenceCounts:
    """What has been counted so far. limits_ms: ascending; above int64[k]: the silences longer than each of them.

    simultaneous: silences of 0 ms, repetitions of an event among them. bins int64[BINS]: the longer ones.
    """

    gaps_ms: tuple[int, ...]
    limits_ms: tuple[int, ...]
    events: int = 0
    users: int = 0
    simultaneous: int = 0
    first_ms: int | None = None
    last_ms: int | None = None
    bins: Ints = field(default_factory=lambda: np.zeros(BINS, np.int64))
    above: Ints
    by_gap: dict[int, GapCounts]

    @classmethod
    def of(cls, gaps_ms: tuple[int, ...], limits_ms: tuple[int, ...] = ()) -> "SilenceCounts":
        """Nothing yet. gaps_ms: for which sessions are counted; limits_ms: between which silences are."""
        gaps = tuple(sorted(set(gaps_ms)))
        limits = tuple(sorted({*limits_ms, *gaps, *(limit for gap in gaps for limit in around(gap))}))
        return cls(
            gaps_ms=gaps,
            limits_ms=limits,
            above=np.zeros(len(limits), np.int64),
            by_gap={gap: GapCounts() for gap in gaps},
        )

    @property
    def silences(self) -> int:
        """All of them: each event but the first of its user has one before it."""
        return self.events - self.users

    def above_ms(self, limit_ms: int) -> int:
        """How many silences are longer than one of limits_ms."""
        return int(self.above[self.limits_ms.index(limit_ms)])

    def near(self, gap_ms: int) -> int:
        """How many silences are near one of gaps_ms."""
        low, high = around(gap_ms)
        return self.above_ms(low) - self.above_ms(high)

    def counted(self, user: npt.NDArray[np.int32], time: Ints) -> "SilenceCounts":
        """The counts of these events alone: all events of some users, in any order.

        user int32[n]: a number for each. time int64[n], ms. Errors: none.
        """
        made = SilenceCounts.of(self.gaps_ms, self.limits_ms)
        n = len(user)
        if not n:
            return made
        rows = sort_rows(user, time, with_order=False)
        silence = np.full(n, _NEVER, np.int64)  # no event before: longer than any gap
        np.subtract(rows.time[1:], rows.time[:-1], out=silence[1:], where=rows.slot[1:] == rows.slot[:-1])
        made.events, made.users = n, int(np.count_nonzero(silence == _NEVER))
        made.first_ms, made.last_ms = int(time.min()), int(time.max())
        some = silence[(silence > 0) & (silence != _NEVER)]
        made.simultaneous = n - made.users - len(some)
        made.bins = np.bincount(bin_of(some), minlength=BINS)
        passed = np.bincount(np.searchsorted(np.array(self.limits_ms), some), minlength=len(self.limits_ms) + 1)
        made.above = np.cumsum(passed[::-1])[::-1][1:]
        first: Any = slice(None)
        for number, gap in enumerate(self.gaps_ms):
            first = np.flatnonzero(silence > gap) if not number else first[silence[first] > gap]
            made.by_gap[gap] = _sessions(rows.time, first)
        return made

    def add(self, more: "SilenceCounts") -> None:
        """Add the counts of other users."""
        self.events += more.events
        self.users += more.users
        self.simultaneous += more.simultaneous
        self.first_ms = _outermost(min, self.first_ms, more.first_ms)
        self.last_ms = _outermost(max, self.last_ms, more.last_ms)
        self.bins += more.bins
        self.above += more.above
        for gap, its in more.by_gap.items():
            self.by_gap[gap].add(its)


def _outermost(which: Callable[[list[int]], int], *times: int | None) -> int | None:
    known = [each for each in times if each is not None]
    return which(known) if known else None


def _sessions(time: Ints, first: Ints) -> GapCounts:
    """The sessions whose first rows these are."""
    return GapCounts.of(time[np.append(first[1:], len(time)) - 1] - time[first])
