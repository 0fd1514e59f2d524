"""Stored sessions beside the ones that the archived events make: what is invalid, breaks a rule, or differs.

It works on all events and stored sessions of some users; counts and some examples are kept.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.analytics.row_differences import column_differs, plain_mask
from sessionize.kernel.sessionizer import Sessionizer
from sessionize.session import columns as col
from sessionize.session.policy import Policy
from sessionize.session.reasons import END_OF_INPUT, reason_names
from sessionize.session.rules import Rules

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
NEEDED = (col.SESSION_ID, col.SESSION_START, col.SESSION_END, col.EVENT_COUNT)
EXAMPLES_MAX = 5
_UNTIL_INPUT_ENDED = reason_names(())[END_OF_INPUT].as_py()


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """By what stored sessions are judged. end_ms: when the input ended. open_ms: a session that ended so shortly before
    that may still be open, so that it is missing; None where all have to be there. drained: the stored ones may end by
    end_of_input, as the run that made them ended before the last event.
    """

    policy: Policy
    rules: Rules
    end_ms: int
    open_ms: int | None = None
    columns: frozenset[str] | None = None
    drained: bool = False


@dataclass(slots=True, kw_only=True)
class SessionQuality:
    """What was found so far, in rows of stored sessions. Each fault has a counter, and examples of user and session.

    compared: distinct rows on either side; equal: those that are the same on both. awaiting: users whose sessions are
    right but for late events that are not merged yet. counted: the events in the stored sessions; settled: those that
    the archive has for them.
    """

    rows: int = 0
    compared: int = 0
    equal: int = 0
    open: int = 0
    awaiting: int = 0
    counted: int = 0
    settled: int = 0
    duplicates: int = 0
    excluded: int = 0
    archived: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    differing: Counter[str] = field(default_factory=Counter)
    uncompared: set[str] = field(default_factory=set)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, more: "SessionQuality") -> None:
        """Add what was found of other users."""
        names = (
            "rows",
            "compared",
            "equal",
            "open",
            "awaiting",
            "counted",
            "settled",
            "duplicates",
            "excluded",
            "archived",
        )
        for name in names:
            setattr(self, name, getattr(self, name) + getattr(more, name))
        self.faults.update(more.faults)
        self.differing.update(more.differing)
        self.uncompared |= more.uncompared
        for name, found in more.examples.items():
            self.examples[name] = [*self.examples.get(name, ()), *found][:EXAMPLES_MAX]

    def fault(self, name: str, where: Bools, rows: pa.Table) -> None:
        """Count a fault at these rows."""
        count = int(np.count_nonzero(where))
        if count:
            self.faults[name] += count
            first = rows.take(pa.array(np.flatnonzero(where)[:EXAMPLES_MAX]))
            users, ids = (first[n].to_pylist() for n in (col.USER, col.SESSION_ID))
            said = [f"{user}: {session}" for user, session in zip(users, ids, strict=True)]
            self.examples[name] = [*self.examples.get(name, ()), *said][:EXAMPLES_MAX]


def judged(events: pa.Table, late: pa.Table, stored: pa.Table, by: Expectation) -> SessionQuality:
    """What is found of some users: all their on-time and late events, and all their stored sessions, `user` in each."""
    found = SessionQuality(rows=stored.num_rows)
    stored = _complete(stored, found)
    whole = pa.concat_tables([events, late], promote_options="permissive") if late.num_rows else events
    expected, counts = _made(whole, stored, by)
    found.archived = whole.num_rows
    found.duplicates, found.excluded = counts.duplicate, counts.excluded
    found.counted = pc.sum(stored[col.EVENT_COUNT]).as_py() or 0
    distinct = _distinct(stored, found)
    _judge_values(distinct, found)
    _judge_rules(distinct, by, found)
    unwritten = counts.settled - (pc.sum(expected[col.EVENT_COUNT]).as_py() or 0)
    found.settled = counts.settled - unwritten
    if late.num_rows:
        distinct, expected = _without_awaiting(events, late, distinct, expected, by, found)
    _compare(distinct, expected, by, found)
    return found


def _complete(stored: pa.Table, found: SessionQuality) -> pa.Table:
    """The rows that have what each session needs."""
    lacking = np.zeros(stored.num_rows, bool)
    for name in NEEDED:
        if name not in stored.column_names:
            stored = stored.append_column(name, pa.nulls(stored.num_rows, col.SESSION_TYPES[name]))
        lacking |= plain_mask(pc.is_null(stored[name]))
    if not lacking.any():
        return stored
    found.fault("incomplete", lacking, stored)
    return stored.filter(pa.array(~lacking))


def _made(events: pa.Table, stored: pa.Table, by: Expectation) -> tuple[pa.Table, Any]:
    """The sessions of these events, with the columns that are stored too."""
    stored_names = frozenset(stored.column_names)
    wanted = {
        *(stored_names if by.columns is None else stored_names & by.columns),
        *NEEDED,
        col.START_REASON,
        col.END_REASON,
        col.USER,
    }
    has = frozenset(events.column_names)
    names = tuple(n for n in col.SESSION_COLUMNS if n in wanted and col.MADE_OF.get(n, frozenset()) <= has)
    columns = col.SessionColumns(names)
    sessionizer = Sessionizer(by.policy, rules=by.rules, columns=columns)
    if events.num_rows:
        sessionizer.push(events)
    made = sessionizer.flush(by.end_ms).cast(columns.schema()).combine_chunks()
    return made, sessionizer.counts


def _distinct(stored: pa.Table, found: SessionQuality) -> pa.Table:
    """The first row of each session; a session belongs to its user."""
    key = pc.binary_join_element_wise(
        stored[col.USER].cast(pa.string()), stored[col.SESSION_ID].cast(pa.string()), "\0"
    )
    codes = key.combine_chunks().dictionary_encode().indices.to_numpy() if stored.num_rows else np.zeros(0, np.int32)
    first = np.zeros(len(codes), bool)
    first[np.unique(codes, return_index=True)[1]] = True
    found.fault("repeated", ~first, stored)
    return stored if first.all() else stored.filter(pa.array(first))


def _judge_values(stored: pa.Table, found: SessionQuality) -> None:
    start, end, count = (_numbers(stored, name) for name in NEEDED[1:])
    wrong = (end < start) | (count < 1)
    if col.SESSION_DURATION in stored.column_names:
        lasts = pc.fill_null(stored[col.SESSION_DURATION], -1.0).to_numpy()
        wrong |= np.abs(lasts - (end - start) / 1000.0) > 1e-6 * np.maximum(1.0, np.abs(lasts))
    found.fault("invalid", wrong, stored)


def _judge_rules(stored: pa.Table, by: Expectation, found: SessionQuality) -> None:
    """None over the maximum, none nearer than the gap unless a rule cut, none over another."""
    policy = by.policy
    start, end = (_numbers(stored, name) for name in (col.SESSION_START, col.SESSION_END))
    if policy.max_duration_ms is not None:
        found.fault("over_maximum", end - start >= policy.max_duration_ms, stored)
    user = stored[col.USER].cast(pa.string()).combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.lexsort((end, start, user))
    silence = start[order][1:] - end[order][:-1]
    same = user[order][1:] == user[order][:-1]
    near = same & (silence <= policy.shortest_silence_ms)
    if col.START_REASON in stored.column_names:
        reason = pc.fill_null(stored[col.START_REASON].cast(pa.string()), "").combine_chunks()
        silent = plain_mask(pc.is_in(reason, pa.array(["inactivity", "first", ""])))[order][1:]
        near &= silent | (silence < 0)
    elif policy.max_duration_ms is not None or policy.max_events is not None or by.rules.cut or policy.day_start:
        near &= silence < 0  # what cut is not stored, so only what lies over another is known to be wrong
    where = np.zeros(len(order), bool)
    where[order[1:][near]] = True
    found.fault("near", where, stored)


def _without_awaiting(
    events: pa.Table, late: pa.Table, stored: pa.Table, expected: pa.Table, by: Expectation, found: SessionQuality
) -> tuple[pa.Table, pa.Table]:
    """Take out the users whose stored sessions are exactly those without their late events."""
    users = pc.unique(late[col.USER].cast(pa.string()).combine_chunks())
    mine = events.filter(pc.is_in(events[col.USER].cast(pa.string()), users))
    theirs = stored.filter(pc.is_in(stored[col.USER].cast(pa.string()), users))
    before, _ = _made(mine, stored, by)
    wrong_before = set(_compare(theirs, before, by, SessionQuality()))
    after, _ = _made(pa.concat_tables([mine, late], promote_options="permissive"), stored, by)
    wrong_after = set(_compare(theirs, after, by, SessionQuality()))
    awaiting = [user for user in users.to_pylist() if user in wrong_after and user not in wrong_before]
    if not awaiting:
        return stored, expected
    found.awaiting = len(awaiting)
    names = pa.array(awaiting, pa.string())
    rows = stored.filter(pc.is_in(stored[col.USER].cast(pa.string()), names)).num_rows
    found.compared += rows
    found.equal += rows
    gone = expected.filter(pc.is_in(expected[col.USER], names))
    kept = before.filter(pc.is_in(before[col.USER], names))
    found.settled += (pc.sum(kept[col.EVENT_COUNT]).as_py() or 0) - (pc.sum(gone[col.EVENT_COUNT]).as_py() or 0)
    return (
        stored.filter(pc.invert(pc.is_in(stored[col.USER].cast(pa.string()), names))),
        expected.filter(pc.invert(pc.is_in(expected[col.USER], names))),
    )


def _compare(stored: pa.Table, expected: pa.Table, by: Expectation, found: SessionQuality) -> list[str]:
    """Row by row; returns the users of rows that are not as they should be."""
    place = pc.index_in(
        stored[col.SESSION_ID].cast(pa.string()).combine_chunks(), expected[col.SESSION_ID].combine_chunks()
    )
    known = plain_mask(place.is_valid())
    found.fault("unexpected", ~known, stored)
    matched = stored.filter(pa.array(known))
    at = place.drop_null()
    twin = expected.take(at)
    differs = np.zeros(matched.num_rows, bool)
    found.uncompared |= {name for name in stored.column_names if name not in (*col.SESSION_TYPES, col.REVISION)}
    for name in expected.column_names:
        if name not in stored.column_names:
            continue
        mine = column_differs(matched[name], twin[name])
        if mine is None:
            found.uncompared.add(name)
            continue
        if name == col.END_REASON and by.drained:
            ended = (matched[name].cast(pa.string()), twin[name])
            mine &= ~np.logical_or(
                *(plain_mask(pc.fill_null(pc.equal(each, _UNTIL_INPUT_ENDED), False)) for each in ended)
            )
        found.differing[name] += int(np.count_nonzero(mine))
        differs |= mine
    found.fault("differing", differs, matched)
    there = np.zeros(expected.num_rows, bool)
    there[at.to_numpy()] = True
    missing = ~there
    if by.open_ms is not None:
        still_open = missing & (by.end_ms - expected[col.SESSION_END].to_numpy() <= by.open_ms)
        found.open += int(np.count_nonzero(still_open))
        found.settled -= int(expected[col.EVENT_COUNT].to_numpy()[still_open].sum())
        missing &= ~still_open
    found.fault("missing", missing, expected)
    found.equal += matched.num_rows - int(np.count_nonzero(differs))
    found.compared += stored.num_rows + int(np.count_nonzero(missing))
    wrong = [stored.filter(pa.array(~known)), matched.filter(pa.array(differs)), expected.filter(pa.array(missing))]
    return [user for rows in wrong for user in rows[col.USER].cast(pa.string()).to_pylist()]


def _numbers(table: pa.Table, name: str) -> Ints:
    made: Ints = table[name].cast(pa.int64()).to_numpy()
    return made
