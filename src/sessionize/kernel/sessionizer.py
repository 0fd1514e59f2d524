"""The incremental core: push events as they come, move the watermark, get the sessions that became final.

    sessionizer = Sessionizer(Policy.of(gap="30m"))
    late = sessionizer.push(events)              # Arrow: user, event_time_ms, event_id, event_type, page, value
    final = sessionizer.advance(watermark_ms)    # an Arrow table of sessions
    rest = sessionizer.flush()                   # the input is over

A batch run is one push and one flush. The result is the same for every order and every cut of the same events, as long
as none is below the watermark. Source: docs/spec/sessions.md.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.errors import InputError
from sessionize.kernel.emit import MICROS, Emitter, Ended
from sessionize.kernel.folding import CutRows, Folder
from sessionize.kernel.interner import Interner
from sessionize.kernel.pending import Pending, Rows
from sessionize.kernel.snapshot import dump_tables, from_bytes, load_tables, to_bytes
from sessionize.kernel.tally import Tally
from sessionize.session import columns as col
from sessionize.session.policy import Policy
from sessionize.session.reasons import END_OF_INPUT, INACTIVITY, TIMEOUT, reason_words
from sessionize.session.rules import Flags, Rules
from sessionize.session.state import OpenSessions

TIME_MS_MAX = 8_640_000_000_000_000  # a hundred million days either side of 1970
NAMES_MIN = 1 << 16  # names of pages and types are tidied up no earlier than this
_NAMING = ("slot", "start", "chain", "piece", "number", "repeat")
USERS_MIN = 1 << 12  # and names of users no earlier than this


@dataclass(slots=True)
class Counts:
    """Events by what became of them. consumed is the sum of all the others, at any moment.

    settled: in sessions, open or emitted. pending: waiting for the watermark. late: below it on arrival, handed back.
    duplicate, excluded: counted nowhere else.
    """

    consumed: int = 0
    settled: int = 0
    pending: int = 0
    late: int = 0
    duplicate: int = 0
    excluded: int = 0

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)


class Sessionizer:
    """Turns events into sessions, incrementally. Not thread-safe: one per shard of users.

    policy, rules: what a session is. columns: which session columns to make (default: all). user_name: what the user
    column of the sessions is called.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        rules: Rules | None = None,
        columns: col.SessionColumns | None = None,
        user_name: str = col.USER,
    ) -> None:
        self.policy = policy or Policy()
        self.rules = rules or Rules()
        self.columns = columns or col.SessionColumns()
        self.user_name = user_name
        self.watermark_ms: int | None = None
        self.latest_ms: int | None = None
        self._counts = Counts()
        self._users, self._page_names, self._kind_names = Interner(), Interner(), Interner()
        self._names_limit = NAMES_MIN
        self._state = OpenSessions()
        self._pending = Pending()
        wants_pages = any(n in self.columns for n in (col.PAGES_VISITED, col.ENTRY_PAGE, col.EXIT_PAGE))
        reasons = reason_words(self.rules.names)
        self._folder = Folder(
            policy=self.policy,
            wanted=self.columns,
            expects_end=bool(self.rules.end_events),
            state=self._state,
            pages=Tally() if wants_pages else None,
            kinds=Tally() if col.EVENTS_BY_TYPE in self.columns else None,
            page_names=self._page_names,
            kind_names=self._kind_names,
            reasons=reasons,
        )
        self._emitter = Emitter(
            policy=self.policy,
            wanted=self.columns,
            user_name=user_name,
            reasons=reasons,
            users=self._users,
            pages=self._page_names,
            kinds=self._kind_names,
        )

    @property
    def counts(self) -> Counts:
        """What became of the events so far."""
        self._counts.pending = len(self._pending)
        return self._counts

    @property
    def open_sessions(self) -> int:
        """Sessions that settled events have opened and nothing has closed yet."""
        return int(np.count_nonzero(self._state["count"]))

    def push(self, events: pa.Table | pa.RecordBatch) -> pa.Table:
        """Take in events and hand back those below the watermark, which are late and take no part.

        events: `user` (text) and `event_time_ms` (int64) without nulls, and whichever of `event_id`, `event_type`,
        `page`, `value` there are. Rows may come in any order. Errors: InputError, and then nothing was taken in.
        """
        table = pa.Table.from_batches([events]) if isinstance(events, pa.RecordBatch) else events
        time = _times(table)
        _check_users(table)
        _check_optional(table)
        flags = self.rules.flags(table, conversions=self._wants_conversions)
        keep = np.ones(table.num_rows, bool) if flags.drop is None else ~flags.drop
        late = None
        if self.watermark_ms is not None:
            late = keep & (time < self.watermark_ms)
            keep &= ~late
        self._pending.add(self._rows(table, time, flags, keep))
        return self._count_in(table, time, late, flags.drop)

    def cut_once(self, events: pa.Table) -> tuple[CutRows, pa.Array, npt.NDArray[np.int64]] | None:
        """Cut bounded input without taking it in, on a fresh Sessionizer: for whoever needs the session of each event.

        Returns the cut rows, the id of each session, and for each row of the cut its row in events; None where every
        event is excluded.
        """
        time = _times(events)
        _check_users(events)
        flags = self.rules.flags(events, conversions=False)
        keep = np.ones(events.num_rows, bool) if flags.drop is None else ~flags.drop
        rows = self._rows(events, time, flags, keep)
        if not len(rows):
            return None
        rows.columns["row"] = np.flatnonzero(keep)
        done = self._folder.cut(rows)
        s = done.sessions
        named = Ended(columns={n: getattr(s, n) for n in _NAMING}, pages=None, kinds=None)
        return done, self._emitter.ids(named), rows.columns["row"]

    def _rows(self, table: pa.Table, time: npt.NDArray[np.int64], flags: Flags, keep: npt.NDArray[np.bool_]) -> Rows:
        """The kept events as the columns that the wanted session columns and the rules need."""
        amount = self._amounts(table, flags.converts)
        at = None if keep.all() else np.flatnonzero(keep)
        part = table if at is None else table.take(pa.array(at))
        columns: dict[str, npt.NDArray[Any]] = {
            "slot": self._users.encode(part[col.USER]),
            "time": time if at is None else time[at],
        }
        if self._folder.kinds is not None:
            columns["kind"] = _codes(self._kind_names, part, col.EVENT_TYPE)
        if self._folder.pages is not None:
            columns["page"] = _codes(self._page_names, part, col.PAGE)
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
        ids = part[col.EVENT_ID] if col.EVENT_ID in part.column_names else None
        if ids is not None and pa.types.is_dictionary(ids.type):
            ids = ids.cast(pa.string())
        self._reserve()
        return Rows(columns, ids)

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
        self._counts.consumed += table.num_rows
        self._counts.late += len(late_at)
        self._counts.excluded += 0 if drop is None else int(np.count_nonzero(drop))
        return table.take(pa.array(late_at)) if len(late_at) else table.slice(0, 0)

    @property
    def _wants_conversions(self) -> bool:
        return col.HAS_CONVERSION in self.columns or col.REVENUE in self.columns

    def _amounts(self, table: pa.Table, converts: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.int64] | None:
        """What each event adds to revenue, in whole millionths, so that sums never depend on the order of adding."""
        if col.REVENUE not in self.columns:
            return None
        if col.VALUE not in table.column_names or converts is None:
            return np.zeros(table.num_rows, np.int64)
        value = np.where(converts, pc.fill_null(table[col.VALUE].cast(pa.float64()), 0.0).to_numpy(), 0.0)
        if not np.all(np.abs(value) <= col.VALUE_MAX):  # also catches NaN
            bad = value[~(np.abs(value) <= col.VALUE_MAX)][0]
            raise InputError(
                "an event's value is not usable as an amount",
                detail=f"value = {bad}",
                hint=f"leave it null, or keep it within ±{col.VALUE_MAX:g}",
            )
        amounts: npt.NDArray[np.int64] = np.rint(value * MICROS).astype(np.int64)
        return amounts

    def advance(self, watermark_ms: int) -> pa.Table:
        """Move the watermark and return the sessions that became final: no event at or after it can change them.

        A watermark below the present one changes nothing.
        """
        if self.watermark_ms is not None and watermark_ms <= self.watermark_ms:
            return self._emitter.empty()
        self.watermark_ms = watermark_ms
        parts = [self._fold(self._pending.take_before(watermark_ms))]
        silent = self._state.silent_slots(watermark_ms, self.policy.longest_silence_ms)
        parts.append(self._release(silent, np.full(len(silent), self._silence_reason, np.int16)))
        return self._tables(parts)

    def flush(self, end_ms: int | None = None) -> pa.Table:
        """Bounded input is over: settle what is pending and end every session.

        end_ms: when the whole input ended; default the latest event seen. A shard of a larger input must be given the
        latest event of all shards: a session whose gap had not run out by then ends by `end_of_input`.
        """
        end_ms = end_ms if end_ms is not None else self.latest_ms
        parts = [self._fold(self._pending.take_all())]
        slots = self._state.live_slots()
        if len(slots) and end_ms is not None:
            silent = self._state["last"][slots] < end_ms - self.policy.longest_silence_ms
            reason = np.where(silent, np.int16(self._silence_reason), np.int16(END_OF_INPUT))
            parts.append(self._release(slots, reason.astype(np.int16)))
        return self._tables(parts)

    @property
    def _silence_reason(self) -> int:
        return TIMEOUT if self.rules.end_events else INACTIVITY

    def _reserve(self) -> None:
        self._state.reserve(len(self._users))
        for tally in (self._folder.pages, self._folder.kinds):
            if tally is not None:
                tally.reserve(self._state.capacity)

    def _fold(self, rows: Rows | None) -> Ended | None:
        if rows is None or not len(rows):
            return None
        ended, duplicates = self._folder.fold(rows)
        self._counts.settled += len(rows) - duplicates
        self._counts.duplicate += duplicates
        return ended

    def _release(self, slots: npt.NDArray[np.int32], reason: npt.NDArray[np.int16]) -> Ended | None:
        return self._folder.release(slots, reason) if len(slots) else None

    def _tables(self, parts: list[Ended | None]) -> pa.Table:
        tables = [self._emitter.table(ended) for ended in parts if ended is not None]
        self._tidy()
        if not tables:
            return self._emitter.empty()
        if len(tables) == 1:
            return tables[0]
        schema = tables[0].schema
        if any(t.schema != schema for t in tables):
            schema = self.columns.schema(self.user_name)
            tables = [t.cast(schema) for t in tables]
        return pa.concat_tables(tables)

    def live(self, user: str) -> pa.Table:
        """The user's sessions as they stand: the open one and what pending events add to it. Nothing changes.

        A session that is still open has no end_reason. No rows for a user who has none.
        """
        slot = self._users.find(user)
        if slot is None:
            return self._emitter.empty()
        view = Sessionizer(self.policy, rules=self.rules, columns=self.columns, user_name=self.user_name)
        load_tables(view, dump_tables(self, np.array([slot], np.int32)))
        parts = [view._fold(view._pending.take_all())]
        slots = view._state.live_slots()
        parts.append(view._release(slots, np.zeros(len(slots), np.int16)))
        return view._tables(parts)

    def snapshot(self) -> bytes:
        """Everything that the future results depend on, as bytes (kernel/snapshot.py has the format)."""
        return to_bytes(self)

    @classmethod
    def restore(cls, data: bytes, policy: Policy | None = None, *, rules: Rules | None = None) -> "Sessionizer":
        """Go on from a snapshot.

        policy and rules must be those of the snapshot: it says which, but a boundary function can't be stored.
        Errors: StateError for damaged bytes, an unknown version, or another policy or other rules.
        """
        header, tables = from_bytes(data, policy or Policy(), rules or Rules())
        wanted = col.SessionColumns(tuple(header["columns"]))
        made = cls(policy, rules=rules, columns=wanted, user_name=header["user_name"])
        made.watermark_ms, made.latest_ms = header["watermark_ms"], header["latest_ms"]
        made._counts = Counts(**header["counts"])
        load_tables(made, tables)
        return made

    def _tidy(self) -> None:
        """Forget the names of users and pages that nothing refers to any more; costs O(1) per name in the long run."""
        held = self._users.used
        if not self.policy.remembers_users and held > USERS_MIN:
            known = np.count_nonzero(self._state["live"])
            if held > 2 * (known + len(self._pending)) + USERS_MIN:
                idle = ~self._state["live"][: len(self._users)] & ~self._pending.in_use("slot", len(self._users))
                self._users.release(np.flatnonzero(idle).astype(np.int32))
        if len(self._page_names) + len(self._kind_names) > self._names_limit:
            self._tidy_names(self._page_names, self._folder.pages, "page", ("entry", "exit"))
            self._tidy_names(self._kind_names, self._folder.kinds, "kind", ())
            self._names_limit = max(NAMES_MIN, 2 * (len(self._page_names) + len(self._kind_names)))

    def _tidy_names(self, names: Interner, tally: Tally | None, name: str, in_state: tuple[str, ...]) -> None:
        if tally is None:
            return
        in_use = tally.codes_in_use(len(names)) | self._pending.in_use(name, len(names))
        live = self._state["live"]
        for column in in_state:
            codes = self._state[column][live]
            in_use[codes[codes >= 0]] = True
        table = names.compact(in_use)
        tally.recode(table)
        self._pending.recode(name, table)
        for column in in_state:
            self._state[column][live] = table[self._state[column][live]]


