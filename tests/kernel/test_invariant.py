"""The invariant: whatever the order of arrival, the batches, the snapshots and the shards, the same sessions."""

from dataclasses import replace
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from sessionize import Policy, Rules, Sessionizer
from sessionize.engine.accounting import Accounting
from sessionize.engine.batch.options import BatchOptions
from sessionize.engine.batch.sessions import sessions_of
from sessionize.engine.lateness import MaximumFront
from sessionize.kernel.labels import label_events
from sessionize.session import columns as col
from sessionize.session.definition import SessionDefinition
from sessionize.testing.comparison import events_table, expected_labels, expected_sessions, sorted_rows
from sessionize.testing.strategies import events, policies, rules

Events = list[dict[str, Any]]


def by_user_and_time(rows: list[Any]) -> list[Any]:
    keys = ("user", "session_start_time_ms", "session_end_time_ms", "session_id")
    return sorted(rows, key=lambda row: tuple(row[key] for key in keys))


def books_balance(core: Sessionizer) -> bool:
    c = core.counts
    return c.consumed == c.settled + c.pending + c.late + c.duplicate + c.excluded


@given(events(), policies(writes=True), rules())
def test_one_push_is_the_reference(rows: Events, policy: Policy, rule: Rules):
    core = Sessionizer(policy, rules=rule)
    core.push(events_table(rows))
    made = core.flush()
    every = expected_sessions(rows, policy, rule, short_too=True)
    assert core.counts.short_sessions == len(every) - made.num_rows
    schema = col.SessionColumns.every(bounces=bool(policy.bounce)).schema()
    assert made.cast(schema).schema == schema
    assert sorted_rows(made) == by_user_and_time(expected_sessions(rows, policy, rule))
    assert books_balance(core)


@given(events(), policies(writes=True), rules(), st.data())
def test_any_arrival_any_batches_any_snapshots(rows: Events, policy: Policy, rule: Rules, data: st.DataObject):
    """Events up to `lateness` out of order, in random batches; the watermark moves, snapshots restore, live looks."""
    lateness = data.draw(st.sampled_from([0, 3, 40, 1000]), label="lateness")
    delays = data.draw(st.lists(st.integers(0, lateness), min_size=len(rows), max_size=len(rows)), label="delays")
    arriving = [r for _, r in sorted(zip(delays, rows, strict=True), key=lambda p: p[0] + p[1]["time"])]
    core, made, at, latest = Sessionizer(policy, rules=rule), [], 0, None
    while at < len(arriving):
        size = data.draw(st.integers(1, 12), label="batch")
        batch, at = arriving[at : at + size], at + size
        assert core.push(events_table(batch)).num_rows == 0
        latest = max([e["time"] for e in batch] + ([] if latest is None else [latest]))
        action = data.draw(st.sampled_from(["advance", "advance", "wait", "restore", "look"]), label="action")
        if action == "advance":
            made += sorted_rows(core.advance(latest - lateness))
        elif action == "restore":
            core = Sessionizer.restore(core.snapshot(), policy, rules=rule)
        elif action == "look":
            before = core.snapshot()
            core.live(batch[0]["user"])
            assert core.snapshot() == before
        assert books_balance(core)
    made += sorted_rows(core.flush())
    assert by_user_and_time(made) == by_user_and_time(expected_sessions(rows, policy, rule))
    assert core.counts.late == 0
    assert core.open_sessions == 0


@given(events(), policies(writes=True), rules(), st.integers(1, 5), st.booleans(), st.randoms(use_true_random=False))
def test_any_shards_and_spilling(rows: Events, policy: Policy, rule: Rules, tables: int, spill: bool, random: Any):
    """The batch engine over shuffled input, in several tables, in memory or over the disk."""
    shuffled = random.sample(rows, len(rows))
    parts = [events_table(shuffled[i::tables]) for i in range(tables)]
    accounting = Accounting()
    columns = col.SessionColumns.every(bounces=bool(policy.bounce))
    definition = SessionDefinition(policy=policy, rules=rule, columns=columns)
    options = BatchOptions(memory_bytes_max=0 if spill else 1 << 30)
    tables_of = [p for p in parts if p.num_rows]
    made = [row for t, _ in sessions_of(tables_of, definition, accounting, options) for row in sorted_rows(t)]
    assert by_user_and_time(made) == by_user_and_time(expected_sessions(rows, policy, rule))
    assert accounting.settled + accounting.duplicate + accounting.excluded == len(rows)
    assert accounting.spilled == (len(rows) if spill else 0)


