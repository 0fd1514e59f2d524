"""The same events cut by two policies, and which of their sessions share events.

A session is the events that its label names, on either side; sessions that share an event, directly or over others, are
a group.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.kernel.counts import Counts
from sessionize.kernel.sessionizer import Sessionizer
from sessionize.session import columns as col
from sessionize.session.policy import Policy
from sessionize.session.reasons import decode_reasons, reason_names
from sessionize.session.rules import Rules

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
_LABELS = col.SessionColumns((col.USER, col.SESSION_ID))
_VALUES = (
    col.USER,
    col.SESSION_ID,
    col.SESSION_START,
    col.SESSION_END,
    col.EVENT_COUNT,
    col.HAS_CONVERSION,
    col.REVENUE,
    col.START_REASON,
    col.END_REASON,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two policies. name: as it was typed."""

    name: str
    policy: Policy
    rules: Rules

    @property
    def columns(self) -> frozenset[str]:
        """The event columns that decide, beside user and time."""
        needs = {col.EVENT_ID, col.EVENT_TYPE, col.PAGE, col.VALUE}
        return frozenset(needs | set(self.rules.split_on_change))


@dataclass(slots=True, kw_only=True)
class Cut:
    """Events cut by one side: session int64[n] of each event, -1 for none. rows: those that have one,
    session after session. counts: what became of the events.

    The rest by session: first int64, where its events begin in rows; start, end, count; began, why; written, whether it
    is a row of the result (rule 11); values, that row.
    """

    side: Side
    session: Ints
    rows: Ints
    first: Ints
    start: Ints
    end: Ints
    count: Ints
    ids: pa.Array
    written: Bools
    values: pa.Table
    began: pa.Array
    counts: Counts

    def __len__(self) -> int:
        return len(self.first)

    @property
    def first_row(self) -> Ints:
        """The row of the first event of each session."""
        return self.rows[self.first]

    def rows_of(self, sessions: Ints) -> Ints:
        """The rows of some sessions."""
        return np.concatenate(
            [self.rows[self.first[s] : self.first[s] + self.count[s]] for s in sessions] or [self.rows[:0]]
        )

    def opens(self, n: int) -> Bools:
        """bool[n]: which events are the first of their session."""
        made = np.zeros(n, bool)
        made[self.first_row] = True
        return made


def cut_events(events: pa.Table, side: Side, end_ms: int) -> Cut:
    """Both as every run does it: the labels, and the rows that are written."""
    has = frozenset(events.column_names)
    columns = col.SessionColumns(tuple(n for n in _VALUES if col.MADE_OF.get(n, frozenset()) <= has))
    whole = Sessionizer(side.policy, rules=side.rules, columns=columns)
    whole.push(events)
    values = whole.flush(end_ms)
    values = values.cast(columns.schema()).combine_chunks()
    found = Sessionizer(side.policy, rules=side.rules, columns=_LABELS).cut_bounded(events)
    session, none = np.full(events.num_rows, -1, np.int64), np.zeros(0, np.int64)
    if found is None:
        ids = pa.array([], pa.string())
        return Cut(side=side, session=session, rows=none, first=none, start=none, end=none, count=none, ids=ids,
                   began=ids, written=np.zeros(0, bool), values=values, counts=whole.counts)  # fmt: skip
    done, ids, at = found
    sessions = done.sessions
    length = sessions.last - sessions.first + 1
    assert done.rows.order is not None
    row = at[done.rows.order]
    session[row] = np.repeat(np.arange(len(length)), length)
    place = pc.index_in(ids.cast(pa.string()), values[col.SESSION_ID].combine_chunks())
    return Cut(
        side=side,
        session=session,
        rows=row,
        first=sessions.first,
        start=sessions.start,
        end=sessions.end,
        count=sessions.count,
        ids=ids.cast(pa.string()),
        began=decode_reasons(sessions.start_reason, reason_names(side.rules.names)).cast(pa.string()),
        written=place.is_valid().to_numpy(zero_copy_only=False).astype(bool),
        values=values.take(place),
        counts=whole.counts,
    )


@dataclass(slots=True)
class Groups:
    """Sessions of both sides that share events, directly or over others.

    of_a, of_b int64: the group of each session. first_row int64[groups]: of the earliest session. shared int64[groups]:
    events that have a session on both sides.
    """

    of_a: Ints
    of_b: Ints
    first_row: Ints
    shared: Ints

    def __len__(self) -> int:
        return len(self.first_row)

    def written(self, side: int, cut: Cut) -> Ints:
        """How many sessions of a side that are written each group has."""
        return np.bincount((self.of_a, self.of_b)[side][cut.written], minlength=len(self))

    def size(self, side: int, cut: Cut) -> Ints:
        """How many events the sessions of a side have in each group."""
        return np.bincount((self.of_a, self.of_b)[side], weights=cut.count, minlength=len(self)).astype(np.int64)

    def members(self, group: int) -> Iterator[Ints]:
        """The sessions of A in a group, and those of B."""
        yield from (np.flatnonzero(of == group) for of in (self.of_a, self.of_b))


def groups_of(one: Cut, other: Cut) -> Groups:
    """The groups of two cuts of the same events."""
    ka, kb = len(one), len(other)
    both = (one.session >= 0) & (other.session >= 0)
    edge = np.unique(one.session[both] * max(kb, 1) + other.session[both])
    root = _roots(ka + kb, edge // max(kb, 1), edge % max(kb, 1) + ka)
    names, group = np.unique(root, return_inverse=True)
    first_row = np.concatenate([one.first_row, other.first_row])[names]
    shared = np.bincount(group[one.session[both]], minlength=len(names))
    return Groups(group[:ka], group[ka:], first_row, shared)


def _roots(n: int, left: Ints, right: Ints) -> Ints:
    """For each of n nodes the least one that it is connected with. Each round hooks roots to lesser ones."""
    root = np.arange(n)
    while True:
        one, other = root[left], root[right]
        apart = one != other
        if not apart.any():
            return root
        one, other = one[apart], other[apart]
        np.minimum.at(root, np.maximum(one, other), np.minimum(one, other))
        while True:
            further = root[root]
            if (further == root).all():
                break
            root = further
