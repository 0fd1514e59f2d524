"""Settled events into the state: cut, add up. Batch, stream and live view all go through it, once kernel/reorder.py has
put the events in order and taken duplicates out.

`fold` takes events that nothing can come before any more, returns the sessions that later events of the same user have
closed, and leaves the others in the state.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sessionize.kernel.cutting import Marks, Sessions, cut
from sessionize.kernel.distinct_counts import Codes, DistinctCounts, distinct_codes, joined, ranges
from sessionize.kernel.emit import ClosedSessions
from sessionize.kernel.open_sessions import SPLIT, OpenSessions
from sessionize.kernel.ordering import Duplicates, Ordered, in_front
from sessionize.kernel.own_columns import HIGH, OwnAggregates
from sessionize.kernel.pending import Rows
from sessionize.kernel.reorder import SettledRows
from sessionize.kernel.sums import sums
from sessionize.session import columns as col
from sessionize.session.policy import Policy

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]

# What a carried row brings where an event would bring its own value; the rest comes from the state.
_CARRIED_CODES = {"kind": np.int32(-1), "page": np.int32(-1)}
_TALLIED = {"pages": "page", "kinds": "kind"}  # tally -> the column whose codes it counts, where it has another name


@dataclass(frozen=True, slots=True)
class CutRows:
    """Settled events in order and cut into sessions, before anything is added up.

    rows: the events that count, carried rows included (order below len(carried) means a carried one). data: their
    payload columns. duplicates: the events that do not count, None if there are none.
    """

    sessions: Sessions
    data: dict[str, Array]
    carried: dict[str, Array]
    rows: Ordered
    duplicates: Duplicates | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """Everything the pass works with. tallies: what wanted columns count by code, pages and kinds among them.

    own: the session columns of one's own; field: gives a column of waiting events, for them.
    """

    policy: Policy
    wanted: col.SessionColumns
    expects_end: bool
    state: OpenSessions
    tallies: Mapping[str, DistinctCounts]
    own: OwnAggregates | None = None
    field: Callable[[Rows, str], pa.Array | pa.ChunkedArray] | None = None

    def fold(self, settled: SettledRows) -> ClosedSessions | None:
        """Fold settled events in; returns the sessions they close."""
        if self.own is not None and self.field is not None:
            rows, field = settled.rows, self.field
            inputs = self.own.inputs(lambda name: field(rows, name), len(rows))
            settled = replace(settled, rows=rows.with_columns(inputs))
        done = self.cut(settled)
        return self._close(done.sessions, done.data, done.carried)

    def cut(self, settled: SettledRows) -> "CutRows":
        """Put the carried rows in front of each user's settled events, and cut; changes nothing."""
        rows, kept, again, carried_at = settled.rows, settled.ordered, settled.duplicates, np.zeros(0, np.int64)
        carried_slots = self._touched(kept.slot)
        carried = self.state.take(carried_slots)
        if len(carried_slots):
            kept, again, carried_at = in_front(kept, again, carried_slots, carried["last"])
        data = self._gather(rows.columns, carried, kept)
        numbers = (self.state["chain"], self.state["number"]) if self.policy.numbers_sessions else None
        sessions = cut(
            kept.slot,
            kept.time,
            self._marks(data),
            carried_at,
            carried,
            numbers,
            self.policy,
            expects_end=self.expects_end,
        )
        return CutRows(sessions, data, carried, kept, again)

    def _marks(self, data: dict[str, Array]) -> Marks:
        values = {name: column for name, column in data.items() if name.startswith(SPLIT)}
        return Marks(starts=data.get("starts"), ends=data.get("ends"), gap=data.get("gap"), values=values)

    def _touched(self, slot: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Slots with an open session (or a remembered end rule) that this batch has events for, ascending."""
        here = np.zeros(self.state.capacity, bool)
        here[slot] = True
        here &= self.state["live"]
        return np.flatnonzero(here).astype(np.int32)

    def _gather(self, columns: dict[str, Array], carried: dict[str, Array], ordered: Ordered) -> dict[str, Array]:
        """The columns beside slot and time in final order, carried rows included."""
        from_state = {"amount": "amount", "converts": "converted", "ends": "ended_by"}
        data: dict[str, Array] = {}
        for name, column in columns.items():
            if name in ("slot", "time"):
                continue
            n = len(carried["last"])
            if n:
                if name in from_state or name in carried:
                    front = carried[from_state.get(name, name)]
                elif name == "gap":  # what is left of the longest one
                    front = carried["reach"] - carried["last"] + self.policy.inclusive_ms
                else:
                    nothing = -1 if name in self.tallies else 0
                    front = np.full(n, _CARRIED_CODES.get(name, nothing), column.dtype)
                column = np.concatenate((front, column))
            assert ordered.order is not None  # whatever has a payload was sorted with its order
            data[name] = column.take(ordered.order)
        return data

    def _close(self, s: Sessions, data: dict[str, Array], carried: dict[str, Array]) -> ClosedSessions | None:
        columns: dict[str, Array] = {
            "slot": s.slot,
            "start": s.start,
            "last": s.end,
            "anchor": s.anchor,
            "count": s.count,
            "chain": s.chain,
            "piece": s.piece,
            "number": s.number,
            "repeat": s.repeat,
            "start_reason": s.start_reason,
            "end_reason": s.end_reason,
            **s.known,
        }
        if s.reach is not None:
            columns["reach"] = s.reach
        if "amount" in data:
            high = None
            if carried["amount_high"].any():
                high = np.zeros(len(s.first), np.int64)
                high[s.carried] = carried["amount_high"]
            columns["amount"], columns["amount_high"] = sums(data["amount"], s.first, high)
        if "converts" in data:
            columns["converted"] = _any_of(data["converts"], s)
        if "pages" in self.tallies and col.ENTRY_PAGE in self.wanted:
            columns["entry"] = _entry_pages(data["page"], s, carried)
        if "pages" in self.tallies and col.EXIT_PAGE in self.wanted:
            columns["exit"] = _exit_pages(data["page"], s, carried)
        if self.own is not None:
            columns |= self.own.folded(data, s.first, s.last, self._high(s, carried))
        closed = s.end_reason != 0
        emitted = np.flatnonzero(closed & (s.count > 0))
        ended = None
        if len(emitted):
            ended = ClosedSessions(
                columns={name: column[emitted] for name, column in columns.items()},
                seen={
                    name: _emitted_codes(data[_TALLIED.get(name, name)], tally, s, emitted)
                    for name, tally in self.tallies.items()
                },
            )
        self._keep(columns, data, s, closed)
        return ended

    def _high(self, s: Sessions, carried: dict[str, Array]) -> dict[str, Array]:
        """By session, what carried rows have of sums beyond 62 bits; of the sums that have any."""
        large = {name: values for name, values in carried.items() if name.endswith(HIGH) and values.any()}
        made = {name: np.zeros(len(s.first), np.int64) for name in large}
        for name, values in large.items():
            made[name][s.carried] = values
        return made

    def _keep(
        self, columns: dict[str, Array], data: dict[str, Array], s: Sessions, closed: npt.NDArray[np.bool_]
    ) -> None:
        """Leave each user's last session in the state: open, or as the mere memory of the rule that ended it."""
        last = np.append(s.slot[1:] != s.slot[:-1], True)
        open_ = np.flatnonzero(~closed)
        for name, tally in self.tallies.items():
            tally.drop(s.slot[s.carried & closed])
            tally.append(s.slot[open_], _codes_of(data[_TALLIED.get(name, name)], s, open_))
        kept = {name: column[last] for name, column in columns.items() if name not in ("slot", "end_reason")}
        ended = closed[last]
        kept["count"] = np.where(ended, 0, kept["count"])
        kept["ended_by"] = np.where(ended, s.end_reason[last], np.int16(0))
        kept["live"] = np.ones(len(ended), bool)
        self.state.put(s.slot[last], kept)

    def release(self, slots: npt.NDArray[np.int32], end_reason: npt.NDArray[np.int16]) -> ClosedSessions | None:
        """End the open sessions of these live slots for the given reasons and forget the users.

        slots ascending; end_reason int16, one per slot. Where the session was closed already nothing is emitted.
        """
        columns = self.state.take(slots)
        columns["slot"], columns["end_reason"] = slots, end_reason
        is_open = columns["count"] > 0
        ended = None
        if is_open.any():
            open_slots = slots[is_open]
            ended = ClosedSessions(
                columns={name: column[is_open] for name, column in columns.items()},
                seen={name: tally.take(open_slots) for name, tally in self.tallies.items()},
            )
        for tally in self.tallies.values():
            tally.drop(slots)
        self.state.free(slots, keep_numbers=self.policy.numbers_sessions)
        return ended


def _any_of(flag: npt.NDArray[np.bool_], s: Sessions) -> npt.NDArray[np.bool_]:
    """Whether any row of each session has the flag."""
    at = np.flatnonzero(flag)
    any_of = np.zeros(len(s.first), bool)
    any_of[np.searchsorted(s.first, at, side="right") - 1] = True
    return any_of


def _codes_of(code: Array, s: Sessions, chosen: IntArray) -> Codes:
    """The codes of these sessions' own rows, -1 left out, in order and once a row; owner: position in chosen."""
    length = s.last[chosen] - s.first[chosen] + 1
    owner = np.repeat(np.arange(len(chosen)), length)
    if len(chosen) < len(s.first):
        code = code[ranges(s.first[chosen], length)]
    has = code >= 0
    if not has.all():
        owner, code = owner[has], code[has]
    return Codes(owner, code, np.ones(len(code), np.int64))


def _emitted_codes(code: Array, tally: DistinctCounts, s: Sessions, emitted: IntArray) -> Codes:
    """Codes of the emitted sessions, those from before this batch in front; owner: position in emitted."""
    new = _codes_of(code, s, emitted)
    resumed = np.flatnonzero(s.carried[emitted])
    if not len(resumed):
        return distinct_codes(new.owner, new.code, None)
    old = tally.rows(s.slot[emitted[resumed]])
    both = joined(Codes(resumed[old.owner], old.code, old.count), new)
    return distinct_codes(both.owner, both.code, both.count)


def _entry_pages(page: Array, s: Sessions, carried: dict[str, Array]) -> npt.NDArray[np.int32]:
    """Page of each session's first event that has one, -1 if none has."""
    nowhere = len(page)
    earliest = np.minimum.accumulate(np.where(page >= 0, np.arange(nowhere), nowhere)[::-1])[::-1][s.first]
    entry = np.where(earliest <= s.last, np.append(page, np.int32(-1))[earliest], np.int32(-1))
    before = carried["entry"]
    entry[s.carried] = np.where((carried["count"] > 0) & (before >= 0), before, entry[s.carried])
    return entry


def _exit_pages(page: Array, s: Sessions, carried: dict[str, Array]) -> npt.NDArray[np.int32]:
    """Page of each session's last event that has one, -1 if none has."""
    latest = np.maximum.accumulate(np.where(page >= 0, np.arange(len(page)), -1))[s.last]
    exit_ = np.where(latest >= s.first, page[latest], np.int32(-1))
    before = carried["exit"]
    mine = exit_[s.carried]
    exit_[s.carried] = np.where((mine < 0) & (carried["count"] > 0), before, mine)
    return exit_.astype(np.int32)
