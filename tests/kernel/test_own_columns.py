"""Session columns of one's own: every aggregate and expression equals plain Python over plain rows, on every road."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessionize import Policy, Rules, Sessionizer
from sessionize.engine.accounting import Accounting
from sessionize.engine.batch.options import BatchOptions
from sessionize.engine.batch.sessions import sessions_of
from sessionize.errors import ConfigError, InputError, StateError
from sessionize.kernel.changes import Changes, merge_changes
from sessionize.kernel.distinct_counts import MERGED_ROWS_MIN
from sessionize.kernel.own_columns import OwnAggregates
from sessionize.kernel.processor import EventProcessor
from sessionize.session.columns import SessionColumns
from sessionize.session.definition import SessionDefinition
from sessionize.testing.comparison import events_table, expected_sessions, sorted_rows
from sessionize.testing.own_column_examples import EVERY_KIND, OWN, columns_of
from sessionize.testing.strategies import FURTHER_FIELDS, events, policies, rules, with_further_fields
from tests.kernel.counting import Counts

Events = list[dict[str, Any]]


def by_user_and_time(rows: list[Any]) -> list[Any]:
    keys = ("user", "session_start_time_ms", "session_end_time_ms", "session_id")
    return sorted(rows, key=lambda row: tuple(row[key] for key in keys))


def table_of(rows: Events) -> pa.Table:
    return events_table(rows, FURTHER_FIELDS)


@given(with_further_fields(events(max_size=40)), policies(), rules())
@settings(max_examples=60)
def test_one_push_is_the_reference(rows: Events, policy: Policy, rule: Rules):
    core = Sessionizer(policy, rules=rule, columns=OWN)
    core.push(table_of(rows))
    made = core.flush()
    assert sorted_rows(made) == by_user_and_time(expected_sessions(rows, policy, rule, own=OWN.own))
    assert made.schema.names == OWN.schema().names


@given(with_further_fields(events(max_size=40)), policies(), rules(), st.data())
@settings(max_examples=60)
def test_any_cut_snapshot_and_merge_of_changes(rows: Events, policy: Policy, rule: Rules, data: st.DataObject):
    """Random batches out of order; the watermark moves, snapshots and merged changes restore, live looks."""
    lateness = data.draw(st.sampled_from([0, 3, 40]), label="lateness")
    delays = data.draw(st.lists(st.integers(0, lateness), min_size=len(rows), max_size=len(rows)), label="delays")
    arriving = [r for _, r in sorted(zip(delays, rows, strict=True), key=lambda p: p[0] + p[1]["time"])]
    core, made, at, latest = Sessionizer(policy, rules=rule, columns=OWN, track_changes=True), [], 0, None
    changes: list[Changes] | None = []
    while at < len(arriving):
        batch = arriving[at : at + data.draw(st.integers(1, 12), label="batch")]
        at += len(batch)
        core.push(table_of(batch))
        latest = max([e["time"] for e in batch] + ([] if latest is None else [latest]))
        action = data.draw(
            st.sampled_from(["advance", "advance", "delta", "delta", "merge", "restore", "look"]), label="action"
        )
        if action == "advance":
            made += sorted_rows(core.advance(latest - lateness))
        elif action == "restore":
            core, changes = Sessionizer.restore(core.snapshot(), policy, rules=rule, track_changes=True), None
        elif action == "merge" and changes is not None:
            whole = merge_changes([*changes, core.changes()], whole=True)
            core = Sessionizer.restore_tables(whole.header, whole.tables, policy, rules=rule, track_changes=True)
            changes = [whole]
        elif action == "delta" and changes is not None:
            changes.append(core.changes())
        else:
            before = core.snapshot()
            look = sorted_rows(core.live(batch[0]["user"]))
            assert core.snapshot() == before
            assert all(set(row) >= set(EVERY_KIND) for row in look)
    made += sorted_rows(core.flush())
    assert by_user_and_time(made) == by_user_and_time(expected_sessions(rows, policy, rule, own=OWN.own))


@given(with_further_fields(events(max_size=40)), st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_shards_and_spilling(rows: Events, spill: bool, random: Any):
    shuffled = random.sample(rows, len(rows))
    policy = Policy(gap_ms=10, max_duration_ms=100)
    definition = SessionDefinition(policy=policy, columns=OWN)
    parts = [part for i in range(3) if (part := table_of(shuffled[i::3])).num_rows]
    options = BatchOptions(memory_bytes_max=0 if spill else 1 << 30)
    made = [row for t, _ in sessions_of(parts, definition, Accounting(), options) for row in sorted_rows(t)]
    assert by_user_and_time(made) == by_user_and_time(expected_sessions(rows, policy, Rules(), own=OWN.own))


@given(with_further_fields(events(max_size=40)), policies(), st.data())
@settings(max_examples=30)
def test_live_is_what_a_flush_would_give(rows: Events, policy: Policy, data: st.DataObject):
    core = Sessionizer(policy, columns=OWN)
    core.push(table_of(sorted(rows, key=lambda r: r["time"])))
    if rows:
        core.advance(data.draw(st.sampled_from(rows))["time"])
    looks = {user: sorted_rows(core.live(user)) for user in {r["user"] for r in rows}}
    rest = sorted_rows(core.flush())
    for user, look in looks.items():
        assert [{**r, "end_reason": None} for r in look] == [
            {**r, "end_reason": None} for r in rest if r["user"] == user
        ]


@given(with_further_fields(events(max_size=30)), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_built_in_columns_do_not_depend_on_what_else_is_asked_for(rows: Events, random: Any):
    """Whichever columns a run makes, the same of several events with one id counts, in every order of arrival."""
    policy = Policy(gap_ms=10)
    expected = expected_sessions(rows, policy, Rules())
    shuffled = events_table(random.sample(rows, len(rows)))
    for names in (("has_conversion",), ("revenue",), ("events_by_type",), ("entry_page",), ("pages_visited",)):
        core = Sessionizer(policy, columns=SessionColumns(("user", "session_id", "session_start_time_ms", *names)))
        core.push(shuffled)
        found = {row["session_id"]: row for row in core.flush().cast(core.columns.schema()).to_pylist()}
        for row in expected:
            mine = {n: dict(v) if n == "events_by_type" else v for n, v in found[row["session_id"]].items()}
            assert {n: row[n] for n in names} == {n: mine[n] for n in names}


def test_has_conversion_does_not_depend_on_the_order_of_arrival():
    """One id twice, as a view and as a purchase: the first in the order of rule 1 counts, pages asked for or not."""
    twins = pa.table(
        {
            "user": ["a", "a"],
            "event_time_ms": [1, 1],
            "event_id": ["x", "x"],
            "page": ["1", "2"],
            "event_type": ["view", "purchase"],
        }
    )
    for order, names in [
        (o, n) for o in ([0, 1], [1, 0]) for n in (("user", "has_conversion"), SessionColumns().names)
    ]:
        core = Sessionizer(columns=SessionColumns(names))
        core.push(twins.take(pa.array(order)))
        assert core.flush()["has_conversion"].to_pylist() == [False]


def one_session(events: dict[str, list[Any]], definition: dict[str, Any], fields: dict[str, str]) -> dict[str, Any]:
    n = len(next(iter(events.values())))
    table = pa.table({"user": ["u"] * n, "event_time_ms": list(range(n)), **events})
    core = Sessionizer(columns=columns_of(definition, fields))
    core.push(table)
    (row,) = core.flush().to_pylist()
    return {name: row[name] for name in definition}


def test_sums_are_exact_beyond_64_bits_and_leave_out_what_has_no_room():
    big = 2**62
    found = one_session(
        {"n": [big, big, big, 1], "x": [0.1, 0.2, 1e13, float("inf")], "y": [1e12, 1e12, -1e12, 0.000001]},
        {"n": {"sum": "n"}, "x": {"sum": "x"}, "y": {"sum": "y"}, "xs": {"count": "x"}, "mean_n": {"mean": "n"}},
        {"n": "integer", "x": "number", "y": "number"},
    )
    assert found == {"n": float(3 * big + 1), "x": 0.3, "y": 1e12 + 0.000001, "xs": 3, "mean_n": (3 * big + 1) / 4}


def test_sums_go_on_exactly_over_a_snapshot():
    columns = columns_of({"n": {"sum": "n"}}, {"n": "integer"})
    core = Sessionizer(columns=columns)
    for at in range(6):
        core.push(pa.table({"user": ["u"], "event_time_ms": [at], "n": [2**62 + 1]}))
        core.advance(at + 1)
        core = Sessionizer.restore(core.snapshot())
    assert core.flush()["n"].to_pylist() == [float(6 * (2**62 + 1))]


def test_nothing_to_fold_is_null_and_an_empty_list():
    found = one_session(
        {"x": [None, float("nan")], "s": [None, None]},
        {
            "first": {"first": "s"},
            "min": {"min": "x"},
            "sum": {"sum": "x"},
            "mean": {"mean": "x"},
            "count": {"count": "x"},
            "list": {"distinct": "s"},
            "many": {"count_distinct": "x"},
        },
        {"x": "number", "s": "text"},
    )
    assert found == {"first": None, "min": None, "sum": None, "mean": None, "count": 0, "list": [], "many": 0}


def test_a_list_of_distinct_values_keeps_the_first_ones_and_no_more_state():
    columns = columns_of({"kinds": {"distinct": "s", "limit": 3}}, {"s": "text"})
    core = Sessionizer(columns=columns)
    for at in range(60):
        core.push(
            pa.table({"user": ["u"] * 50, "event_time_ms": [at] * 50, "s": [f"{at:02}-{i:02}" for i in range(50)]})
        )
        core.advance(at + 1)
    (tally,) = core._held.own_tallies.values()
    assert tally.take(core._held.state.live_slots()).code.size == 3
    assert tally._rows <= 60 * 3 + 3 * 3
    assert core.flush()["kinds"].to_pylist() == [["00-00", "00-01", "00-02"]]


def test_names_that_nothing_refers_to_are_forgotten():
    core = Sessionizer(columns=columns_of({"s": {"last": "s"}, "d": {"distinct": "s", "limit": 2}}, {"s": "text"}))
    for at in range(100):
        core.push(pa.table({"user": ["u"], "event_time_ms": [at], "s": [f"text {at}"]}))
        core.advance(at + 1)
    held = core._held.own
    assert isinstance(held, OwnAggregates)
    assert len(held.names) == 100
    core._held.own_names_limit = 1
    core._held.tidy(users=True)
    assert len(held.names) <= 1 + 2 + MERGED_ROWS_MIN  # the tally keeps short runs as they are
    (row,) = core.flush().to_pylist()
    assert (row["s"], row["d"]) == ("text 99", ["text 0", "text 1"])


def test_a_state_of_other_own_columns_is_refused():
    core = Sessionizer(columns=columns_of({"s": {"last": "s"}}, {"s": "text"}), track_changes=True)
    core.push(pa.table({"user": ["u"], "event_time_ms": [1], "s": ["x"]}))
    state = core.changes()
    same = SessionDefinition(policy=core.policy, columns=core.columns)
    assert EventProcessor.restore(state, same).counts.pending == 1
    for other in ({}, {"s": {"first": "s"}}, {"t": {"last": "s"}}, {"s": {"last": "s", "where": "s = 'x'"}}):
        definition = SessionDefinition(policy=core.policy, columns=columns_of(other, {"s": "text"}))
        with pytest.raises(StateError, match="other session columns"):
            EventProcessor.restore(state, definition)


def test_a_state_of_before_that_lacks_the_page_goes_on():
    """Without page columns, pending events had no page before it decided between duplicates; it counts as missing."""
    columns = SessionColumns(("user", "has_conversion"))
    core = Sessionizer(columns=columns, track_changes=True)
    core.push(pa.table({"user": ["a"], "event_time_ms": [1], "event_id": ["x"], "event_type": ["purchase"]}))
    state = core.changes()
    old = state.pending.drop_columns([n for n in ("page", "kind") if n in state.pending.column_names])
    assert old.num_columns < state.pending.num_columns
    core = Sessionizer.restore_tables(state.header, {"users": state.users, "pending": old}, track_changes=True)
    core.push(pa.table({"user": ["a"], "event_time_ms": [1], "event_id": ["x"], "event_type": ["view"], "page": ["p"]}))
    whole = merge_changes(
        [Changes.of_sessions(state.header, state.users, state.removed, old, whole=True), core.changes()]
    )
    for each in (core, Sessionizer.restore_tables(whole.header, whole.tables)):
        assert each.flush()["has_conversion"].to_pylist() == [True]
        assert each.counts.duplicate == 1


def test_operators_beside_them_leave_own_columns_as_they_are():
    """What only an operator asks for decides between simultaneous events after the fields of session columns."""
    definition = SessionDefinition(policy=Policy(), columns=columns_of({"s": {"first": "source"}}))
    twins = pa.table(
        {
            "user": ["a", "a"],
            "event_time_ms": [1, 1],
            "category": ["1", "2"],
            "source": ["z", "y"],
            "event_id": ["x"] * 2,
        }
    )
    for operators in ([], [Counts("category")]):
        for order in ([0, 1], [1, 0]):
            processor = EventProcessor(definition, operators)
            processor.push(twins.take(pa.array(order)))
            assert processor.flush()["user_sessions"]["s"].to_pylist() == ["y"]


def test_numbers_that_are_not_finite_are_missing_between_simultaneous_events_too():
    columns = columns_of({"s": {"first": "source"}, "p": {"count": "price"}})
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        core = Sessionizer(columns=columns)
        prices, sources = [0.0, float("inf"), -0.0, float("nan")], ["c", "b", "a", "d"]
        core.push(
            pa.table({"user": ["a"] * 4, "event_time_ms": [1] * 4, "price": prices, "source": sources}).take(
                pa.array(order)
            )
        )
        (row,) = core.flush().to_pylist()
        assert (row["s"], row["p"]) == ("b", 2)


def test_an_operator_cannot_ask_for_a_field_in_another_type():
    definition = SessionDefinition(policy=Policy(), columns=columns_of({"s": {"sum": "price"}}))
    with pytest.raises(ConfigError, match="different types"):
        EventProcessor(definition, [Counts("price")])


def test_text_of_fields_has_to_be_utf8():
    core = Sessionizer(columns=columns_of({"s": {"first": "source"}}))
    bad = pa.array([b"\xff"]).view(pa.string())
    with pytest.raises(InputError, match="not UTF-8"):
        core.push(pa.table({"user": ["a"], "event_time_ms": [1], "source": bad}))
    assert core.counts.consumed == 0


def test_fields_of_other_types_are_converted_or_missing():
    core = Sessionizer(columns=columns_of({"n": {"sum": "qty"}, "p": {"max": "price"}, "s": {"last": "source"}}))
    core.push(pa.table({"user": ["a"], "event_time_ms": [1], "qty": ["7"], "price": ["x"], "source": [12]}))
    core.push(pa.table({"user": ["a"], "event_time_ms": [2], "qty": pa.array([2**64 - 1], pa.uint64())}))
    (row,) = core.flush().to_pylist()
    assert (row["n"], row["p"], row["s"]) == (7.0, None, "12")