def _times(table: pa.Table) -> npt.NDArray[np.int64]:
    for name in (col.USER, col.EVENT_TIME):
        if name not in table.column_names:
            raise InputError(
                f"the events have no column {name}",
                detail=f"columns: {', '.join(table.column_names)}",
                hint=f"rename the column that holds it to {name}",
            )
    column = table[col.EVENT_TIME]
    if column.type != pa.int64():
        raise InputError(
            f"{col.EVENT_TIME} must be int64 milliseconds", detail=f"it is {column.type}", hint="cast it first"
        )
    if column.null_count:
        raise InputError(f"{col.EVENT_TIME} has nulls", detail=f"{column.null_count} of {len(column)}")
    time: npt.NDArray[np.int64] = column.to_numpy()
    if len(time) and (int(time.max()) > TIME_MS_MAX or int(time.min()) < -TIME_MS_MAX):
        bad = int(time[(time > TIME_MS_MAX) | (time < -TIME_MS_MAX)][0])
        raise InputError(
            "an event time is out of range",
            detail=f"{col.EVENT_TIME} = {bad}, allowed ±{TIME_MS_MAX}",
            hint="times are milliseconds since 1970; is this one in micro- or nanoseconds?",
        )
    return time


def _is_text(kind: pa.DataType) -> bool:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(plain) or pa.types.is_large_string(plain) or pa.types.is_string_view(plain))


def _check_optional(table: pa.Table) -> None:
    for name in (col.EVENT_ID, col.EVENT_TYPE, col.PAGE, col.VALUE):
        if name in table.column_names:
            kind = table[name].type
            number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
            if not pa.types.is_null(kind) and not (number if name == col.VALUE else _is_text(kind)):
                wanted = "a number" if name == col.VALUE else "text"
                raise InputError(f"{name} must be {wanted}", detail=f"it is {kind}", hint="cast it first")


def _check_users(table: pa.Table) -> None:
    column = table[col.USER]
    if not _is_text(column.type):
        raise InputError("user must be text", detail=f"it is {column.type}", hint="cast it to a string first")
    if column.null_count:
        raise InputError("user has nulls", detail=f"{column.null_count} of {len(column)} rows", hint="drop them first")


def _codes(names: Interner, table: pa.Table, column: str) -> npt.NDArray[np.int32]:
    if column not in table.column_names:
        return np.full(table.num_rows, -1, np.int32)
    return names.encode(table[column])
