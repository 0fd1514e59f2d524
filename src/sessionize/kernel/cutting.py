"""Rules 2 to 5: where sorted rows are cut into sessions, and why.

One pass over whole arrays. A user's open session enters as a row of its own in front of the user's new events (a
"carried" row, at the time of its last event), so that the first new event needs no special case.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sessionize.kernel.distinct_counts import ranges
from sessionize.session.policy import Policy
from sessionize.session.reasons import FIRST, INACTIVITY, MAX_DURATION, TIMEOUT

IntArray = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


@dataclass(slots=True, kw_only=True)
class Sessions:
    """Pieces of the sorted rows, one element per session, ordered by (slot, start).

    first, last: positions of the first and last row. slot int32. start, end, anchor int64 ms. count: events.
    chain, piece, number, repeat: see session/ids.py. start_reason, end_reason: reason codes, end_reason 0 while open.
    carried: whether the first row is a carried one.
    """

    first: IntArray
    last: IntArray
    slot: npt.NDArray[np.int32]
    start: IntArray
    end: IntArray
    anchor: IntArray
    count: IntArray
    chain: IntArray
    piece: IntArray
    number: IntArray
    repeat: IntArray
    start_reason: npt.NDArray[np.int16]
    end_reason: npt.NDArray[np.int16]
    carried: npt.NDArray[np.bool_]


def cut(
    slot: npt.NDArray[np.int32],
    time: IntArray,
    starts: npt.NDArray[np.int16] | None,
    ends: npt.NDArray[np.int16] | None,
    carried_at: IntArray,
    carried: dict[str, Array],
    numbers: tuple[Array, Array] | None,
    policy: Policy,
    *,
    expects_end: bool,
) -> Sessions:
    """Cut rows into sessions.

    slot, time: sorted by both, at least one row. starts, ends int16: reason codes of rules, 0 for none, or None.
    carried_at: positions of carried rows; carried: their state (OpenSessions.take). numbers: by slot, how many chains
    and sessions each user has had so far, only where users are remembered. Source: docs/spec/sessions.md, rules 2 to 6.
    """
    n = len(slot)
    new_user = np.empty(n, bool)
    new_user[0] = True
    np.not_equal(slot[1:], slot[:-1], out=new_user[1:])
    opens = new_user.copy()
    opens[1:] |= (time[1:] - time[:-1]) > policy.longest_silence_ms
    by_rule = _rule_at(n, starts, ends)
    silent = opens
    if by_rule is not None:
        silent = opens.copy()
        opens |= by_rule > 0
    chain_first = np.flatnonzero(opens)
    chain_slot = slot[chain_first]
    anchor = time[chain_first]
    # a chain begins with a carried row exactly where that row is the user's first, which it always is
    carried_chain = np.searchsorted(chain_first, carried_at)
    anchor[carried_chain] = carried["anchor"]
    first, chain_of = chain_first, np.arange(len(chain_first))
    if policy.max_duration_ms is not None:
        chain_last = np.append(chain_first[1:], n) - 1
        begin = anchor.copy()
        if policy.max_duration_mode == "rolling":
            begin[carried_chain] = carried["start"]
        long = np.flatnonzero(time[chain_last] - begin >= policy.max_duration_ms)
        if len(long):
            split = _anchored if policy.max_duration_mode == "anchored" else _rolling
            more = split(time, chain_first[long], chain_last[long], begin[long], policy.max_duration_ms)
            if len(more):
                first = np.sort(np.concatenate((chain_first, more)))
                chain_of = np.searchsorted(chain_first, first, side="right") - 1
    sessions = _sessions(slot, time, first, n, anchor[chain_of], np.searchsorted(first, carried_at), carried)
    _number(sessions, chain_of, chain_first, chain_slot, carried, carried_at, numbers)
    _give_reasons(sessions, opens, silent, by_rule, ends, numbers is not None, expects_end=expects_end)
    sessions.start_reason[sessions.carried] = carried["start_reason"]
    return sessions


def _rule_at(n: int, starts: Array | None, ends: Array | None) -> npt.NDArray[np.int16] | None:
    """Reason code of the rule that cuts before each row, 0 for none: the end of the row before it, or its own start."""
    if starts is None and ends is None:
        return None
    by_rule = np.zeros(n, np.int16) if starts is None else starts.astype(np.int16, copy=True)
    if ends is not None:
        before = ends[:-1]
        by_rule[1:] = np.where(before > 0, before, by_rule[1:])
    return by_rule


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


def _sessions(
    slot: Array, time: IntArray, first: IntArray, n: int, anchor: IntArray, resumed: IntArray, carried: dict[str, Array]
) -> Sessions:
    last = np.append(first[1:], n) - 1
    start, count = time[first], last - first + 1
    is_carried = np.zeros(len(first), bool)
    is_carried[resumed] = True
    start[resumed] = carried["start"]
    count[resumed] += carried["count"] - 1
    zeros = np.zeros(len(first), np.int64)
    return Sessions(
        first=first,
        last=last,
        slot=slot[first],
        start=start,
        end=time[last],
        anchor=anchor,
        count=count,
        chain=zeros,
        piece=zeros,
        number=zeros,
        repeat=zeros,
        start_reason=np.full(len(first), INACTIVITY, np.int16),
        end_reason=np.zeros(len(first), np.int16),
        carried=is_carried,
    )


def _number(
    s: Sessions,
    chain_of: IntArray,
    chain_first: IntArray,
    chain_slot: Array,
    carried: dict[str, Array],
    carried_at: IntArray,
    numbers: tuple[Array, Array] | None,
) -> None:
    """Count chains and sessions per user and pieces per chain, going on from what was carried."""
    resumed = np.flatnonzero(s.carried)
    same_start = np.zeros(len(s.slot), bool)
    same_start[1:] = (s.slot[1:] == s.slot[:-1]) & (s.start[1:] == s.start[:-1])
    if same_start.any():
        s.repeat = _count_within(same_start)
    if len(resumed) and carried["repeat"].any():
        s.repeat = s.repeat.copy()
        s.repeat[resumed] = carried["repeat"]
    if numbers is None:
        return
    chains_before, sessions_before = numbers
    resumed_chain = np.zeros(len(chain_first), np.int64)
    resumed_chain[np.searchsorted(chain_first, carried_at)] = 1
    resumed_session = s.carried.astype(np.int64)
    same_user = np.append(False, chain_slot[1:] == chain_slot[:-1])
    rank = _count_within(same_user) + 1 - resumed_chain[_first_of(same_user)]
    s.chain = (rank + chains_before[chain_slot])[chain_of]
    same_user = np.append(False, s.slot[1:] == s.slot[:-1])
    s.number = _count_within(same_user) + 1 - resumed_session[_first_of(same_user)] + sessions_before[s.slot]
    same_chain = np.append(False, chain_of[1:] == chain_of[:-1])
    carried_piece = np.zeros(len(s.slot), np.int64)
    carried_piece[resumed] = carried["piece"]
    s.piece = _count_within(same_chain) + carried_piece[_first_of(same_chain)]


def _first_of(same: npt.NDArray[np.bool_]) -> IntArray:
    """For each row the position where its group began; same: whether a row belongs with the one before."""
    at = np.arange(len(same))
    return np.maximum.accumulate(np.where(same, 0, at))


def _count_within(same: npt.NDArray[np.bool_]) -> IntArray:
    """0, 1, 2, … within each group."""
    return np.arange(len(same)) - _first_of(same)


def _give_reasons(
    s: Sessions,
    opens: npt.NDArray[np.bool_],
    silent: npt.NDArray[np.bool_],
    by_rule: npt.NDArray[np.int16] | None,
    ends: npt.NDArray[np.int16] | None,
    remembers: bool,
    *,
    expects_end: bool,
) -> None:
    """Rule 5. Of several reasons for one boundary the first counts of: silence, end rule, start rule, maximum."""
    s.start_reason[~opens[s.first]] = MAX_DURATION
    if by_rule is not None:
        ruled = ~silent[s.first] & (by_rule[s.first] > 0)
        s.start_reason[ruled] = by_rule[s.first[ruled]]
    if remembers:
        s.start_reason[(s.number == 1) & ~s.carried] = FIRST
    followed = np.append(s.slot[1:] == s.slot[:-1], False)
    reason = np.append(s.start_reason[1:], np.int16(0))
    silence = TIMEOUT if expects_end else INACTIVITY
    reason[reason == INACTIVITY] = silence
    s.end_reason = np.where(followed, reason, np.int16(0)).astype(np.int16)
    if ends is not None:
        closed = ends[s.last] > 0
        s.end_reason[closed] = ends[s.last[closed]]
