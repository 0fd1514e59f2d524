"""The streaming engine as a whole: sessions of the on-time events, late ones set aside, the books balanced."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize import Policy, Rules
from sessionize.engine.batch.generated import run_generated
from sessionize.engine.batch.outputs import Outputs
from sessionize.ports import EventBatch
from sessionize.session import columns as col
from sessionize.session.definition import SessionDefinition
from sessionize.testing.comparison import events_table, expected_sessions, sorted_rows
from sessionize.testing.oracle import judged
from sessionize.testing.strategies import events, policies, rules


class Batches:
    """A source of the given events, cut into batches."""

    size_bytes = None
    event_columns = frozenset(col.EVENT_TYPES)
    user_name = col.USER

    def __init__(self, rows: list[dict[str, Any]], size: int) -> None:
        self._parts = [rows[at : at + size] for at in range(0, len(rows), size)]

    def batches(self):
        for part in self._parts:
            yield EventBatch(events_table(part), col.REJECTED_SCHEMA.empty_table(), 0)


class Kept:
    """A sink that keeps what was committed."""

    def __init__(self) -> None:
        self._waiting: list[pa.Table] = []
        self.tables: list[pa.Table] = []

    def write(self, rows: pa.Table) -> None:
        self._waiting.append(rows)

    def commit(self) -> None:
        self.tables, self._waiting = self.tables + self._waiting, []

    def abort(self) -> None:
        self._waiting = []

    @property
    def count(self) -> int:
        return sum(table.num_rows for table in self.tables)


@given(events(), policies(), rules(), st.integers(0, 80), st.integers(1, 12))
def test_sessions_of_the_on_time_events(
    rows: list[dict[str, Any]], policy: Policy, rule: Rules, lateness: int, size: int
):
    sessions, archive, late = Kept(), Kept(), Kept()
    outputs = Outputs(sessions=sessions, events=archive, late=late)
    accounting = run_generated(
        Batches(rows, size), outputs, SessionDefinition(policy=policy, rules=rule), lateness_ms=lateness
    )
    kept, _ = judged(rows, lateness)
    end = max((row["time"] for row in rows), default=0)
    made = [row for table in sessions.tables for row in sorted_rows(table)]
    order = ("user", "session_start_time_ms", "session_end_time_ms", "session_id")
    expected = expected_sessions(kept, policy, rule, end_ms=end)
    assert sorted(made, key=lambda r: [r[k] for k in order]) == sorted(expected, key=lambda r: [r[k] for k in order])
    assert (archive.count, late.count) == (len(kept), len(rows) - len(kept))
    assert accounting.balanced
    assert accounting.late == late.count
    assert accounting.pending == 0


def test_a_failing_commit_aborts_what_has_not_been_committed():
    class Failing(Kept):
        def commit(self) -> None:
            raise OSError("the disk is gone")

    sessions, archive = Kept(), Failing()
    outputs = Outputs(sessions=sessions, events=archive)
    with pytest.raises(OSError, match="the disk is gone"):
        run_generated(
            Batches([{"user": "a", "time": 1}], 1), outputs, SessionDefinition(policy=Policy()), lateness_ms=0
        )
    assert sessions.tables == []
    assert sessions._waiting == []
