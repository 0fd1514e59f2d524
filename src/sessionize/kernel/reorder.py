"""The reorder buffer: events wait until the watermark has passed them, and come out settled, for all operators at once.

Settled means in the order of rule 1 (docs/spec/sessions.md), each event once, and never to be looked at again. The
buffer judges which events are late, numbers users, pages and event types, and carries the columns that the session
columns and the rules need, and those that operators ask for: no others.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sessionize.errors import ConfigError
from sessionize.kernel.change_log import SERIAL, PushLog
from sessionize.kernel.counts import Counts
from sessionize.kernel.duplicates.recent_ids import RecentIds
from sessionize.kernel.interner import Interner
from sessionize.kernel.large_text import one_array_of, rows_of
from sessionize.kernel.open_sessions import SPLIT
from sessionize.kernel.ordering import Duplicates, Ordered, resolve_ties, sort_rows, tied_rows
from sessionize.kernel.payload import PAYLOAD_TYPES, as_type
from sessionize.kernel.pending import Pending, Rows
from sessionize.kernel.text_arrays import TEXT_BYTES_MAX, most_text_bytes, plain_text, ranks
from sessionize.kernel.validation import accepted, amounts, codes, times
from sessionize.session import columns as col
from sessionize.session.bounce import NO_CONVERSION, ONE_PAGE
from sessionize.session.event_gaps import event_gaps_ms
from sessionize.session.expression_values import field_values
from sessionize.session.expressions import FIELD_TYPES
from sessionize.session.policy import Policy
from sessionize.session.reasons import decode_reasons, reason_names
from sessionize.session.rules import Flags, Rules
from sessionize.session.split_values import split_values

_CODED = {col.PAGE: "page", col.EVENT_TYPE: "kind"}  # event columns that the sessions carry as codes


@dataclass(frozen=True, slots=True)
class SettledRows:
    """Settled events of one step. rows: as they waited, in any order, duplicates among them. ordered: those that count,
    in order, and which of `rows` each is (None where nothing but user and time is carried). duplicates: the others.
    """

    rows: Rows
    ordered: Ordered
    duplicates: Duplicates | None

    def __len__(self) -> int:
        """How many events count."""
        return len(self.ordered.slot)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOrder:
    """Rule 1. page_names, kind_names, value_names: what the codes mean; reasons: the names of reason codes; own: the
    fields of own session columns. recent: the ids of before, None where only events of one time are duplicates.
    """

    page_names: Interner
    kind_names: Interner
    value_names: Interner
    reasons: pa.Array
    own: frozenset[str] = frozenset()
    recent: RecentIds | None = None

    def settle(self, rows: Rows, users: Interner, *, remember: bool = False) -> SettledRows:
        """The rows in order, without duplicates; at least one row. users: what the slots mean; remember: the rows
        leave the buffer.

        Fields of own session columns decide after the rest, and columns that only operators ask for last, so that
        sessions are the same with and without them.
        """
        settled = self._settled(rows)
        return settled if self.recent is None else self.recent.without_repeated(settled, users, remember=remember)

    def _settled(self, rows: Rows) -> SettledRows:
        compares = len(rows.columns) > 2 or rows.ids is not None or bool(rows.payload)
        ordered = sort_rows(rows["slot"], rows["time"], with_order=compares)
        tied = tied_rows(ordered) if compares else np.zeros(0, np.int64)
        if not len(tied):
            return SettledRows(rows, ordered, None)
        assert ordered.order is not None
        return SettledRows(rows, *resolve_ties(ordered, tied, self._compared(rows, ordered.order[tied])))

    def _compared(self, rows: Rows, at: npt.NDArray[np.int64]) -> dict[str, pa.Array]:
        """What decides between the rows at these places, most important first."""
        compare: dict[str, pa.Array] = {}
        if rows.ids is not None:
            compare["id"] = one_array_of(rows.ids, at)
        for name in ("starts", "ends"):
            if name in rows.columns:
                compare[name] = plain_text(decode_reasons(rows[name][at], self.reasons))
        for name in sorted(name for name in rows.columns if name.startswith(SPLIT)):
            compare[name] = _in_order(rows[name][at], self.value_names)
        if "gap" in rows.columns:
            compare["gap"] = pa.array(rows["gap"][at])
        for name, names in (("page", self.page_names), ("kind", self.kind_names)):
            if name in rows.columns:
                compare[name] = _in_order(rows[name][at], names)
        if "amount" in rows.columns:
            compare["amount"] = pa.array(rows["amount"][at])
        for name in sorted(rows.payload, key=lambda name: (name not in self.own, name)):
            values = one_array_of(rows.payload[name], at)
            compare[f"payload {name}"] = field_values(values) if name in self.own else values
        return compare


class SettledEvents:
    """Settled events as operators get them; columns are made when the first operator asks for them."""

    def __init__(self, settled: SettledRows, buffer: "EventTimeBuffer") -> None:
        self.settled = settled  # for the session operator, which works on codes
        self._buffer = buffer
        self._made: dict[str, pa.Array | pa.ChunkedArray] = {}

    def __len__(self) -> int:
        return len(self.settled)

    def table(self, columns: Mapping[str, pa.DataType]) -> pa.Table:
        """`user` (string), `event_time_ms` (int64) and these columns, which have to be among those asked for.

        Sorted by user in an order of its own, then by rule 1. Text is plain, in as many chunks as it takes.
        """
        names = dict.fromkeys((col.USER, col.EVENT_TIME, *columns))
        for name in names:
            if name not in self._made:
                self._made[name] = self._buffer.column(self.settled, name)
        return pa.table({name: self._made[name] for name in names})


@dataclass(slots=True, kw_only=True)
class EventTimeBuffer:
    """Events on their way to the operators. Not thread-safe: one per shard of users.

    policy: which gap an event has. rules: which events are excluded, and flags of the others. columns: the session
    columns that are made. payload: what operators ask for beside user and time. log: notes what is pushed; None if
    nobody asks for changes. watermark_ms: events before it are late; None before the first. latest_ms: the latest event
    seen. counts: of what was pushed, but for those pending. Errors: ConfigError for a payload that no event can have.
    """

    policy: Policy
    rules: Rules
    columns: col.SessionColumns
    payload: Mapping[str, pa.DataType] = field(default_factory=dict)
    log: PushLog | None = None
    watermark_ms: int | None = None
    latest_ms: int | None = None
    counts: Counts = field(default_factory=Counts)
    users: Interner = field(default_factory=Interner)
    page_names: Interner = field(default_factory=lambda: Interner(few=True))
    kind_names: Interner = field(default_factory=lambda: Interner(few=True))
    value_names: Interner = field(default_factory=lambda: Interner(few=True))
    pending: Pending = field(default_factory=Pending)
    recent: RecentIds | None = field(init=False, default=None)
    order: RowOrder = field(init=False)

    def __post_init__(self) -> None:
        if self.policy.repeats_ids:
            self.recent = RecentIds(self.policy.duplicates_within_ms, tracks=self.log is not None)
        for name, kind in self.columns.own.fields:
            if self.payload.get(name, FIELD_TYPES[kind]) != FIELD_TYPES[kind]:
                raise ConfigError(
                    "an operator and a session column ask for one field in different types",
                    detail=f"{name!r} as {self.payload[name]} and {kind}",
                )
        for name, asked in self.payload.items():
            if asked not in PAYLOAD_TYPES or col.EVENT_TYPES.get(name, asked) != asked:
                raise ConfigError("an operator asks for a column that no event has", detail=f"{name!r} as {asked}")
        own = {name: FIELD_TYPES[kind] for name, kind in self.columns.own.fields}
        self.payload = {**own, **{name: self.payload[name] for name in self.payload if name not in own}}
        self.order = RowOrder(
            page_names=self.page_names,
            kind_names=self.kind_names,
            value_names=self.value_names,
            reasons=reason_names(self.rules.names),
            own=frozenset(own),
            recent=self.recent,
        )

    @property
    def wants_pages(self) -> bool:
        """Whether a session column is made of pages."""
        if col.IS_BOUNCE in self.columns and ONE_PAGE in self.policy.bounce:
            return True
        return any(name in self.columns for name in (col.PAGES_VISITED, col.ENTRY_PAGE, col.EXIT_PAGE))

    @property
    def wants_kinds(self) -> bool:
        """Whether a session column counts event types."""
        return col.EVENTS_BY_TYPE in self.columns

    @property
    def coded(self) -> tuple[str, ...]:
        """The columns of codes that rows have."""
        return ("kind", "page") if self.columns.decided_by_ties else ()

    @property
    def carried(self) -> tuple[str, ...]:
        """The payload that the rows carry for operators alone."""
        ours = {col.USER, col.EVENT_TIME, col.EVENT_ID}
        ours |= {col.PAGE, col.EVENT_TYPE} if self.columns.decided_by_ties else set()
        return tuple(name for name in self.payload if name not in ours)

    def push(self, events: pa.Table | pa.RecordBatch) -> pa.Table:
        """Take in events and hand back those below the watermark, which are late and take no part.

        Errors: InputError, and then nothing was taken in.
        """
        table = self._with_ids(accepted(events, fields=[name for name, _ in self.columns.own.fields]))
        time = times(table)
        coded = _with_coded_types(table) if self.columns.decided_by_ties else table
        # a function of the user's gets the events as they came
        asked = table if self.rules.boundary is not None else coded
        flags = self.rules.flags(asked, conversions=self._wants_conversions)
        keep = np.ones(table.num_rows, bool) if flags.drop is None else ~flags.drop
        late = None
        if self.watermark_ms is not None:
            late = keep & (time < self.watermark_ms)
            keep &= ~late
        rows = self._rows(coded, time, flags, keep)
        if self.log is not None:
            rows = self.log.pushed(rows, keep, late)
        self.pending.add(rows)
        return self._count_in(table, time, late, flags.drop)

    def bounded(self, events: pa.Table) -> tuple[SettledRows, npt.NDArray[np.int64]] | None:
        """Bounded input in order, not taken in, and for each of its rows the row in events; None without rows."""
        events = self._with_ids(accepted(events))
        flags = self.rules.flags(events, conversions=self._wants_conversions)
        keep = np.ones(events.num_rows, bool) if flags.drop is None else ~flags.drop
        rows = self._rows(events, times(events), flags, keep)
        if not len(rows):
            return None
        row = np.flatnonzero(keep)
        return self.order.settle(rows.with_columns({"row": row}), self.users), row

    def settle_before(self, watermark_ms: int) -> SettledRows | None:
        """The pending events below the watermark; None when there are none that count."""
        settled = self._settle(self.pending.take_before(watermark_ms))
        if self.recent is not None:
            self.recent.forget(watermark_ms)
        return settled

    def settle_all(self) -> SettledRows | None:
        """All pending events; None when there are none that count."""
        rows = self.pending.take_all()
        if self.log is not None:
            self.log.drained()
        return self._settle(rows)

    def _settle(self, rows: Rows | None) -> SettledRows | None:
        if rows is None or not len(rows):
            return None
        settled = self.order.settle(rows if self.log is None else rows.without(SERIAL), self.users, remember=True)
        self.counts.settled += len(settled)
        self.counts.duplicate += len(rows) - len(settled)
        return settled if len(settled) else None

    def _with_ids(self, events: pa.Table) -> pa.Table:
        """The events. Errors: ConfigError where duplicates are found by an id that they lack."""
        if self.recent is not None and events.num_rows and col.EVENT_ID not in events.column_names:
            raise ConfigError(
                'duplicates = "id" needs the event id, which the events lack',
                detail=f"columns: {', '.join(events.column_names)}",
                hint="map event_id, or remove duplicates",
            )
        return events

    def counted(self) -> Counts:
        """The counts as they stand: a copy, which stays as it is when more are pushed."""
        return replace(self.counts, pending=len(self.pending))

    def column(self, settled: SettledRows, name: str) -> pa.Array | pa.ChunkedArray:
        """An event column of settled rows, in their order, in its type."""
        ordered, rows = settled.ordered, settled.rows
        if name == col.EVENT_TIME:
            return pa.array(ordered.time)
        if name == col.USER:
            return _plain(self.users, ordered.slot)
        if name == col.EVENT_ID and rows.ids is None:
            return pa.nulls(len(settled), pa.string())
        assert ordered.order is not None  # rows that carry more than user and time are sorted with their order
        if name == col.EVENT_ID and rows.ids is not None:
            return rows_of(rows.ids, ordered.order)
        if name in rows.payload:
            return rows_of(rows.payload[name], ordered.order)
        names = self.page_names if name == col.PAGE else self.kind_names
        return _plain(names, rows[_CODED[name]][ordered.order])

    def field(self, rows: Rows, name: str) -> pa.Array | pa.ChunkedArray:
        """A field of own session columns, of these rows in their order."""
        if name == col.EVENT_TIME:
            return pa.array(rows["time"])
        if name == col.EVENT_ID:
            return pa.nulls(len(rows), pa.string()) if rows.ids is None else rows.ids
        if name in rows.payload:
            return rows.payload[name]
        return _plain(self.page_names if name == col.PAGE else self.kind_names, rows[_CODED[name]])

    def _rows(self, table: pa.Table, time: npt.NDArray[np.int64], flags: Flags, keep: npt.NDArray[np.bool_]) -> Rows:
        """The kept events as the columns that session columns, rules and operators need."""
        amount = amounts(table, flags.converts) if self._wants_amounts else None
        at = None if keep.all() else np.flatnonzero(keep)
        part = table if at is None else table.filter(pa.array(keep))  # take() would have to join the chunks of a column
        columns: dict[str, npt.NDArray[Any]] = {
            "slot": self.users.encode(part[col.USER]),
            "time": time if at is None else time[at],
        }
        if self.columns.decided_by_ties:
            columns["kind"] = codes(self.kind_names, part, col.EVENT_TYPE)
            columns["page"] = codes(self.page_names, part, col.PAGE)
        none = np.zeros(len(time), np.int16)
        optional: dict[str, npt.NDArray[Any] | None] = {"amount": amount}
        if self._wants_conversions:
            optional["converts"] = none.astype(bool) if flags.converts is None else flags.converts
        if self.rules.cut:
            optional["starts"] = none if flags.starts is None else flags.starts
            optional["ends"] = none if flags.ends is None else flags.ends
        for name, values in optional.items():
            if values is not None:
                columns[name] = values if at is None else values[at]
        for name, texts in split_values(part, self.rules).items():
            columns[f"{SPLIT}{name}"] = self.value_names.encode(texts)
        if self.policy.gap_by is not None:
            columns["gap"] = event_gaps_ms(part, self.policy.gap_by, self.policy.gap_ms)
        ids = part[col.EVENT_ID] if col.EVENT_ID in part.column_names else None
        return Rows(columns, ids, {name: as_type(part, name, self.payload[name]) for name in self.carried})

    def _count_in(
        self,
        table: pa.Table,
        time: npt.NDArray[np.int64],
        late: npt.NDArray[np.bool_] | None,
        drop: npt.NDArray[np.bool_] | None,
    ) -> pa.Table:
        if len(time):
            self.latest_ms = max(int(time.max()), self.latest_ms if self.latest_ms is not None else int(time.max()))
        late_at = np.flatnonzero(late) if late is not None else np.zeros(0, np.int64)
        self.counts.consumed += table.num_rows
        self.counts.late += len(late_at)
        self.counts.excluded += 0 if drop is None else int(np.count_nonzero(drop))
        return table.filter(pa.array(late)) if late is not None and len(late_at) else table.slice(0, 0)

    @property
    def _wants_conversions(self) -> bool:
        if col.IS_BOUNCE in self.columns and NO_CONVERSION in self.policy.bounce:
            return True
        return col.HAS_CONVERSION in self.columns or self._wants_amounts

    @property
    def _wants_amounts(self) -> bool:
        return col.REVENUE in self.columns or bool(self.columns.own)


def _with_coded_types(events: pa.Table) -> pa.Table:
    """The event types as a dictionary, which is all that the rules and the tally of types look at."""
    if col.EVENT_TYPE not in events.column_names or pa.types.is_dictionary(events[col.EVENT_TYPE].type):
        return events
    at = events.schema.get_field_index(col.EVENT_TYPE)
    return events.set_column(at, col.EVENT_TYPE, events[col.EVENT_TYPE].dictionary_encode())


def _in_order(code: npt.NDArray[Any], names: Interner) -> pa.Array:
    """Numbers that sort like the names behind codes, null for none."""
    distinct, place = np.unique(code, return_inverse=True)
    rank = np.full(len(distinct), -1, np.int64)
    rank[distinct >= 0] = ranks(names.values(distinct[distinct >= 0]))
    return pa.array(rank[place], mask=code < 0)


def _plain(names: Interner, code: npt.NDArray[np.int32]) -> pa.ChunkedArray:
    """The names behind codes as plain strings, in chunks that have room for them."""
    values = names.values(code)
    if most_text_bytes(values) > TEXT_BYTES_MAX and len(code) > 1:
        half = len(code) // 2
        return pa.chunked_array([*_plain(names, code[:half]).chunks, *_plain(names, code[half:]).chunks], pa.string())
    return pa.chunked_array([plain_text(values)], pa.string())
