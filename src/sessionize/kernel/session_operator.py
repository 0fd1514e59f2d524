"""The sessions as an operator: settled events are folded into open sessions, and final ones come out.

It works on the numbers of the reorder buffer, so it is made with the buffer that feeds it; other operators need not be.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.errors import StateError
from sessionize.kernel.change_log import SlotLog
from sessionize.kernel.changes import SESSIONS as STATE
from sessionize.kernel.changes import USERS
from sessionize.kernel.distinct_counts import DistinctCounts
from sessionize.kernel.emit import ClosedSessions, Emitter
from sessionize.kernel.folding import CutRows, Folder
from sessionize.kernel.live import ids_of, ids_of_pushed, sessions_as_they_stand
from sessionize.kernel.open_sessions import SPLIT, OpenSessions
from sessionize.kernel.operator import StateDelta, TableDelta, Upsert
from sessionize.kernel.own_columns import OwnAggregates
from sessionize.kernel.reorder import EventTimeBuffer, SettledEvents, SettledRows
from sessionize.kernel.sessionizer_state import SessionizerState
from sessionize.kernel.snapshot import (
    check_belongs,
    check_columns,
    check_own_columns,
    describe,
    load_users,
    user_changes,
)
from sessionize.kernel.text_arrays import plain_text
from sessionize.session.definition import SessionDefinition
from sessionize.session.output_tables import SESSIONS
from sessionize.session.reasons import END_OF_INPUT, INACTIVITY, TIMEOUT, reason_names

UNTRACKED = "this one was made without track_changes=True"


class SessionOperator:
    """An Operator (kernel/operator.py). buffer: the one that feeds it; its `log` says whether changes are noted."""

    name = STATE
    columns: Mapping[str, pa.DataType] = {}  # what the session columns need comes as codes
    tables: Sequence[str] = (SESSIONS.name,)

    def __init__(self, definition: SessionDefinition, buffer: EventTimeBuffer) -> None:
        self._definition, self._buffer = definition, buffer
        held = self.held = SessionizerState(
            pages=DistinctCounts() if buffer.wants_pages else None,
            kinds=DistinctCounts() if buffer.wants_kinds else None,
            log=None if buffer.log is None else SlotLog(),
            pushes=buffer.log,
            users=buffer.users,
            page_names=buffer.page_names,
            kind_names=buffer.kind_names,
            value_names=buffer.value_names,
            pending=buffer.pending,
        )
        rules = definition.rules
        own = OwnAggregates(definition.columns.own) if definition.columns.own else None
        values = [f"{SPLIT}{name}" for name in rules.split_fields]
        further: dict[str, type[np.generic]] = dict.fromkeys(values, np.int32)
        if own is not None:
            held.own, held.own_tallies = own, own.new_tallies()
        if own is not None or values:
            more, codes = ({}, ()) if own is None else (own.state_types, own.coded)
            held.state = OpenSessions(further={**more, **further}, coded=[*codes, *values])
        self._folder = Folder(
            policy=definition.policy,
            wanted=definition.columns,
            expects_end=bool(rules.end_events),
            state=held.state,
            tallies={name: tally for name, tally, _ in held.tallies},
            own=own,
            field=buffer.field,
        )
        self._emitter = Emitter(
            policy=definition.policy,
            wanted=definition.columns,
            user_name=definition.user_name,
            reasons=reason_names(rules.names),
            users=held.users,
            pages=held.page_names,
            kinds=held.kind_names,
            own=own,
        )
        self.nothing_waits = False  # whether the state to be restored has no pending events
        self.has_other_columns = False  # than the state that was restored, which was drained
        self._silence_reason = TIMEOUT if rules.end_events else INACTIVITY
        self._ended: list[ClosedSessions] = []  # by events that were taken in and have not come out yet

    @property
    def open_sessions(self) -> int:
        """Sessions that settled events have opened and nothing has closed yet."""
        return int(np.count_nonzero(self.held.state["count"]))

    @property
    def holds_state(self) -> bool:
        """Whether any session is open."""
        return self.open_sessions > 0

    def take(self, events: SettledEvents) -> None:
        """Fold settled events in."""
        if self.held.log is not None:
            self.held.log.touched(events.settled.ordered.slot)
        ended = self._folder.fold(events.settled)
        if ended is not None:
            self._ended.append(ended)

    def advance(self, watermark_ms: int) -> dict[str, pa.Table]:
        """The sessions that no event at or after the watermark can change."""
        silent = self._silent_slots(watermark_ms)
        self._release(silent, np.full(len(silent), self._silence_reason, np.int16))
        return self._emitted()

    def flush(self, end_ms: int | None) -> dict[str, pa.Table]:
        """Every session: one whose gap had not run out by the end ends by `end_of_input`."""
        slots = self.held.state.live_slots()
        if len(slots) and end_ms is not None:
            silent = np.isin(slots, self._silent_slots(end_ms), assume_unique=True)
            reason = np.where(silent, np.int16(self._silence_reason), np.int16(END_OF_INPUT))
            self._release(slots, reason.astype(np.int16))
        return self._emitted()

    def _silent_slots(self, at_ms: int) -> npt.NDArray[np.int32]:
        policy = self._definition.policy
        return self.held.state.silent_slots(at_ms, policy.longest_silence_ms if policy.gap_by is None else None)

    def _release(self, slots: npt.NDArray[np.int32], reason: npt.NDArray[np.int16]) -> None:
        if self.held.log is not None:
            self.held.log.touched(slots)
        ended = self._folder.release(slots, reason) if len(slots) else None
        if ended is not None:
            self._ended.append(ended)

    def _emitted(self) -> dict[str, pa.Table]:
        ended, self._ended = self._ended, []
        tables = [self._written(part) for part in ended]
        self.held.tidy(users=not self._definition.policy.numbers_sessions)
        return {SESSIONS.name: self._emitter.one_table(tables)}

    def _written(self, ended: ClosedSessions) -> pa.Table:
        """Those that are long enough (rule 11)."""
        table, policy = self._emitter.table(ended), self._definition.policy
        if not policy.drops_short:
            return table
        long_enough = policy.keeps(ended["count"], ended["last"] - ended["start"])
        self._buffer.counts.short_sessions += int(np.count_nonzero(~long_enough))
        return table.filter(pa.array(long_enough))

    def empty(self) -> pa.Table:
        """No sessions, right columns."""
        return self._emitter.empty()

    def delta(self) -> StateDelta:
        """The state rows of users that changed."""
        if self.held.log is None:
            raise ValueError(UNTRACKED)
        users, removed = user_changes(self.held, self.held.log)
        table = TableDelta(rows=users, merge=Upsert(("user",)), removed=pa.table({"user": removed}))
        return StateDelta(header=self.describe(), tables={USERS: table})

    def describe(self) -> dict[str, object]:
        """What the state is made with, as JSON-able values."""
        definition = self._definition
        own = definition.columns.own.to_json()
        return {
            **describe(definition.policy, definition.rules),
            "columns": list(definition.columns.names),
            **({"own_columns": own} if own else {}),  # older checkpoints have none
            "user_name": definition.user_name,
        }

    def restore(self, state: StateDelta) -> None:
        """Errors: StateError for another policy, other rules, or, where sessions are open or events wait, other session
        columns: what these were made of is not there any more.
        """
        check_belongs(state.header, self._definition.policy, self._definition.rules)
        users, columns = state.tables[USERS].rows, self._definition.columns
        try:
            check_columns(tuple(state.header["columns"]), columns.names)
            check_own_columns(state.header.get("own_columns", {}), columns.own.to_json())
        except StateError:
            if users.num_rows or not self.nothing_waits:
                raise
            self.has_other_columns = True
        load_users(self.held, users)

    # ---- as things stand, pending events included ----

    def live(self, users: pa.Array | pa.ChunkedArray, *, open_only: bool) -> pa.Table:
        """The sessions of these users; unknown ones are skipped (Sessionizer.live_many)."""
        slots = np.unique(self.held.users.find_many(pc.drop_null(users)))
        slots = slots[slots >= 0]
        if not len(slots):
            return self._emitter.empty()
        tables = sessions_as_they_stand(
            self.held, self._folder, self._emitter, self._buffer.order, slots, open_only=open_only
        )
        return self._emitter.one_table(tables)

    def users(self) -> pa.Array:
        """Everybody with an open session or pending events."""
        busy = np.flatnonzero(self.held.busy()).astype(np.int32)
        return plain_text(self.held.users.values(busy))

    def ids_of_pushed(self) -> pa.Array:
        """The session of every event pushed since the last delta of the buffer (Sessionizer.pushed_session_ids)."""
        buffer, log = self._buffer, self._buffer.log
        if log is None:
            raise ValueError(UNTRACKED)
        return ids_of_pushed(
            self.held, self._folder, self._emitter, buffer.order, log, watermark_ms=buffer.watermark_ms
        )

    def cut(self, settled: SettledRows) -> tuple[CutRows, pa.Array]:
        """Settled events cut into sessions and the id of each session; changes nothing."""
        done = self._folder.cut(settled)
        return done, ids_of(done.sessions, self._emitter)
