"""What can be said of events while they pass: their order, their times, what they lack, how many a day brings."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sessionize.session import columns as col
from sessionize.session.time import MS_PER_DAY

Ints = npt.NDArray[np.int64]


@dataclass(slots=True, kw_only=True)
class EventQuality:
    """What has been seen so far. lateness_ms: how far behind the newest one an event may come; earliest_ms: what is
    before it has a wrong clock.

    behind: events further behind than that, in the order in which they came. missing: by column, the events without a
    value; days: by day since 1970, the events whose clock is not wrong.
    """

    lateness_ms: int
    earliest_ms: int
    events: int = 0
    behind: int = 0
    furthest_ms: int = 0
    too_early: int = 0
    newest_ms: int | None = None
    missing: Counter[str] = field(default_factory=Counter)
    days: Counter[int] = field(default_factory=Counter)

    def add(self, events: pa.Table) -> None:
        """Take in the next events."""
        if not events.num_rows:
            return
        time: Ints = events[col.EVENT_TIME].to_numpy()
        self.events += len(time)
        before = -(2**62) if self.newest_ms is None else self.newest_ms
        front = np.maximum.accumulate(np.append(before, time[:-1]))
        lag = np.maximum(front, before) - time
        self.behind += int(np.count_nonzero(lag > self.lateness_ms))
        self.furthest_ms = max(self.furthest_ms, int(lag.max()))
        self.newest_ms = int(max(front[-1], time[-1]))
        usable = time >= self.earliest_ms
        self.too_early += len(time) - int(np.count_nonzero(usable))
        days, counts = np.unique(time[usable] // MS_PER_DAY, return_counts=True)
        self.days.update(dict(zip(days.tolist(), counts.tolist(), strict=True)))
        for name in events.column_names:
            self.missing[name] += events[name].null_count

    def missing_share(self, name: str) -> float:
        """The share of the events without a value of this column."""
        return self.missing.get(name, self.events) / max(self.events, 1)


@dataclass(frozen=True, slots=True)
class OddDay:
    """A day with far fewer or more events than usual. day: since 1970. usual: the median it is compared with."""

    day: int
    events: int
    usual: float


DAYS_MIN = 5


def odd_days(days: Mapping[int, int], fewest: float, most: float) -> list[OddDay] | None:
    """The days below fewest or above most times the usual; None where there are too few to tell.

    The first and the last day are left out, as they may be cut; days without any event in between count. Usual is the
    median of the same day of the week where there are three others, else of all other days.
    """
    if not days:
        return None
    first, last = min(days), max(days)
    inner = range(first + 1, last)
    if len(inner) < DAYS_MIN:
        return None
    if len(inner) > 40_000:  # clocks that are centuries apart: the days that are there alone
        inner = range(0)
    names = np.array(inner or sorted(set(days) - {first, last}), np.int64)
    counts = np.array([days.get(int(day), 0) for day in names], np.int64)
    found = []
    for at, (day, count) in enumerate(zip(names.tolist(), counts.tolist(), strict=True)):
        near = np.abs(names - day) <= 28
        near[at] = False
        same = near & ((names - day) % 7 == 0)
        others = counts[same] if np.count_nonzero(same) >= 3 else counts[near]
        usual = float(np.median(others)) if len(others) else float(count)
        if usual and not fewest * usual <= count <= most * usual:
            found.append(OddDay(day, count, usual))
    return found
