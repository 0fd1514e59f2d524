"""Sessions as arrays of codes → sessions as an Arrow table, with exactly the columns a run asks for.

Columns nobody asked for cost nothing. Text columns come plain or dictionary-encoded, whichever is at hand; sinks that
care cast them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sessionize.kernel.distinct_counts import Codes, stable_order
from sessionize.kernel.interner import Interner
from sessionize.kernel.own_columns import OwnAggregates
from sessionize.kernel.sums import revenue
from sessionize.kernel.text_arrays import TEXT_BYTES_MAX, most_text_bytes, plain_text, ranks
from sessionize.session import columns as col
from sessionize.session.bounce import NO_CONVERSION, ONE_EVENT, ONE_PAGE, bounce_duration_ms
from sessionize.session.expression_values import computed, field_values
from sessionize.session.expressions import names_in
from sessionize.session.ids import running_ids, sequential_ids, start_ids, user_hash_buckets
from sessionize.session.own_columns import RESULT_TYPES
from sessionize.session.policy import Policy
from sessionize.session.reasons import decode_reasons
from sessionize.session.time import MS_PER_DAY

Array = npt.NDArray[Any]
ROWS_MAX = 1_000_000  # of which users and ids, each of a kilobyte at most, have room in an Arrow array


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedSessions:
    """Sessions to be emitted: arrays of one element per session (names as in OpenSessions), and codes by tally."""

    columns: dict[str, Array]
    seen: Mapping[str, Codes]

    def __len__(self) -> int:
        return len(self.columns["slot"])

    def __getitem__(self, name: str) -> Array:
        return self.columns[name]

    def part(self, start: int, stop: int) -> "ClosedSessions":
        """Some of them, one after the other."""
        seen = {name: codes.part(start, stop) for name, codes in self.seen.items()}
        return ClosedSessions(columns={n: c[start:stop] for n, c in self.columns.items()}, seen=seen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Emitter:
    """Builds session tables for one run."""

    policy: Policy
    wanted: col.SessionColumns
    user_name: str
    reasons: pa.Array
    users: Interner
    pages: Interner
    kinds: Interner
    own: OwnAggregates | None = None

    def table(self, ended: ClosedSessions) -> pa.Table:
        """One row per session, in the order of `ended`."""
        if len(ended) > ROWS_MAX:
            starts = range(0, len(ended), ROWS_MAX)
            return self.one_table([self.table(ended.part(start, start + ROWS_MAX)) for start in starts])
        users = self.users.values(ended["slot"])
        made = {name: self._column(name, ended, users) for name in self.wanted.names}
        if self.own is not None:
            self._add_own(made, ended)
        return pa.table({self.user_name if name == col.USER else name: array for name, array in made.items()})

    def _add_own(self, made: dict[str, pa.Array], ended: ClosedSessions) -> None:
        """Own columns behind the others; an expression sees the columns before it."""
        assert self.own is not None
        for column in self.wanted.own.columns:
            if column.kind != "expression":
                made[column.name] = self.own.result(column.name, ended.columns, ended.seen, len(ended))
                continue
            assert column.of is not None
            fields = {name: field_values(made[name]) for name in names_in(column.of, "")}
            made[column.name] = computed(column.of, fields, len(ended)).cast(RESULT_TYPES[column.result])

    def one_table(self, tables: list[pa.Table]) -> pa.Table:
        """All of them in one, whichever of their columns are dictionary-encoded."""
        if len(tables) < 2:
            return tables[0] if tables else self.empty()
        if any(t.schema != tables[0].schema for t in tables):
            chunks = [chunk for t in tables for column in t.columns for chunk in column.chunks]
            if sum(map(most_text_bytes, chunks)) <= TEXT_BYTES_MAX:
                schema = self.wanted.schema(self.user_name)
                tables = [t.cast(schema) for t in tables]
            else:
                tables = [pa.table({n: _coded(t[n]) for n in t.column_names}) for t in tables]
        return pa.concat_tables(tables)

    def empty(self) -> pa.Table:
        """No sessions, right columns."""
        return self.wanted.schema(self.user_name).empty_table()

    def _column(self, name: str, ended: ClosedSessions, users: pa.Array) -> pa.Array:
        match name:
            case col.USER:
                return users
            case col.SESSION_ID:
                return self.ids(ended)
            case col.SESSION_START:
                return pa.array(ended["start"])
            case col.SESSION_END:
                return pa.array(ended["last"])
            case col.SESSION_DURATION:
                return pa.array((ended["last"] - ended["start"]) / 1000.0)
            case col.IS_BOUNCE:
                return pa.array(self._bounces(ended))
            case col.EVENT_COUNT:
                return pa.array(ended["count"])
            case col.PAGES_VISITED:
                return self._pages(ended)
            case col.ENTRY_PAGE:
                return self.pages.values(ended["entry"])
            case col.EXIT_PAGE:
                return self.pages.values(ended["exit"])
            case col.EVENTS_BY_TYPE:
                return self._types(ended)
            case col.HAS_CONVERSION:
                return pa.array(ended["converted"])
            case col.REVENUE:
                return pa.array(revenue(ended["amount"], ended["amount_high"]))
            case col.START_REASON | col.END_REASON:
                return decode_reasons(ended[name], self.reasons)
            case col.SESSION_DATE:
                days = (ended["start"] // MS_PER_DAY).astype(np.int32)
                return pa.array(days, pa.int32()).view(pa.date32())
            case _:
                return user_hash_buckets(users)

    def ids(self, ended: ClosedSessions) -> pa.Array:
        """The session ids, in the style of the policy."""
        plain = plain_text(self.users.values(ended["slot"]))
        match self.policy.session_ids:
            case "sequential":
                return sequential_ids(plain, ended["chain"], ended["piece"])
            case "running":
                return running_ids(plain, ended["number"])
            case _:
                repeat = ended["repeat"]
                return start_ids(plain, ended["start"], repeat if repeat.any() else None)

    def _bounces(self, ended: ClosedSessions) -> npt.NDArray[np.bool_]:
        """Rule 12: where all conditions hold."""
        conditions = self.policy.bounce
        bounces = np.ones(len(ended), bool)
        if ONE_EVENT in conditions:
            bounces &= ended["count"] < 2
        pages = ended.seen.get("pages")
        if ONE_PAGE in conditions and pages is not None:
            views = np.bincount(pages.owner, pages.count, len(ended))
            bounces &= views < 2
        if NO_CONVERSION in conditions:
            bounces &= ~ended["converted"]
        shorter_ms = bounce_duration_ms(conditions)
        if shorter_ms is not None:
            bounces &= ended["last"] - ended["start"] < shorter_ms
        return bounces

    def _pages(self, ended: ClosedSessions) -> pa.Array:
        pages = ended.seen["pages"]
        return pa.ListArray.from_arrays(pa.array(pages.offsets(len(ended))), self.pages.values(pages.code))

    def _types(self, ended: ClosedSessions) -> pa.Array:
        """Counts by event type, a session's types in alphabetical order, so that equal sessions compare equal."""
        kinds = ended.seen["kinds"]
        seen = np.zeros(len(self.kinds), bool)
        seen[kinds.code] = True
        codes = np.flatnonzero(seen)
        rank = np.zeros(len(self.kinds), np.int64)
        rank[codes] = ranks(self.kinds.values(codes))
        order = stable_order((kinds.owner << len(codes).bit_length()) | rank[kinds.code])
        keys = self.kinds.values(kinds.code[order])
        if most_text_bytes(keys) <= TEXT_BYTES_MAX:
            keys = plain_text(keys)
        return pa.MapArray.from_arrays(pa.array(kinds.offsets(len(ended))), keys, pa.array(kinds.count[order]))


def plain_sessions(sessions: pa.Table) -> pa.Table:
    """Sessions without dictionary-encoded columns, also inside lists and maps; for readers that know plain types alone.

    Columns that are plain already are not copied.
    """
    schema = pa.schema([field.with_type(_plain_type(field.type)) for field in sessions.schema])
    return sessions.cast(schema)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_map(kind):
        return pa.map_(_plain_type(kind.key_type), _plain_type(kind.item_type))
    return pa.list_(_plain_type(kind.value_type)) if pa.types.is_list(kind) else kind


def _coded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text dictionary-encoded, also inside lists and maps; others pass."""
    chunks = [_coded_chunk(chunk) for chunk in column.chunks]
    return pa.chunked_array(chunks, chunks[0].type if chunks else column.type)


def _coded_chunk(array: pa.Array) -> pa.Array:
    if isinstance(array, pa.MapArray):
        return pa.MapArray.from_arrays(array.offsets, _coded_chunk(array.keys), array.items)
    if isinstance(array, pa.ListArray):
        return pa.ListArray.from_arrays(array.offsets, _coded_chunk(array.values))
    return array.dictionary_encode() if pa.types.is_string(array.type) else array