@given(events(), policies(writes=True), rules(), st.data())
def test_live_is_what_a_flush_would_give(rows: Events, policy: Policy, rule: Rules, data: st.DataObject):
    """Settled in part: the live view of a user equals that user's remaining sessions, the open one without an end."""
    ordered = sorted(rows, key=lambda r: r["time"])
    core = Sessionizer(policy, rules=rule)
    core.push(events_table(ordered))
    if ordered:
        core.advance(data.draw(st.sampled_from(ordered))["time"])
    looks = {user: sorted_rows(core.live(user)) for user in {r["user"] for r in rows}}
    rest = sorted_rows(core.flush())
    for user, look in looks.items():
        mine = [r for r in rest if r["user"] == user]
        long = [r for r in look if policy.keeps(r["event_count"], 1000 * r["session_duration_seconds"])]
        assert [{**r, "end_reason": None} for r in long] == [{**r, "end_reason": None} for r in mine]
        open_ones = [r for r in look if r["end_reason"] is None]
        assert len(open_ones) <= 1
        assert all(r["end_reason"] is not None for r in look[:-1])
    assert core.live("nobody").num_rows == 0


@given(events(), policies(writes=True), rules())
def test_labels_agree_with_sessions(rows: Events, policy: Policy, rule: Rules):
    """Each event that counts is in exactly one session, the one its label names."""
    labels = label_events(events_table(rows), policy, rules=rule)
    ids, again = labels.session_id.to_pylist(), labels.duplicate.tolist()
    assert ids == expected_labels(rows, policy, rule)
    expected = expected_sessions(rows, policy, rule, short_too=True)
    spans = {s["session_id"]: s for s in expected}
    counted = dict.fromkeys(spans, 0)
    for row, session_id, is_again in zip(rows, ids, again, strict=True):
        if row["type"] in rule.excluded_events:
            assert session_id is None
            continue
        session = spans[session_id]
        assert session["user"] == row["user"]
        counted[session_id] += not is_again
        if not (is_again and policy.repeats_ids):  # which may come at another time
            assert session["session_start_time_ms"] <= row["time"] <= session["session_end_time_ms"]
    assert counted == {s["session_id"]: s["event_count"] for s in expected}


@given(events(), policies(writes=True), st.integers(-(10**12), 10**12))
def test_shifting_time_shifts_sessions(rows: Events, policy: Policy, shift: int):
    """Where the clock's zero lies decides nothing; a multiple of the maximum keeps nothing special either.

    But for the start of the day, which is where the calendar has it.
    """
    policy = replace(policy, day_start=None)
    moved = [{**r, "time": r["time"] + shift} for r in rows]
    here = expected_sessions(rows, policy, Rules())
    core = Sessionizer(policy)
    core.push(events_table(moved))
    there = sorted_rows(core.flush())
    assert [
        (s["session_start_time_ms"] + shift, s["event_count"], s["end_reason"]) for s in by_user_and_time(here)
    ] == [(s["session_start_time_ms"], s["event_count"], s["end_reason"]) for s in by_user_and_time(there)]


@given(events(), st.integers(0, 50), st.data())
def test_late_depends_on_the_data_alone(rows: Events, lateness: int, data: st.DataObject):
    """Rule 8: late is below the maximum before it minus the lateness, however the stream is cut into batches."""
    times = events_table(rows)["event_time_ms"].to_numpy()
    expected, latest = [], None
    for time in times.tolist():
        expected.append(latest is not None and time < latest - lateness)
        latest = time if latest is None else max(latest, time)
    rule, found, at = MaximumFront(lateness), [], 0
    while at < len(times):
        size = data.draw(st.integers(1, 9))
        found += rule.late(times[at : at + size]).tolist()
        at += size
    assert found == expected


def test_concatenated_tables_have_one_schema():
    """Dictionary-encoded and plain text columns may mix between results; a cast makes them one."""
    core = Sessionizer(Policy(gap_ms=1))
    core.push(events_table([{"user": "a", "time": 0}, {"user": "b", "time": 50}]))
    first = core.advance(40)
    second = core.flush()
    schema = col.SessionColumns().schema()
    assert pa.concat_tables([first.cast(schema), second.cast(schema)]).num_rows == 2
