"""The incremental core: push events as they come, move the watermark, get the sessions that became final.

    sessionizer = Sessionizer(Policy.of(gap="30m"))
    late = sessionizer.push(events)              # Arrow: user, event_time_ms, event_id, event_type, page, value
    final = sessionizer.advance(watermark_ms)    # an Arrow table of sessions
    rest = sessionizer.flush()                   # the input is over

A batch run is one push and one flush. The result is the same for every order and every cut of the same events, as long
as none is below the watermark. Source: docs/spec/sessions.md.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.kernel.changes import ChangeLog, Changes
from sessionize.kernel.distinct_counts import DistinctCounts
from sessionize.kernel.emit import ClosedSessions, Emitter, plain_text
from sessionize.kernel.folding import CutRows, Folder
from sessionize.kernel.live import ids_of, ids_of_pushed, sessions_as_they_stand
from sessionize.kernel.pending import Rows
from sessionize.kernel.sessionizer_state import Counts, SessionizerState
from sessionize.kernel.snapshot import check_belongs, describe, from_bytes, load_tables, take_changes, to_bytes
from sessionize.kernel.validation import accepted, amounts, as_users, codes, times, whole_ms
from sessionize.session import columns as col
from sessionize.session.definition import SessionDefinition
from sessionize.session.policy import Policy
from sessionize.session.reasons import END_OF_INPUT, INACTIVITY, TIMEOUT, reason_names
from sessionize.session.rules import Flags, Rules


class Sessionizer:
    """Turns events into sessions, incrementally.

    Not thread-safe: use one per shard of users. The result is the same for every order and every split of the same
    events, as long as none of them is below the watermark when it is pushed.

    Parameters
    ----------
    policy : Policy, optional
        What ends a session. Default: `Policy()`.
    rules : Rules, optional
        What the events say about boundaries. Default: `Rules()`.
    columns : SessionColumns, optional
        Which session columns to make. Default: all.
    user_name : str
        The name of the user column of the sessions; no other session column may have it.
    track_changes : bool
        Record what `changes` returns. A batch run does not need it.

    Raises
    ------
    ConfigError
        `user_name` is the name of another session column.

    Notes
    -----
    Source: docs/spec/sessions.md. Memory is O(open sessions + pending events), except with numbered session ids, which
    keep every user.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from sessionize import Policy, Sessionizer
    >>> core = Sessionizer(Policy.of(gap="30m"))
    >>> late = core.push(pa.table({"user": ["a", "a"], "event_time_ms": [0, 60_000]}))
    >>> core.advance(60_001 + core.policy.gap_ms)["event_count"].to_pylist()
    [2]
    >>> core.push(pa.table({"user": ["b"], "event_time_ms": [1]})).num_rows  # below the watermark: late
    1
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        rules: Rules | None = None,
        columns: col.SessionColumns | None = None,
        user_name: str = col.USER,
        track_changes: bool = False,
    ) -> None:
        col.check_user_name(user_name)
        self.policy = policy or Policy()
        self.rules = rules or Rules()
        self.columns = columns or col.SessionColumns()
        self.user_name = user_name
        self.watermark_ms: int | None = None
        self.latest_ms: int | None = None
        self._counts = Counts()
        wants_pages = any(n in self.columns for n in (col.PAGES_VISITED, col.ENTRY_PAGE, col.EXIT_PAGE))
        held = self._held = SessionizerState(
            pages=DistinctCounts() if wants_pages else None,
            kinds=DistinctCounts() if col.EVENTS_BY_TYPE in self.columns else None,
            log=ChangeLog() if track_changes else None,
        )
        reasons = reason_names(self.rules.names)
        self._folder = Folder(
            policy=self.policy,
            wanted=self.columns,
            expects_end=bool(self.rules.end_events),
            state=held.state,
            pages=held.pages,
            kinds=held.kinds,
            page_names=held.page_names,
            kind_names=held.kind_names,
            reasons=reasons,
        )
        self._emitter = Emitter(
            policy=self.policy,
            wanted=self.columns,
            user_name=user_name,
            reasons=reasons,
            users=held.users,
            pages=held.page_names,
            kinds=held.kind_names,
        )

    @classmethod
    def of(cls, definition: SessionDefinition, *, track_changes: bool = False) -> "Sessionizer":
        """One that makes the sessions of a definition."""
        return cls(
            definition.policy,
            rules=definition.rules,
            columns=definition.columns,
            user_name=definition.user_name,
            track_changes=track_changes,
        )

    @property
    def counts(self) -> Counts:
        """What became of the events so far: a copy, which stays as it is when more are pushed."""
        return replace(self._counts, pending=len(self._held.pending))

    @property
    def open_sessions(self) -> int:
        """Sessions that settled events have opened and nothing has closed yet."""
        return int(np.count_nonzero(self._held.state["count"]))

    def push(self, events: pa.Table | pa.RecordBatch) -> pa.Table:
        """Take in events and hand back those below the watermark, which are late and take no part.

        events: `user` (text) and `event_time_ms` (int64) without nulls, and whichever of `event_id`, `event_type`,
        `page`, `value` there are. Rows may come in any order. Errors: InputError, and then nothing was taken in.
        """
        table = accepted(events)
        time = times(table)
        coded = table if self._held.kinds is None else _with_coded_types(table)
        # a function of the user's gets the events as they came
        asked = table if self.rules.boundary is not None else coded
        flags = self.rules.flags(asked, conversions=self._wants_conversions)
        keep = np.ones(table.num_rows, bool) if flags.drop is None else ~flags.drop
        late = None
        if self.watermark_ms is not None:
            late = keep & (time < self.watermark_ms)
            keep &= ~late
        rows = self._rows(coded, time, flags, keep)
        if self._held.log is not None:
            rows = self._held.log.pushed(rows, keep, late)
        self._held.pending.add(rows)
        return self._count_in(table, time, late, flags.drop)

    def cut_bounded(self, events: pa.Table) -> tuple[CutRows, pa.Array, npt.NDArray[np.int64]] | None:
        """Cut bounded input without taking it in, on a fresh Sessionizer: for whoever needs the session of each event.

        Returns the cut rows, the id of each session, and for each row of the cut its row in events; None where every
        event is excluded.
        """
        events = accepted(events)
        time = times(events)
        flags = self.rules.flags(events, conversions=False)
        keep = np.ones(events.num_rows, bool) if flags.drop is None else ~flags.drop
        rows = self._rows(events, time, flags, keep)
        if not len(rows):
            return None
        rows.columns["row"] = np.flatnonzero(keep)
        done = self._folder.cut(rows)
        return done, ids_of(done.sessions, self._emitter), rows.columns["row"]

    def _rows(self, table: pa.Table, time: npt.NDArray[np.int64], flags: Flags, keep: npt.NDArray[np.bool_]) -> Rows:
        """The kept events as the columns that the wanted session columns and the rules need."""
        amount = amounts(table, flags.converts) if col.REVENUE in self.columns else None
        at = None if keep.all() else np.flatnonzero(keep)
        part = table if at is None else table.filter(pa.array(keep))  # take() would have to join the chunks of a column
        columns: dict[str, npt.NDArray[Any]] = {
            "slot": self._held.users.encode(part[col.USER]),
            "time": time if at is None else time[at],
        }
        if self._held.kinds is not None:
            columns["kind"] = codes(self._held.kind_names, part, col.EVENT_TYPE)
        if self._held.pages is not None:
            columns["page"] = codes(self._held.page_names, part, col.PAGE)
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
        self._held.reserve()
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
        return table.filter(pa.array(late)) if late is not None and len(late_at) else table.slice(0, 0)

    @property
    def _wants_conversions(self) -> bool:
        return col.HAS_CONVERSION in self.columns or col.REVENUE in self.columns

    def advance(self, watermark_ms: int) -> pa.Table:
        """Move the watermark and return the sessions that became final: no event at or after it can change them.

        A watermark below the present one changes nothing. Errors: InputError for one that is no whole number.
        """
        watermark_ms = whole_ms(watermark_ms, "watermark_ms")
        if self.watermark_ms is not None and watermark_ms <= self.watermark_ms:
            return self._emitter.empty()
        self.watermark_ms = watermark_ms
        parts = [self._fold(self._held.pending.take_before(watermark_ms))]
        silent = self._held.state.silent_slots(watermark_ms, self.policy.longest_silence_ms)
        parts.append(self._release(silent, np.full(len(silent), self._silence_reason, np.int16)))
        return self._tables(parts)

    def flush(self, end_ms: int | None = None) -> pa.Table:
        """Bounded input is over: settle what is pending and end every session.

        end_ms: when the whole input ended; default the latest event seen. A shard of a larger input must be given the
        latest event of all shards: a session whose gap had not run out by then ends by `end_of_input`. Errors:
        InputError for an end that is no whole number.
        """
        end_ms = whole_ms(end_ms, "end_ms") if end_ms is not None else self.latest_ms
        parts = [self._fold(self._held.pending.take_all())]
        if self._held.log is not None:
            self._held.log.drained()
        slots = self._held.state.live_slots()
        if len(slots) and end_ms is not None:
            silent = self._held.state["last"][slots] < end_ms - self.policy.longest_silence_ms
            reason = np.where(silent, np.int16(self._silence_reason), np.int16(END_OF_INPUT))
            parts.append(self._release(slots, reason.astype(np.int16)))
        return self._tables(parts)

    @property
    def _silence_reason(self) -> int:
        return TIMEOUT if self.rules.end_events else INACTIVITY

    def _fold(self, rows: Rows | None) -> ClosedSessions | None:
        if rows is None or not len(rows):
            return None
        if self._held.log is not None:
            rows = self._held.log.settled(rows)
        ended, duplicates = self._folder.fold(rows)
        self._counts.settled += len(rows) - duplicates
        self._counts.duplicate += duplicates
        return ended

    def _release(self, slots: npt.NDArray[np.int32], reason: npt.NDArray[np.int16]) -> ClosedSessions | None:
        if self._held.log is not None:
            self._held.log.touched(slots)
        return self._folder.release(slots, reason) if len(slots) else None

    def _tables(self, parts: list[ClosedSessions | None]) -> pa.Table:
        tables = [self._emitter.table(ended) for ended in parts if ended is not None]
        self._held.tidy(users=not self.policy.numbers_sessions)
        return self._emitter.one_table(tables)

    def live(self, user: str) -> pa.Table:
        """The user's sessions as they stand: the open one and what pending events add to it. Nothing changes.

        A session that is still open has no end_reason. No rows for a user who has none.
        """
        return self.live_many(as_users([user]))

    def live_many(self, users: pa.Array | pa.ChunkedArray, *, open_only: bool = False) -> pa.Table:
        """`live` for several users in one pass; unknown ones are skipped.

        users: text. open_only: leave out sessions that pending events have ended already, so that each user has at
        most one. Errors: InputError for users that are no text.
        """
        held, users = self._held, as_users(users)
        slots = np.unique(held.users.find_many(pc.drop_null(users)))
        slots = slots[slots >= 0]
        if not len(slots):
            return self._emitter.empty()
        return self._emitter.one_table(
            sessions_as_they_stand(held, self._folder, self._emitter, slots, open_only=open_only)
        )

    def users(self) -> pa.Array:
        """Everybody with an open session or pending events."""
        busy = np.flatnonzero(self._held.busy()).astype(np.int32)
        return plain_text(self._held.users.values(busy))

    def pushed_session_ids(self) -> pa.Array:
        """The session of every event pushed since the last `changes`, as things stand. Nothing changes.

        One id per event in the order they were pushed, the late ones left out (`push` hands them back): null for an
        event of an excluded type or one that is settled by now, the session of the event it repeats for a duplicate.
        Ask before the watermark moves. Errors: ValueError without track_changes.
        """
        log = self._tracked()
        return ids_of_pushed(self._held, self._folder, self._emitter, log, watermark_ms=self.watermark_ms)

    def changes(self) -> Changes:
        """What has changed since the last call, since the beginning, or since the restore; costs what changed.

        Errors: ValueError without track_changes.
        """
        return take_changes(self._held, self._tracked(), self._describe())

    def _tracked(self) -> ChangeLog:
        if self._held.log is None:
            raise ValueError("this Sessionizer was made without track_changes=True")
        return self._held.log

    def _describe(self) -> dict[str, Any]:
        """What is small and not in the tables of a snapshot, as JSON-able values."""
        return {
            **describe(self.policy, self.rules),
            "columns": list(self.columns.names),
            "user_name": self.user_name,
            "watermark_ms": self.watermark_ms,
            "latest_ms": self.latest_ms,
            "counts": self.counts.as_dict(),
        }

    def snapshot(self) -> bytes:
        """Everything that the future results depend on, as bytes (kernel/snapshot.py has the format)."""
        return to_bytes(self._held, self._describe())

    @classmethod
    def restore(
        cls, data: bytes, policy: Policy | None = None, *, rules: Rules | None = None, track_changes: bool = False
    ) -> "Sessionizer":
        """Go on from a snapshot.

        policy and rules must be those of the snapshot: it says which, but a boundary function can't be stored.
        Errors: StateError for damaged bytes, an unknown version, or another policy or other rules.
        """
        header, tables = from_bytes(data)
        return cls.restore_tables(header, tables, policy, rules=rules, track_changes=track_changes)

    @classmethod
    def restore_tables(
        cls,
        header: Mapping[str, Any],
        tables: Mapping[str, pa.Table],
        policy: Policy | None = None,
        *,
        rules: Rules | None = None,
        track_changes: bool = False,
    ) -> "Sessionizer":
        """Go on from the header and the tables ("users", "pending") of merged changes (kernel/changes.py).

        Errors: StateError for another policy or other rules, or when the tables do not hold what the header says.
        """
        check_belongs(header, policy or Policy(), rules or Rules())
        wanted = col.SessionColumns(tuple(header["columns"]))
        made = cls(policy, rules=rules, columns=wanted, user_name=header["user_name"], track_changes=track_changes)
        made.watermark_ms, made.latest_ms = header["watermark_ms"], header["latest_ms"]
        made._counts = Counts(**header["counts"])
        load_tables(made._held, tables, pending=made._counts.pending)
        return made


def _with_coded_types(events: pa.Table) -> pa.Table:
    """The event types as a dictionary, which is all that the rules and the tally of types look at."""
    if col.EVENT_TYPE not in events.column_names or pa.types.is_dictionary(events[col.EVENT_TYPE].type):
        return events
    at = events.schema.get_field_index(col.EVENT_TYPE)
    return events.set_column(at, col.EVENT_TYPE, events[col.EVENT_TYPE].dictionary_encode())
