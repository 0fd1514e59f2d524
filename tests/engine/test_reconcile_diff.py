"""Reconciling against the truth: whatever came late, and whenever it was reconciled, the end is a batch over all."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize import Policy, Rules
from sessionize.engine.lateness import MaximumFront
from sessionize.engine.reconcile.diff import diff_sessions, without_excluded
from sessionize.errors import ConfigError
from sessionize.kernel.sessionizer import Sessionizer
from sessionize.ports import Replacement
from sessionize.session import columns as col
from sessionize.session.definition import SessionDefinition
from sessionize.testing.comparison import events_table, expected_sessions, sorted_rows
from sessionize.testing.strategies import events, policies, rules

Rows = Sequence[dict[str, Any]]
HOUR = 3_600_000
MINUTE = 60_000


class Stream:
    """An engine with its tables: sessions as they became final, events and late events as they came."""

    def __init__(self, definition: SessionDefinition, lateness_ms: int) -> None:
        self.definition = definition
        self._lateness_ms = lateness_ms
        self._rule = MaximumFront(lateness_ms)
        self._sessionizer = self._new()
        self._drained_ms: int | None = None
        self.stored = definition.columns.schema().append(pa.field(col.REVISION, pa.int64())).empty_table()
        self.accepted = self.late = events_table([])

    def take(self, rows: Rows) -> None:
        if not rows:
            return
        table = events_table(rows)
        time = table[col.EVENT_TIME].to_numpy()
        late = self._rule.late(time)
        if self._drained_ms is not None:
            late |= time < self._drained_ms
        self.late = _joined(self.late, table.filter(pa.array(late)))
        on_time = table.filter(pa.array(~late))
        self.accepted = _joined(self.accepted, on_time)
        assert not self._sessionizer.push(on_time).num_rows
        if self.watermark_ms is not None:
            self._write(self._sessionizer.advance(self.watermark_ms))

    def drain(self) -> None:
        """The input ends, and may go on another time: what could have joined these sessions is late from now on."""
        self._write(self._sessionizer.flush(self._rule.latest_ms))
        if self._rule.latest_ms is not None:
            self._drained_ms = self._rule.latest_ms + self.definition.policy.longest_silence_ms + 1
            self._write(self._sessionizer.advance(self._drained_ms))

    @property
    def watermark_ms(self) -> int | None:
        latest_ms = self._rule.latest_ms
        reached_ms = None if latest_ms is None else latest_ms - self._lateness_ms
        marks = [mark for mark in (self._drained_ms, reached_ms) if mark is not None]
        return max(marks, default=None)

    @property
    def everything(self) -> pa.Table:
        return _joined(self.accepted, self.late)

    def reconcile(self, horizon_ms: int | None) -> Replacement:
        end_ms = pc.max(self.everything[col.EVENT_TIME]).as_py()
        silent = 0 if end_ms is None else end_ms - self.definition.policy.shortest_silence_ms
        outdated = self.stored.filter(
            pc.and_(
                pc.equal(self.stored[col.END_REASON], "end_of_input"), pc.less(self.stored[col.SESSION_END], silent)
            )
        )
        ends = pa.table({col.USER: outdated[col.USER], col.EVENT_TIME: outdated[col.SESSION_END]})
        triggers = pa.concat_tables([self.late.select(ends.column_names), ends])
        archive = without_excluded(self.everything, self.definition)
        done = diff_sessions(archive, self.stored, triggers, self.definition, horizon_ms=horizon_ms, end_ms=end_ms)
        gone = set(zip(*(done.removed[name].to_pylist() for name in (col.USER, col.SESSION_ID)), strict=True))
        keys = zip(*(self.stored[name].to_pylist() for name in (col.USER, col.SESSION_ID)), strict=True)
        kept = self.stored.filter(pa.array([key not in gone for key in keys], pa.bool_()))
        self.stored = pa.concat_tables([kept, done.added.cast(kept.schema)])
        return done

    def _new(self) -> Sessionizer:
        return Sessionizer(self.definition.policy, rules=self.definition.rules)

    def _write(self, sessions: pa.Table) -> None:
        rows = sessions.cast(self.definition.columns.schema())
        revision = pa.array(np.zeros(rows.num_rows, np.int64))
        self.stored = pa.concat_tables([self.stored, rows.append_column(col.REVISION, revision)])


def _joined(*tables: pa.Table) -> pa.Table:
    """Further fields without a value in some of them have no type there."""
    return pa.concat_tables(tables, promote_options="permissive")


def to_storable(sessions: pa.Table) -> list[Any]:
    return sorted_rows(sessions.drop_columns([col.REVISION]))


def in_order(rows: Sequence[Any]) -> list[Any]:
    return sorted(rows, key=lambda r: (r["user"], r[col.SESSION_START], r[col.SESSION_END], r[col.SESSION_ID]))


@given(
    st.lists(events(max_size=25), min_size=1, max_size=4),
    policies(writes=True),
    rules(),
    st.integers(0, 60),
    st.booleans(),
)
def test_the_end_is_a_batch_over_everything(
    parts: list[list[dict[str, Any]]], policy: Policy, rule: Rules, lateness: int, drains_between: bool
) -> None:
    columns = col.SessionColumns.every(bounces=bool(policy.bounce))
    stream = Stream(SessionDefinition(policy=policy, rules=rule, columns=columns), lateness)
    drains_between &= not policy.numbers_sessions
    for part in parts:
        stream.take(part)
        if drains_between:
            stream.drain()
        stream.reconcile(stream.watermark_ms)
        if stream.watermark_ms is not None:
            assert stream.reconcile(stream.watermark_ms).empty
    stream.drain()
    done = stream.reconcile(None)
    assert not done.waiting.any()
    assert done.incomplete == 0
    rows = [row for part in parts for row in part]
    assert in_order(to_storable(stream.stored)) == in_order(expected_sessions(rows, policy, rule))
    assert stream.reconcile(None).empty


def one_user(*minutes: float, **more: Any) -> list[dict[str, Any]]:
    return [{"user": "u", "time": round(m * MINUTE), **more} for m in minutes]


def test_a_late_event_bridges_two_sessions() -> None:
    stream = Stream(SessionDefinition(policy=Policy()), 0)
    stream.take([*one_user(0, 40), {"user": "other", "time": 5 * HOUR}, *one_user(20)])
    assert stream.stored.num_rows == 2
    done = stream.reconcile(stream.watermark_ms)
    assert done.removed.to_pylist() == [{"user": "u", "session_id": f"u_{t * MINUTE}"} for t in (0, 40)]
    assert done.removed_start_ms.to_pylist() == [0, 40 * MINUTE]
    assert done.added.select([col.SESSION_ID, col.EVENT_COUNT, col.REVISION]).to_pylist() == [
        {col.SESSION_ID: "u_0", col.EVENT_COUNT: 3, col.REVISION: 1}
    ]


def test_revisions_rise_with_each_change_and_start_at_none() -> None:
    stream = Stream(SessionDefinition(policy=Policy()), 0)
    stream.take([*one_user(0), {"user": "other", "time": 9 * HOUR}, *one_user(10, 120)])
    stream.reconcile(stream.watermark_ms)
    stream.take(one_user(20))
    done = stream.reconcile(stream.watermark_ms)
    assert (done.added[col.REVISION].to_pylist(), done.unchanged) == ([2], 1)
    assert sorted(stream.stored[col.REVISION].to_pylist()) == [0, 2]


def test_an_earlier_first_event_shifts_the_pieces_of_two_hours() -> None:
    stream = Stream(SessionDefinition(policy=Policy()), 0)
    stream.take([*one_user(*range(0, 200, 20)), {"user": "other", "time": 9 * HOUR}, *one_user(-20)])
    done = stream.reconcile(stream.watermark_ms)
    assert done.added[col.SESSION_START].to_pylist() == [-20 * MINUTE, 100 * MINUTE]
    assert done.added[col.REVISION].to_pylist() == [1, 1]


def test_a_late_duplicate_changes_nothing() -> None:
    stream = Stream(SessionDefinition(policy=Policy()), 0)
    stream.take([*one_user(0, id="1"), {"user": "other", "time": 9 * HOUR}, *one_user(0, id="1")])
    done = stream.reconcile(stream.watermark_ms)
    assert (done.empty, done.unchanged, done.waiting.tolist()) == (True, 1, [False])


def test_a_late_event_of_an_open_chain_waits() -> None:
    stream = Stream(SessionDefinition(policy=Policy()), 0)
    stream.take(one_user(0, 29, 10))
    done = stream.reconcile(stream.watermark_ms)
    assert (done.empty, done.waiting.tolist()) == (True, [True])
    stream.take([{"user": "other", "time": 29 * MINUTE + Policy().gap_ms}])
    assert stream.reconcile(stream.watermark_ms).waiting.tolist() == [True]
    stream.take([{"user": "other", "time": 29 * MINUTE + Policy().gap_ms + 1}])
    done = stream.reconcile(stream.watermark_ms)
    assert (done.added[col.EVENT_COUNT].to_pylist(), done.waiting.tolist()) == ([3], [False])


@pytest.mark.parametrize("lost", ["whole session", "one event"])
def test_an_archive_with_holes_never_overrules_what_is_stored(lost: str) -> None:
    stream = Stream(SessionDefinition(policy=Policy()), 0)
    stream.take([*one_user(0, 5, 10), {"user": "other", "time": 9 * HOUR}, *one_user(20)])
    kept = 0 if lost == "whole session" else 1
    archive = [*one_user(0, 5)[:kept], {"user": "other", "time": 9 * HOUR}]
    stream.accepted = events_table(archive)
    before = stream.stored
    done = stream.reconcile(stream.watermark_ms)
    if lost == "one event":
        assert (done.empty, done.incomplete, done.waiting.tolist()) == (True, 1, [True])
        assert stream.stored.equals(before)
    assert sum(stream.stored[col.EVENT_COUNT].to_pylist()) >= 3


def test_sessions_without_id_or_start_cannot_be_reconciled() -> None:
    definition = SessionDefinition(policy=Policy(), columns=col.SessionColumns((col.USER, col.SESSION_ID)))
    nothing = events_table([])
    with pytest.raises(ConfigError, match=r"(?s)cannot be reconciled.*session_start_time_ms"):
        diff_sessions(nothing, definition.columns.schema().empty_table(), nothing, definition, horizon_ms=None)


def test_nothing_comes_of_nothing() -> None:
    definition = SessionDefinition(policy=Policy())
    nothing = events_table([])
    done = diff_sessions(nothing, definition.columns.schema().empty_table(), nothing, definition, horizon_ms=0)
    assert (done.empty, done.unchanged, len(done.waiting)) == (True, 0, 0)
