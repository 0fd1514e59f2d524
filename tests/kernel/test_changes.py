"""Base and deltas: whatever is merged of a stream's changes goes on exactly like the stream that was never cut."""

import io
import json
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize import Policy, Rules, Sessionizer, StateError
from sessionize.kernel import sessionizer_state as holdings
from sessionize.kernel.changes import Changes, merge_changes
from sessionize.kernel.operator import TableDelta
from sessionize.kernel.snapshot import dump_tables
from sessionize.testing.comparison import events_table, expected_sessions, sorted_rows
from sessionize.testing.strategies import events, policies, rules

Events = list[dict[str, Any]]
GAP = Policy(gap_ms=10, max_duration_ms=None)


def through_files(changes: Changes) -> Changes:
    """As they come back from JSON and Arrow IPC."""

    def copy(table: pa.Table) -> pa.Table:
        out = io.BytesIO()
        with pa.ipc.new_stream(out, table.schema) as writer:
            writer.write_table(table)
        return pa.ipc.open_stream(out.getvalue()).read_all()

    removed = copy(pa.table({"user": changes.removed}))["user"].combine_chunks()
    header = json.loads(json.dumps(changes.header))
    drained = changes.deltas["events"].tables["pending"].merge.cleared
    header |= {"drained": drained}
    whole = changes.deltas["sessions"].whole
    recent = None if changes.recent_ids is None else copy(changes.recent_ids)
    made = Changes.of_sessions(header, copy(changes.users), removed, copy(changes.pending), recent, whole=whole)
    if recent is None:
        return made
    of_events = made.deltas["events"]
    merge = changes.deltas["events"].tables["recent_ids"].merge
    tables = {**of_events.tables, "recent_ids": TableDelta(rows=recent, merge=merge)}
    return Changes({**made.deltas, "events": replace(of_events, tables=tables)})


def resumed(parts: list[Changes], policy: Policy, rule: Rules | None = None) -> Sessionizer:
    whole = merge_changes(parts, whole=True)
    assert len(whole.removed) == 0
    return Sessionizer.restore_tables(whole.header, whole.tables, policy, rules=rule, track_changes=True)


@contextmanager
def names_tidied_at_once():
    """Codes of users and pages are given back as soon as possible, and given to others."""
    before = holdings.USERS_MIN, holdings.NAMES_MIN
    holdings.USERS_MIN, holdings.NAMES_MIN = 0, 0
    try:
        yield
    finally:
        holdings.USERS_MIN, holdings.NAMES_MIN = before


def plain(core: Sessionizer) -> Any:
    """The state as rows in an order of its own."""
    tables = dump_tables(core._held)
    return {name: sorted(map(repr, table.to_pylist())) for name, table in tables.items()}


def by_user_and_time(rows: list[Any]) -> list[Any]:
    return sorted(
        rows, key=lambda r: (r["user"], r["session_start_time_ms"], r["session_end_time_ms"], r["session_id"])
    )


@given(events(), policies(), rules(), st.booleans(), st.data())
def test_base_and_deltas_go_on_like_the_stream(
    rows: Events, policy: Policy, rule: Rules, tidy: bool, data: st.DataObject
):
    lateness = data.draw(st.sampled_from([0, 3, 40, 1000]), label="lateness")
    delays = data.draw(st.lists(st.integers(0, lateness), min_size=len(rows), max_size=len(rows)), label="delays")
    arriving = [r for _, r in sorted(zip(delays, rows, strict=True), key=lambda p: p[0] + p[1]["time"])]
    core = Sessionizer(policy, rules=rule, track_changes=True)
    core._held.names_limit = 0 if tidy else core._held.names_limit
    parts, made, at, latest = [core.changes()], [], 0, None
    while at < len(arriving):
        size = data.draw(st.integers(1, 12), label="batch")
        batch, at = arriving[at : at + size], at + size
        table = events_table(batch)
        absent = not policy.repeats_ids and all(r["id"] is None for r in batch)
        core.push(table.drop_columns(["event_id"]) if absent else table)
        latest = max([e["time"] for e in batch] + ([] if latest is None else [latest]))
        for action in data.draw(st.lists(st.sampled_from(["advance", "take", "merge", "restart"]), max_size=3)):
            match action:
                case "advance" if tidy:
                    core._held.names_limit = 0  # it rises with each time
                    with names_tidied_at_once():
                        made += sorted_rows(core.advance(latest - lateness))
                case "advance":
                    made += sorted_rows(core.advance(latest - lateness))
                case "take":
                    parts.append(through_files(core.changes()))
                case "merge" if len(parts) > 1:
                    first = data.draw(st.integers(0, len(parts) - 2), label="from")
                    parts[first:] = [merge_changes(parts[first:], whole=first == 0)]
                case "restart":
                    parts.append(core.changes())
                    before = plain(core)
                    core = resumed(parts, policy, rule)
                    core._held.names_limit = 0 if tidy else core._held.names_limit
                    assert plain(core) == before
                    nothing = core.changes()
                    assert nothing.users.num_rows + nothing.pending.num_rows + len(nothing.removed) == 0
    made += sorted_rows(core.flush())
    assert by_user_and_time(made) == by_user_and_time(expected_sessions(rows, policy, rule))
    parts.append(core.changes())
    end = resumed(parts, policy, rule)
    assert plain(end) == plain(core)
    assert end.counts == core.counts
    assert end.open_sessions == 0


