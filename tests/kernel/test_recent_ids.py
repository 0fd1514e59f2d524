"""What a Sessionizer remembers of ids that came: long enough to tell a retry, and no longer."""

from typing import Any

import pytest

from sessionize import Policy, Sessionizer
from sessionize.errors import ConfigError
from sessionize.kernel import sessionizer_state
from sessionize.kernel.changes import merge_changes
from sessionize.kernel.duplicates import recent_ids
from sessionize.testing.comparison import events_table, expected_sessions, sorted_rows

BY_ID = Policy(gap_ms=10, max_duration_ms=None, duplicates="id", duplicates_within_ms=1_000)


def event(time: int, name: str | None = "x", user: str = "a", page: str | None = None) -> dict[str, Any]:
    return {"user": user, "time": time, "id": name, "page": page}


def pushed(core: Sessionizer, *rows: dict[str, Any]) -> Sessionizer:
    assert core.push(events_table(rows)).num_rows == 0
    return core


def resumed(core: Sessionizer, parts: list[Any]) -> Sessionizer:
    parts.append(core.changes())
    whole = merge_changes(parts, whole=True)
    return Sessionizer.restore_tables(whole.header, whole.tables, BY_ID, track_changes=True)


def test_a_retry_is_told_long_after_the_session_and_its_user_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through checkpoints, though the number of the user is given to another one meanwhile."""
    monkeypatch.setattr(sessionizer_state, "USERS_MIN", 0)
    core, parts = Sessionizer(BY_ID, track_changes=True), list[Any]()
    pushed(core, event(0))
    assert core.advance(100).num_rows == 1
    assert core._held.users.find("a") is None
    core = resumed(core, parts)
    pushed(core, event(200, user="b"), event(1_000), event(1_001, "y"))
    core.advance(1_500)
    core = resumed(core, parts)
    assert (core.counts.settled, core.counts.duplicate) == (3, 1)
    pushed(core, event(2_000), event(3_001))  # the second one comes too long after the first, a duplicate itself
    made = sorted_rows(core.flush())
    assert [row["session_start_time_ms"] for row in made] == [3_001]
    assert core.counts.duplicate == 2


def test_what_no_event_can_repeat_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_ids, "IDS_MIN", 8)
    core, parts = Sessionizer(BY_ID, track_changes=True), list[Any]()
    recent = core._processor._buffer.recent
    assert recent is not None
    recent._limit = 8
    for start in range(0, 4_000, 100):
        pushed(core, *(event(start + at, f"{start + at}") for at in range(0, 100, 10)))
        core.advance(start)
        parts = [merge_changes([*parts, core.changes()], whole=True)]
        assert len(recent) <= 2 * (100 + 20) + 8
        ids = parts[0].recent_ids
        assert ids is not None
        assert ids.num_rows <= 101
        assert not start or min(ids["time"].to_pylist()) >= start - 1_000
        assert recent.rows().num_rows == ids.num_rows
    assert core.counts.duplicate == 0


def test_users_and_ids_do_not_run_into_each_other() -> None:
    apart = [(":x", "a"), ("x", "a:"), ("a:x", "1"), ("x", "1:a")]
    core = pushed(Sessionizer(BY_ID), *(event(at, name, user) for at, (name, user) in enumerate(apart)))
    assert core.flush().num_rows == 4
    assert core.counts.duplicate == 0


def test_late_events_take_no_part() -> None:
    core = pushed(Sessionizer(BY_ID), event(50, "y"))
    core.advance(60)
    assert core.push(events_table([event(40), event(70)])).num_rows == 1
    assert [row["event_count"] for row in sorted_rows(core.flush())] == [1, 1]


def test_as_things_stand_a_retry_of_a_settled_event_does_not_count() -> None:
    core = Sessionizer(BY_ID, track_changes=True)
    pushed(core, event(0, page="p"))
    core.advance(5)
    core.changes()
    pushed(core, event(8, page="q"), event(9, "y", page="r"), event(10, "y"), event(5, user="b"))
    before = core.snapshot()
    (row,) = sorted_rows(core.live("a"))
    assert (row["event_count"], row["pages_visited"], row["session_end_time_ms"]) == (2, ["p", "r"], 9)
    assert core.pushed_session_ids().to_pylist() == [None, "a_0", "a_0", "b_5"]
    assert core.snapshot() == before
    only = Sessionizer.restore(before, BY_ID, track_changes=True)
    assert only.advance(9).num_rows == 0  # a step of which nothing counts
    assert only.counts.duplicate == 1


def test_where_nothing_counts_nothing_comes_out() -> None:
    core = Sessionizer(BY_ID, track_changes=True)
    pushed(core, event(0))
    core.advance(500)
    core.changes()
    pushed(core, event(600), event(700))
    assert core.live("a").num_rows == 0
    assert core.pushed_session_ids().to_pylist() == [None, None]
    assert core.flush().num_rows == 0
    assert core.counts.as_dict() | {"consumed": 3, "settled": 1, "duplicate": 2, "pending": 0} == core.counts.as_dict()


def test_ids_outlive_an_end_of_input() -> None:
    core = pushed(Sessionizer(BY_ID), event(100))
    assert core.flush().num_rows == 1
    pushed(core, event(400), event(500, "y"))
    assert [row["session_start_time_ms"] for row in sorted_rows(core.flush())] == [500]


def test_events_without_ids_are_refused_before_any_is_taken() -> None:
    table = events_table([event(0)]).drop_columns(["event_id"])
    core = Sessionizer(BY_ID)
    for take in (core.push, core.cut_bounded):
        with pytest.raises(ConfigError, match="needs the event id"):
            take(table)
    assert core.counts.consumed == 0
    assert core.push(table.slice(0, 0)).num_rows == 0


def test_many_ids_of_many_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a block of rows, and ids of many lengths."""
    monkeypatch.setattr(recent_ids, "BLOCK_ROWS", 64)
    rows = [event(at // 7, f"{at % 401}" * (1 + at % 9), f"u{at % 11}") for at in range(2_000)]
    core = pushed(Sessionizer(BY_ID), *rows)
    made = sorted_rows(core.flush())
    assert made == expected_sessions(rows, BY_ID, core.rules)
    assert core.counts.settled + core.counts.duplicate == len(rows)
