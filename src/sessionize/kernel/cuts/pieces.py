"""Rule 3: where the maximum duration and the maximum of events cut chains into pieces. See docs/spec/sessions.md."""

import numpy as np
import numpy.typing as npt

from sessionize.kernel.distinct_counts import ranges
from sessionize.session.policy import Policy

IntArray = npt.NDArray[np.int64]


def pieces(
    time: IntArray,
    first: IntArray,
    begin: IntArray,
    count: IntArray | None,
    policy: Policy,
) -> tuple[IntArray, IntArray]:
    """Rows that begin a further piece: those of the maximum duration, and those of the maximum of events.

    Of each chain, ascending: first, its first row; begin, the time that the maximum duration counts from, of its first
    event (anchored) or of the first row's session (rolling); count, the events that this session has with that row,
    None without a maximum of events. Rows of both are among the first ones only.
    """
    last = np.append(first[1:], len(time)) - 1
    limit, most = policy.max_duration_ms, policy.max_events
    rolling = policy.max_duration_mode == "rolling"
    if limit is not None and rolling and most is not None and count is not None:
        return _rolling_both(time, first, last, begin, count, limit, most)
    by_time = np.zeros(0, np.int64)
    if limit is not None:
        long = np.flatnonzero(time[last] - begin >= limit)
        if len(long):
            split = _rolling if rolling else _anchored
            by_time = split(time, first[long], last[long], begin[long], limit)
    if most is None or count is None:
        return by_time, np.zeros(0, np.int64)
    starts = np.sort(np.concatenate((first, by_time)))
    counted = np.ones(len(starts), np.int64)
    counted[np.searchsorted(starts, first)] = count
    return by_time, _counted(starts, np.append(starts[1:], len(time)) - 1, counted, most)


def _counted(first: IntArray, last: IntArray, count: IntArray, most: int) -> IntArray:
    """Rows of these pieces before which `most` events have come since the last cut."""
    next_cut = first + 1 + (most - count)
    cuts = np.maximum((last - next_cut) // most + 1, 0)
    return np.repeat(next_cut, cuts) + most * ranges(np.zeros(len(cuts), np.int64), cuts)


def _anchored(time: IntArray, first: IntArray, last: IntArray, anchor: IntArray, max_ms: int) -> IntArray:
    """Rows of these chains that lie in a later interval [anchor + k * max_ms, …) than the row before them."""
    length = last - first + 1
    row = ranges(first, length)
    piece = (time[row] - np.repeat(anchor, length)) // max_ms
    later = np.empty(len(row), bool)
    later[0] = False
    np.not_equal(piece[1:], piece[:-1], out=later[1:])
    later[np.cumsum(length)[:-1]] = False  # the first row of each chain is a boundary already
    return row[later]


def _rolling(time: IntArray, first: IntArray, last: IntArray, start: IntArray, max_ms: int) -> IntArray:
    """Rows of these chains at or after their own session's start + max_ms, for all chains at once, step by step."""
    found, low, end = [], first + 1, last + 1
    while len(low):
        row = _bisect(time, low, end, start + max_ms)
        inside = row < end
        row, end = row[inside], end[inside]
        found.append(row)
        start, low = time[row], row + 1
    return np.concatenate(found)


def _rolling_both(
    time: IntArray, first: IntArray, last: IntArray, start: IntArray, count: IntArray, max_ms: int, most: int
) -> tuple[IntArray, IntArray]:
    """As _rolling, where a session also ends after `most` events; rows by time, and rows by count alone."""
    found: list[IntArray] = []
    full: list[npt.NDArray[np.bool_]] = []
    low, end, full_at = first + 1, last + 1, first + 1 + (most - count)
    while len(low):
        by_time = _bisect(time, low, end, start + max_ms)
        row = np.minimum(by_time, full_at)
        inside = row < end
        found.append(row[inside])
        full.append(full_at[inside] < by_time[inside])
        row, end = row[inside], end[inside]
        start, low, full_at = time[row], row + 1, row + most
    rows, by_count = np.concatenate(found), np.concatenate(full)
    return rows[~by_count], rows[by_count]


def _bisect(time: IntArray, low: IntArray, high: IntArray, target: IntArray) -> IntArray:
    """For each i the first row in low[i]:high[i] whose time is at least target[i], high[i] if there is none."""
    low, high = low.copy(), high.copy()
    open_ = low < high
    while open_.any():
        middle = (low + high) >> 1
        before = open_ & (time[np.where(open_, middle, 0)] < target)
        low = np.where(before, middle + 1, low)
        high = np.where(open_ & ~before, middle, high)
        open_ = low < high
    return low
