"""Rules 2 to 5: where sorted rows are cut into sessions, and why.

One pass over whole arrays. A user's open session enters as a row of its own in front of the user's new events (a
"carried" row, at the time of its last event), so that the first new event needs no special case.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sessionize.kernel.cuts.pieces import pieces
from sessionize.kernel.cuts.runs import changes, first_rows, last_rows_with_value, running_maximum
from sessionize.session.local_days import local_days
from sessionize.session.policy import Policy
from sessionize.session.reasons import DAY_START, FIRST, INACTIVITY, MAX_DURATION, MAX_EVENTS, SPLIT_ON_CHANGE, TIMEOUT

IntArray = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


@dataclass(slots=True, kw_only=True)
class Sessions:
    """Pieces of the sorted rows, one element per session, ordered by (slot, start).

    first, last: positions of the first and last row. slot int32. start, end, anchor int64 ms. count: events.
    chain, piece, number, repeat: see session/ids.py. start_reason, end_reason: reason codes, end_reason 0 while open.
    carried: whether the first row is a carried one. reach: the last moment that needs no new session, with own
    gaps only. known: codes of the last values of the run by field, with split_on_change only.
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
    reach: IntArray | None = None
    known: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What the rules say of the rows, None or nothing where a rule is off; carried rows bring what their session has.

    starts, ends int16[n]: reason codes of rules, 0 for none. gap int64[n]: the own gap in ms. values: of
    split_on_change by field, int32[n] codes, -1 for a value that does not count.
    """

    starts: npt.NDArray[np.int16] | None = None
    ends: npt.NDArray[np.int16] | None = None
    gap: IntArray | None = None
    values: Mapping[str, Array] = field(default_factory=dict)


def cut(
    slot: npt.NDArray[np.int32],
    time: IntArray,
    marks: Marks,
    carried_at: IntArray,
    carried: dict[str, Array],
    numbers: tuple[Array, Array] | None,
    policy: Policy,
    *,
    expects_end: bool,
) -> Sessions:
    """Cut rows into sessions.

    slot, time: sorted by both, at least one row. carried_at: positions of carried rows; carried: their state
    (OpenSessions.take). numbers: by slot, how many chains and sessions each user has had so far, only where users are
    remembered. Source: docs/spec/sessions.md, rules 2 to 6.
    """
    n = len(slot)
    opens = np.empty(n, bool)
    opens[0] = True
    np.not_equal(slot[1:], slot[:-1], out=opens[1:])
    by_rule = _rule_at(time, marks, policy)
    reach = None
    if marks.gap is None:
        opens[1:] |= (time[1:] - time[:-1]) > policy.longest_silence_ms
    else:
        begins = opens if by_rule is None else opens | (by_rule > 0)
        reach = running_maximum(time + marks.gap - policy.inclusive_ms, begins)
        opens[1:] |= time[1:] > reach[:-1]
    silent = opens
    if by_rule is not None:
        silent = opens.copy()
        opens |= by_rule > 0
    known: dict[str, IntArray] = {}
    if marks.values:
        by_rule, known = _split(marks.values, opens, by_rule)
        opens = opens | (by_rule > 0)
    chain_first = np.flatnonzero(opens)
    chain_slot = slot[chain_first]
    anchor = time[chain_first]
    # a chain begins with a carried row exactly where that row is the user's first, which it always is
    carried_chain = np.searchsorted(chain_first, carried_at)
    anchor[carried_chain] = carried["anchor"]
    first, chain_of, full = chain_first, np.arange(len(chain_first)), np.zeros(0, np.int64)
    if policy.max_duration_ms is not None or policy.max_events is not None:
        begin, count = anchor, None
        if policy.max_duration_mode == "rolling":
            begin = anchor.copy()
            begin[carried_chain] = carried["start"]
        if policy.max_events is not None:
            count = np.ones(len(chain_first), np.int64)
            count[carried_chain] = carried["count"]
        more, full = pieces(time, chain_first, begin, count, policy)
        if len(more) or len(full):
            first = np.sort(np.concatenate((chain_first, more, full)))
            chain_of = np.searchsorted(chain_first, first, side="right") - 1
    sessions = _sessions(slot, time, first, n, anchor[chain_of], np.searchsorted(first, carried_at), carried)
    sessions.reach = None if reach is None else reach[sessions.last]
    sessions.known = {name: _at(marks.values[name], row[sessions.last]) for name, row in known.items()}
    _number(sessions, chain_of, chain_first, chain_slot, carried, carried_at, numbers)
    _give_start_reasons(sessions, opens, silent, by_rule, remembers=numbers is not None)
    sessions.start_reason[np.searchsorted(first, full)] = MAX_EVENTS
    sessions.start_reason[sessions.carried] = carried["start_reason"]
    _end_reasons(sessions, marks.ends, expects_end=expects_end)
    return sessions


def _rule_at(time: IntArray, marks: Marks, policy: Policy) -> npt.NDArray[np.int16] | None:
    """Reason code of the rule that cuts before each row, whatever came before its neighbour; 0 for none.

    The end of the row before it, its own start, or a day of its own.
    """
    starts, ends = marks.starts, marks.ends
    if starts is None and ends is None and policy.day_start is None:
        return None
    by_rule = np.zeros(len(time), np.int16) if starts is None else starts.astype(np.int16, copy=True)
    if ends is not None:
        before = ends[:-1]
        by_rule[1:] = np.where(before > 0, before, by_rule[1:])
    if policy.day_start is not None:
        day = local_days(time, policy.day_start)
        by_rule[1:][(day[1:] != day[:-1]) & (by_rule[1:] == 0)] = DAY_START
    return by_rule


def _split(
    values: Mapping[str, Array], opens: npt.NDArray[np.bool_], by_rule: npt.NDArray[np.int16] | None
) -> tuple[npt.NDArray[np.int16], dict[str, IntArray]]:
    """by_rule with the changes of these values within runs, and for each row the last one of its run with a value."""
    by_rule = np.zeros(len(opens), np.int16) if by_rule is None else by_rule
    run_first, known = first_rows(opens), dict[str, IntArray]()
    for name, code in values.items():
        known[name] = last_rows_with_value(code, run_first)
        by_rule[changes(code, known[name], run_first)] = SPLIT_ON_CHANGE
    return by_rule, known


def _at(code: Array, row: IntArray) -> Array:
    """The codes of these rows, -1 for the row -1."""
    return np.where(row >= 0, code[row], np.int32(-1))


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
    return first_rows(~same)


def _count_within(same: npt.NDArray[np.bool_]) -> IntArray:
    """0, 1, 2, … within each group."""
    return np.arange(len(same)) - _first_of(same)


def _give_start_reasons(
    s: Sessions,
    opens: npt.NDArray[np.bool_],
    silent: npt.NDArray[np.bool_],
    by_rule: npt.NDArray[np.int16] | None,
    *,
    remembers: bool,
) -> None:
    """Rule 5. Of several reasons for one boundary the first counts of: silence, end rule, start rule, maximum."""
    s.start_reason[~opens[s.first]] = MAX_DURATION
    if by_rule is not None:
        ruled = ~silent[s.first] & (by_rule[s.first] > 0)
        s.start_reason[ruled] = by_rule[s.first[ruled]]
    if remembers:
        s.start_reason[(s.number == 1) & ~s.carried] = FIRST


def _end_reasons(s: Sessions, ends: npt.NDArray[np.int16] | None, *, expects_end: bool) -> None:
    """A session ends for the reason for which the user's next one began, unless it has an end of its own."""
    followed = np.append(s.slot[1:] == s.slot[:-1], False)
    reason = np.append(s.start_reason[1:], np.int16(0))
    silence = TIMEOUT if expects_end else INACTIVITY
    reason[reason == INACTIVITY] = silence
    s.end_reason = np.where(followed, reason, np.int16(0)).astype(np.int16)
    if ends is not None:
        closed = ends[s.last] > 0
        s.end_reason[closed] = ends[s.last[closed]]
