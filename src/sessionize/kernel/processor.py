"""A reorder buffer and the operators that it feeds: one push, one watermark, and final rows by table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sessionize.errors import ConfigError, StateError
from sessionize.kernel.change_log import PushLog
from sessionize.kernel.changes import EVENTS, PENDING, RECENT_IDS, Changes
from sessionize.kernel.counts import Counts
from sessionize.kernel.operator import Append, Operator, StateDelta, TableDelta
from sessionize.kernel.reorder import EventTimeBuffer, SettledEvents, SettledRows
from sessionize.kernel.session_operator import UNTRACKED, SessionOperator
from sessionize.kernel.snapshot import has_other_types, load_pending, pending_rows
from sessionize.kernel.state_forms import Forms, forms_after
from sessionize.kernel.validation import whole_ms
from sessionize.session import columns as col
from sessionize.session.definition import SessionDefinition
from sessionize.session.output_tables import ENGINE_TABLES


class EventProcessor:
    """Events in, rows of tables out, incrementally. Not thread-safe: one per shard of users.

    definition: the sessions that are made. operators: what is made beside them, each with a name and tables of its own.
    track_changes: keep account of what `changes` will ask for. Errors: ConfigError for operators that do not fit
    together, that ask for columns no event can have, or that claim a table which the engine fills.

    sessions: the operator that makes the sessions. dropped: operators that a restored state has and this one has not.
    """

    def __init__(
        self, definition: SessionDefinition, operators: Sequence[Operator] = (), *, track_changes: bool = False
    ) -> None:
        self.definition = definition
        self._buffer = EventTimeBuffer(
            policy=definition.policy,
            rules=definition.rules,
            columns=definition.columns,
            payload=_asked_for(operators),
            log=PushLog() if track_changes else None,
        )
        self.sessions = SessionOperator(definition, self._buffer)
        self._operators: list[Operator] = [self.sessions, *operators]
        self.dropped: tuple[str, ...] = ()
        self._begun: frozenset[str] = frozenset()  # of which a delta was taken, or a state restored
        self._forms: dict[str, Forms] = {}  # of the states of operators, as far as they have begun
        _check_apart([EVENTS, *(each.name for each in self._operators)], "operators", "name")
        _check_apart([table for each in self._operators for table in each.tables], "operators", "table")
        _check_free(operators)

    @property
    def further(self) -> tuple[str, ...]:
        """The names of the operators beside the sessions."""
        return tuple(each.name for each in self._operators if each is not self.sessions)

    @property
    def names(self) -> frozenset[str]:
        """Of what a state has to have something: the buffer and the operators."""
        return frozenset((EVENTS, *(each.name for each in self._operators)))

    @property
    def watermark_ms(self) -> int | None:
        """Events before it are late; None before the first one."""
        return self._buffer.watermark_ms

    @property
    def latest_ms(self) -> int | None:
        """The time of the latest event that was pushed, None before the first one."""
        return self._buffer.latest_ms

    @property
    def counts(self) -> Counts:
        """What became of the events so far: a copy, which stays as it is when more are pushed."""
        return self._buffer.counted()

    @property
    def holds_state(self) -> bool:
        """Whether rows may still come out without a further event: of pending ones, or of what an operator holds."""
        return self.counts.pending > 0 or any(each.holds_state for each in self._operators)

    def push(self, events: pa.Table | pa.RecordBatch) -> pa.Table:
        """Take in events and hand back those below the watermark, which are late and take no part.

        Errors: InputError, and then nothing was taken in.
        """
        late = self._buffer.push(events)
        self.sessions.held.reserve()
        return late

    def advance(self, watermark_ms: int) -> dict[str, pa.Table]:
        """Move the watermark and return the rows that became final, by table: always the sessions, and others that have
        some. A watermark below the present one changes nothing. Errors: InputError for one that is no whole number.
        """
        watermark_ms, before_ms = whole_ms(watermark_ms, "watermark_ms"), self.watermark_ms
        if before_ms is not None and watermark_ms <= before_ms:
            return {self.sessions.tables[0]: self.sessions.empty()}
        self._buffer.watermark_ms = watermark_ms
        return self._given(self._buffer.settle_before(watermark_ms), lambda each: each.advance(watermark_ms))

    def flush(self, end_ms: int | None = None) -> dict[str, pa.Table]:
        """Bounded input is over: settle what is pending, and let every operator give what it has left.

        end_ms: when the whole input ended; default the latest event seen. Errors: InputError for an end that is no
        whole number.
        """
        end_ms = whole_ms(end_ms, "end_ms") if end_ms is not None else self.latest_ms
        return self._given(self._buffer.settle_all(), lambda each: each.flush(end_ms))

    def _given(
        self, settled: SettledRows | None, ask: Callable[[Operator], Mapping[str, pa.Table]]
    ) -> dict[str, pa.Table]:
        if settled is not None:
            events = SettledEvents(settled, self._buffer)
            for each in self._operators:
                each.take(events)
        made: dict[str, pa.Table] = {}
        for each in self._operators:
            for name, rows in ask(each).items():
                if name not in each.tables:
                    raise ValueError(f"operator {each.name} gave rows of a table it does not have: {name}")
                if each is self.sessions or rows.num_rows:
                    made[name] = rows
        return made

    # ---- state ----

    def changes(self) -> Changes:
        """What has changed since the last call, since the beginning, or since the restore; costs what changed.

        Errors: ValueError without track_changes; StateError where the delta of an operator does not fit to its state.
        """
        deltas = {EVENTS: self._buffer_delta(), **{each.name: each.delta() for each in self._operators}}
        begun, self._begun = self._begun, frozenset(deltas)
        deltas = {name: delta if name in begun else replace(delta, whole=True) for name, delta in deltas.items()}
        for name in (each.name for each in self._operators):
            before = None if deltas[name].whole else self._forms.get(name)
            self._forms[name] = forms_after(name, deltas[name], before)
        return Changes(deltas)

    def _buffer_delta(self) -> StateDelta:
        buffer = self._buffer
        if buffer.log is None:
            raise ValueError(UNTRACKED)
        held, whole = self.sessions.held, EVENTS not in self._begun
        waiting = held.pending.of_slots(None) if whole else buffer.log.waiting(buffer.watermark_ms)
        merge = Append("time", buffer.watermark_ms, cleared=buffer.log.clear())
        tables = {PENDING: TableDelta(rows=pending_rows(held, waiting), merge=merge)}
        if (recent := buffer.recent) is not None:
            rows, leaves = recent.changes(whole=whole), Append("time", recent.until_ms)
            tables[RECENT_IDS] = TableDelta(rows=rows, merge=leaves)
        return StateDelta(header=self.describe(), tables=tables)

    @property
    def recent_ids(self) -> pa.Table | None:
        """The ids that are remembered; None where only events of one time are duplicates."""
        return None if self._buffer.recent is None else self._buffer.recent.rows()

    def describe(self) -> dict[str, object]:
        """How the buffer stands, as JSON-able values."""
        return {
            "watermark_ms": self.watermark_ms,
            "latest_ms": self.latest_ms,
            "counts": self.counts.as_dict(),
        }

    @classmethod
    def restore(
        cls,
        state: Changes,
        definition: SessionDefinition,
        operators: Sequence[Operator] = (),
        *,
        track_changes: bool = False,
    ) -> "EventProcessor":
        """Go on from a whole state. An operator that it does not have begins with nothing, at the state's watermark.

        Errors: StateError when the state was made by another definition, or does not hold what its header says.
        """
        header = state.deltas[EVENTS].header
        made = cls(definition, operators, track_changes=track_changes)
        buffer, pending = made._buffer, Counts(**header["counts"]).pending
        made.sessions.nothing_waits = pending == 0
        for each in made._operators:
            if each.name in state.deltas:
                each.restore(state.deltas[each.name])
                made._forms[each.name] = forms_after(each.name, state.deltas[each.name], None)
        if state.pending.num_rows != pending:
            raise StateError(
                "the state does not add up", detail=f"{state.pending.num_rows} pending events of {pending} are there"
            )
        carried = {name: buffer.payload[name] for name in buffer.carried}
        load_pending(made.sessions.held, state.pending, carried, buffer.coded)
        buffer.watermark_ms, buffer.latest_ms = header["watermark_ms"], header["latest_ms"]
        if buffer.recent is not None:
            buffer.recent.load(pa.table({}) if state.recent_ids is None else state.recent_ids)
            if buffer.watermark_ms is not None:
                buffer.recent.forget(buffer.watermark_ms)
        buffer.counts = Counts(**{**header["counts"], "pending": 0})
        names = made.names
        # events that an operator of before had in another type are no base for those to come: they are written anew
        anew = {EVENTS} if has_other_types(state.pending, carried) else set()
        if buffer.recent is not None and state.recent_ids is None:
            anew.add(EVENTS)
        if made.sessions.has_other_columns:
            anew.add(made.sessions.name)
        made._begun = (names & frozenset(state.deltas)) - anew
        made.dropped = tuple(name for name in state.deltas if name not in names)
        return made

    # ---- for the sessions of bounded input ----

    def bounded(self, events: pa.Table) -> tuple[SettledRows, npt.NDArray[np.int64]] | None:
        """EventTimeBuffer.bounded, ready to be cut."""
        found = self._buffer.bounded(events)
        self.sessions.held.reserve()
        return found


def _asked_for(operators: Sequence[Operator]) -> dict[str, pa.DataType]:
    """All columns that operators ask for. Errors: ConfigError where two want one in different types."""
    asked: dict[str, pa.DataType] = {}
    for each in operators:
        for name, kind in each.columns.items():
            if asked.setdefault(name, kind) != kind:
                raise ConfigError(
                    "two operators ask for one column in different types",
                    detail=f"{name!r} as {asked[name]} and {kind}",
                )
    return {name: kind for name, kind in asked.items() if name not in (col.USER, col.EVENT_TIME)}


def _check_free(operators: Sequence[Operator]) -> None:
    """Errors: ConfigError where an operator claims a table that the engine fills."""
    taken = {spec.name for spec in ENGINE_TABLES}
    for each in operators:
        for table in each.tables:
            if table in taken:
                raise ConfigError(
                    "an operator claims a table that the engine fills",
                    detail=f"operator {each.name}, table {table}",
                    hint="give the operator's table another name",
                )


def _check_apart(names: list[str], what: str, kind: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"two {what} have the same {kind}", detail=", ".join(twice))
