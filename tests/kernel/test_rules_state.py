"""What a Sessionizer remembers for the rules that compare events: nothing where they are off, nothing too long."""

import random
from typing import Any

import pyarrow as pa
import pytest

from sessionize import GapBy, Policy, Rules, Sessionizer
from sessionize.errors import ConfigError, StateError
from sessionize.testing.comparison import events_table, expected_sessions, sorted_rows

BY_SOURCE = Rules(split_on_change=frozenset({"source"}))


def test_the_state_of_other_rules_has_nothing_of_these() -> None:
    """So a checkpoint of a version before opens, and that version opens one of this."""
    core = Sessionizer(Policy(), track_changes=True)
    core.push(events_table([{"user": "a", "time": 0, "page": "x"}, {"user": "a", "time": 99_999, "page": "y"}]))
    core.advance(50_000)
    changes = core.changes()
    assert set(changes.tables) == {"users", "pending"}
    assert {"reach", "gap"}.isdisjoint(changes.users.column_names + changes.pending.column_names)
    assert not any(name.startswith("split") for name in changes.users.column_names + changes.pending.column_names)
    header = dict(changes.header)
    assert set(header["policy"]) == {"gap_ms", "gap_boundary", "max_duration_ms", "max_duration_mode", "session_ids"}
    header["counts"] = {name: count for name, count in header["counts"].items() if name != "short_sessions"}
    tables = {"users": changes.users, "pending": changes.pending}
    again = Sessionizer.restore_tables(header, tables, Policy())
    assert sorted_rows(again.flush()) == sorted_rows(core.flush())


@pytest.mark.parametrize(
    ("policy", "rules", "says"),
    [
        (Policy(day_start="UTC"), BY_SOURCE, "rules.day_start: none there, UTC here"),
        (Policy(gap_by=GapBy(field="source")), BY_SOURCE, "rules.gap_by: none there, gap from source"),
        (Policy(max_events=9), BY_SOURCE, "rules.max_events: none there, 9 here"),
        (Policy(duplicates="id"), BY_SOURCE, "rules.duplicates: user_time_id there, id here"),
        (Policy(min_events=2), BY_SOURCE, "rules.min_events: 1 there, 2 here"),
        (Policy(), Rules(), "rules.split_on_change: source there, none here"),
    ],
)
def test_the_state_of_one_rule_is_not_that_of_another(policy: Policy, rules: Rules, says: str) -> None:
    data = Sessionizer(Policy(), rules=BY_SOURCE).snapshot()
    with pytest.raises(StateError) as refused:
        Sessionizer.restore(data, policy, rules=rules)
    assert says in str(refused.value.detail)


def test_a_user_is_forgotten_when_the_own_gaps_have_passed() -> None:
    core = Sessionizer(Policy(gap_ms=10, gap_by=GapBy(field="app", gaps=(("tv", 100),))))
    rows = [{"user": "a", "time": 0, "app": "tv"}, {"user": "a", "time": 5, "app": None}, {"user": "b", "time": 5}]
    core.push(events_table(rows))
    assert [core.advance(at).num_rows for at in (15, 16, 100, 101)] == [0, 1, 0, 1]
    assert core.open_sessions == 0


def test_values_that_no_session_holds_are_forgotten() -> None:
    """Many values: their numbers are given out again, and sessions stay those of the reference."""
    drawn = random.Random(3)
    rows: list[dict[str, Any]] = [
        {"user": f"u{drawn.randrange(9)}", "time": 10 * at, "source": f"s{at // 3}" if at % 4 else None}
        for at in range(900)
    ]
    policy = Policy(gap_ms=100)
    core = Sessionizer(policy, rules=BY_SOURCE)
    held = core._processor.sessions.held
    made: list[Any] = []
    for start in range(0, len(rows), 50):
        held.names_limit = 1  # tidied up at each step
        core.push(events_table(rows[start : start + 50]))
        made += sorted_rows(core.advance(rows[start]["time"]))
        assert len(held.value_names) < 200
    made += sorted_rows(core.flush())
    key = "session_id"
    assert sorted(made, key=lambda row: row[key]) == sorted(
        expected_sessions(rows, policy, BY_SOURCE), key=lambda row: row[key]
    )


def test_events_without_the_field_are_refused_before_any_is_taken() -> None:
    core = Sessionizer(Policy(), rules=BY_SOURCE)
    with pytest.raises(ConfigError, match="split_on_change needs a field"):
        core.push(pa.table({"user": ["a"], "event_time_ms": [0]}))
    assert core.counts.consumed == 0
    assert (
        core.push(pa.table({"user": pa.array([], pa.string()), "event_time_ms": pa.array([], pa.int64())})).num_rows
        == 0
    )