def test_names_are_tidied_between_a_push_and_its_checkpoint():
    core = Sessionizer(GAP, track_changes=True)
    core.push(events_table([{"user": "a", "time": 0, "page": "old", "type": "x"}]))
    core.push(events_table([{"user": "b", "time": 90, "page": "new", "type": "y"}]))
    core._held.names_limit = 0
    with names_tidied_at_once():
        core.advance(50)
    assert len(core._held.page_names) == 1
    (waiting,) = core.changes().pending.to_pylist()
    assert (waiting["user"], waiting["page"], waiting["kind"]) == ("b", "new", "y")


def push(core, *pairs, **more):
    return core.push(events_table([{"user": u, "time": t, **more} for u, t in pairs]))


def test_changes_hold_what_changed_and_nothing_else():
    core = Sessionizer(GAP, track_changes=True)
    push(core, ("a", 0), ("b", 1), ("c", 5))
    first = core.changes()
    assert (first.users.num_rows, first.pending["user"].to_pylist(), len(first.removed)) == (0, ["a", "b", "c"], 0)
    core.advance(2)
    second = core.changes()
    assert sorted(second.users["user"].to_pylist()) == ["a", "b"]
    assert (second.pending.num_rows, len(second.removed)) == (0, 0)
    push(core, ("d", 11))
    core.advance(11)
    third = core.changes()
    assert (third.removed.to_pylist(), third.pending["user"].to_pylist()) == (["a"], ["d"])
    assert third.users["user"].to_pylist() == ["c"]
    assert core.changes().users.num_rows == 0


def test_a_user_who_comes_back_is_not_removed():
    core = Sessionizer(GAP, track_changes=True)
    push(core, ("a", 0), ("b", 0))
    core.advance(1)
    core.changes()
    with names_tidied_at_once():
        core.advance(50)  # both names are given back
        push(core, ("a", 60))
        core.advance(61)
    changes = core.changes()
    assert changes.removed.to_pylist() == ["b"]
    assert changes.users["user"].to_pylist() == ["a"]


def test_remembered_users_are_never_removed():
    policy = Policy(gap_ms=10, session_ids="running")
    core = Sessionizer(policy, track_changes=True)
    push(core, ("a", 0))
    core.advance(100)
    changes = core.changes()
    assert (changes.users["number"].to_pylist(), len(changes.removed)) == ([1], 0)
    again = resumed([changes], policy)
    push(again, ("a", 200))
    assert again.flush()["session_id"].to_pylist() == ["a-2"]


def test_what_a_flush_settled_does_not_come_back():
    """A flush leaves the watermark where it is, so the watermark alone would keep the events waiting."""
    core = Sessionizer(GAP, track_changes=True)
    push(core, ("a", 0), ("b", 100))
    parts = [core.changes()]
    core.flush()
    push(core, ("c", 101))
    parts.append(core.changes())
    assert merge_changes(parts, whole=True).pending["user"].to_pylist() == ["c"]
    assert merge_changes([merge_changes(parts), core.changes()], whole=True).pending["user"].to_pylist() == ["c"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.null(), pa.dictionary(pa.int32(), pa.string())])
def test_event_ids_of_any_text_type_wait_together(kind):
    core = Sessionizer(GAP, track_changes=True)
    push(core, ("a", 1), id="1")
    ids = pa.array([None if pa.types.is_null(kind) else "1"], kind)
    core.push(pa.table({"user": ["a"], "event_time_ms": [1], "event_id": ids}))
    core.push(pa.table({"user": ["a"], "event_time_ms": [1]}))
    parts = [core.changes()]
    assert parts[0].pending["id"].type == pa.string()
    count = sum(core.flush()["event_count"].to_pylist())
    assert sum(resumed(parts, GAP).flush()["event_count"].to_pylist()) == count == (3 if pa.types.is_null(kind) else 2)


def test_a_state_that_does_not_add_up_is_refused():
    core = Sessionizer(GAP, track_changes=True)
    push(core, ("a", 0))
    changes = core.changes()
    with pytest.raises(StateError, match="add up"):
        Sessionizer.restore_tables(changes.header, {**changes.tables, "pending": pa.table({})}, GAP)
    with pytest.raises(StateError, match="other policy") as caught:
        Sessionizer.restore_tables(changes.header, changes.tables, Policy(gap_ms=11, max_duration_ms=None))
    assert "drains with the old ones (--once), then starts in a new --home" in str(caught.value)


def test_changes_are_not_tracked_unasked():
    core = Sessionizer(GAP)
    with pytest.raises(ValueError, match="track_changes"):
        core.changes()
    with pytest.raises(ValueError, match="track_changes"):
        core.pushed_session_ids()
