"""What changed since the last look, and how such changes add up to a whole state, without the operators' code.

`Changes` taken one after the other (`Sessionizer.changes`, `EventProcessor.changes`) make the state when merged: by the
rule that each table brings as data (kernel/operator.py). Merging merges is the same as merging everything, so a base
and its deltas have one form.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.errors import StateError
from sessionize.kernel.interner import dictionary_of
from sessionize.kernel.operator import Append, StateDelta, TableDelta, Upsert

EVENTS, SESSIONS = "events", "sessions"  # the buffer's state, and the session operator's
USERS, PENDING, RECENT_IDS = "users", "pending", "recent_ids"
_OF_EVENTS = ("watermark_ms", "latest_ms", "counts")  # what the buffer's header has


@dataclass(frozen=True, slots=True)
class Changes:
    """The difference between two states, or a whole state (the difference to nothing), by operator.

    EVENTS is the reorder buffer: pending events that began to wait and still do, and where duplicates are found by the
    id alone the ids that came lately (kernel/duplicates/recent_ids.py). SESSIONS are the session operator's: state rows
    (kernel/snapshot.py) of users that changed, with null where a part that was merged lacked the column, and the names
    of users that nothing is known of any more. Others are what further operators gave.
    """

    deltas: Mapping[str, StateDelta]

    @classmethod
    def of_sessions(
        cls,
        header: Mapping[str, Any],
        users: pa.Table,
        removed: pa.Array,
        pending: pa.Table,
        recent_ids: pa.Table | None = None,
        *,
        whole: bool = False,
    ) -> "Changes":
        """The changes of sessions alone, from one header for all, as format 1 has them.

        header: policy, rules, columns, user_name, watermark_ms, latest_ms, counts, and drained: whether what waited
        before was settled whatever the watermark.
        """
        mine = {name: value for name, value in header.items() if name in _OF_EVENTS}
        others = {name: value for name, value in header.items() if name not in (*_OF_EVENTS, "drained")}
        until_ms, cleared = header["watermark_ms"], bool(header.get("drained"))
        of_events = {PENDING: TableDelta(rows=pending, merge=Append("time", until_ms, cleared))}
        if recent_ids is not None:
            of_events[RECENT_IDS] = TableDelta(rows=recent_ids, merge=Append("time"))
        upsert = TableDelta(rows=users, merge=Upsert(("user",)), removed=pa.table({"user": removed}))
        return cls(
            {
                EVENTS: StateDelta(header=mine, tables=of_events, whole=whole),
                SESSIONS: StateDelta(header=others, tables={USERS: upsert}, whole=whole),
            }
        )

    @property
    def header(self) -> dict[str, Any]:
        """Policy, rules, columns, user_name, watermark_ms, latest_ms and counts as of the end."""
        return {**self.deltas[SESSIONS].header, **self.deltas[EVENTS].header}

    @property
    def users(self) -> pa.Table:
        """State rows of users that changed."""
        return self.deltas[SESSIONS].tables[USERS].rows

    @property
    def removed(self) -> pa.Array:
        """Names of users that nothing is known of any more, none of whom is in users."""
        removed = self.deltas[SESSIONS].tables[USERS].removed
        chunks = [] if removed is None else removed["user"].chunks
        return pa.concat_arrays([pa.array([], pa.string()), *chunks])

    @property
    def pending(self) -> pa.Table:
        """Events that began to wait and still do; without columns when there are none."""
        return self.deltas[EVENTS].tables[PENDING].rows

    @property
    def recent_ids(self) -> pa.Table | None:
        """Ids that came; None where only events of one time are duplicates."""
        table = self.deltas[EVENTS].tables.get(RECENT_IDS)
        return None if table is None else table.rows

    @property
    def tables(self) -> dict[str, pa.Table]:
        """What Sessionizer.restore_tables takes, of a whole state."""
        recent = self.recent_ids
        return {USERS: self.users, PENDING: self.pending, **({} if recent is None else {RECENT_IDS: recent})}


def merge_changes(parts: Sequence[Changes], *, whole: bool = False, only: Container[str] | None = None) -> Changes:
    """Add up consecutive changes, oldest first, at least one.

    whole: they begin at nothing, so what was removed needs no mention. About 1 µs per row; no row is copied in a part
    of which every row stays. An operator that the last part does not have is left out: its pipeline went on without it.
    only: the names that count, None for all; of others there is the name, and nothing that could fail to be merged.
    Errors: StateError when the tables of an operator's deltas do not fit together.
    """
    merged = {}
    for name in parts[-1].deltas:
        if only is not None and name not in only:
            merged[name] = StateDelta(header={}, tables={}, whole=True)
            continue
        try:
            merged[name] = _merged(_course(parts, name), whole=whole)
        except pa.ArrowMemoryError:
            raise
        except (pa.ArrowException, KeyError) as error:
            raise StateError(
                "the changes of a state do not fit together",
                detail=f"operator {name}: {error}",
                hint="go on with the program that wrote them, or begin anew with another run.home or stream.writer, "
                "and with outputs that are empty",
            ) from error
    return Changes(merged)


def _course(parts: Sequence[Changes], name: str) -> list[StateDelta]:
    """The deltas of an operator since it began, as far as these parts go."""
    course: list[StateDelta] = []
    for part in reversed(parts):
        delta = part.deltas.get(name)
        if delta is None:
            break
        course.append(delta)
        if delta.whole:
            break
    return course[::-1]


def _merged(deltas: Sequence[StateDelta], *, whole: bool) -> StateDelta:
    whole = whole or deltas[0].whole
    for delta in deltas:
        if differ := sorted(delta.tables.keys() ^ deltas[-1].tables.keys()):
            raise KeyError(f"not every delta has the table {differ[0]}")
    tables = {name: _merged_table([delta.tables[name] for delta in deltas]) for name in deltas[-1].tables}
    if whole:
        tables = {name: _nothing_removed(table) for name, table in tables.items()}
    return StateDelta(header=deltas[-1].header, tables=tables, whole=whole)


def _nothing_removed(table: TableDelta) -> TableDelta:
    return table if table.removed is None else replace(table, removed=table.removed.slice(0, 0))


def _merged_table(parts: Sequence[TableDelta]) -> TableDelta:
    if isinstance(parts[-1].merge, Upsert):
        return _upserted(parts, parts[-1].merge)
    return _appended(parts, parts[-1].merge)


def _upserted(parts: Sequence[TableDelta], merge: Upsert) -> TableDelta:
    """The last word on each key: the rows that count, and the keys whose last word is that they were removed."""
    if len(parts) == 1:
        return parts[0]
    keys = [table.select(list(merge.key)) for part in parts for table in (part.rows, part.removed) if _has_rows(table)]
    if not keys:
        return parts[-1]
    counts = _is_last(keys)
    rows: list[pa.Table] = []
    removed: list[pa.Table] = []
    at = 0
    for part in parts:
        for table, kept in ((part.rows, rows), (part.removed, removed)):
            if _has_rows(table):
                here, at = counts[at : at + table.num_rows], at + table.num_rows
                if here.any():
                    kept.append(table if here.all() else table.filter(pa.array(here)))
    last = parts[-1]
    none_removed = None if last.removed is None else last.removed.slice(0, 0)
    return TableDelta(
        rows=_concat(rows) if rows else last.rows.slice(0, 0),
        merge=merge,
        removed=_concat(removed) if removed else none_removed,
    )


def _has_rows(table: pa.Table | None) -> TypeGuard[pa.Table]:
    return table is not None and table.num_rows > 0


def _is_last(keys: list[pa.Table]) -> npt.NDArray[np.bool_]:
    """bool[n] over all rows of these tables: whether the row is the last one of its key."""
    n = sum(table.num_rows for table in keys)
    row = np.arange(n)
    names = keys[0].column_names
    if len(names) == 1 and pa.types.is_string(keys[0].schema.types[0]) and not any(t[0].null_count for t in keys):
        chunks = [chunk for table in keys for chunk in table[0].chunks]
        code, _ = dictionary_of(pa.chunked_array(chunks, pa.string()))
        last = np.zeros(n, np.int64)
        last[code] = row  # the last of several assignments to one place counts
        is_last: npt.NDArray[np.bool_] = last[code] == row
        return is_last
    numbered = pa.table([*_concat(keys).columns, pa.array(row)], names=[*map(str, range(len(names))), "row"])
    by_key = numbered.group_by(numbered.column_names[:-1], use_threads=False)
    last_rows = by_key.aggregate([("row", "max")])["row_max"].to_numpy()
    is_last = np.zeros(n, bool)
    is_last[last_rows] = True
    return is_last


def _appended(parts: Sequence[TableDelta], merge: Append) -> TableDelta:
    """Everything that still is there. A column may be in some parts and not in others: it is null there."""
    rules = [part.merge for part in parts if isinstance(part.merge, Append)]
    cleared_at = max((at for at, rule in enumerate(rules) if rule.cleared), default=0)
    until_ms = max((rule.until_ms for rule in rules[cleared_at:] if rule.until_ms is not None), default=None)
    tables = []
    for table in (part.rows for part in parts[cleared_at:]):
        if table.num_rows and merge.time is not None and until_ms is not None:
            table = table.filter(pc.greater_equal(table[merge.time], until_ms))
        if table.num_rows:
            tables.append(table)
    return TableDelta(
        rows=_concat(tables) if tables else parts[-1].rows.slice(0, 0),
        merge=replace(merge, until_ms=until_ms, cleared=any(rule.cleared for rule in rules)),
    )


def _concat(tables: list[pa.Table]) -> pa.Table:
    return tables[0] if len(tables) == 1 else pa.concat_tables(tables, promote_options="default")
