"""A buffer with sessions and two further operators: all get the same settled events, in whatever course they come."""

from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize import ConfigError, Policy, Rules, Sessionizer, StateError
from sessionize.kernel.changes import Changes, merge_changes
from sessionize.kernel.emit import plain_sessions
from sessionize.kernel.operator import Append, StateDelta, TableDelta, Upsert
from sessionize.kernel.processor import EventProcessor
from sessionize.session.columns import SessionColumns
from sessionize.session.definition import SessionDefinition
from sessionize.testing.comparison import events_table, expected_sessions, sorted_rows
from sessionize.testing.strategies import events, policies, rules
from tests.kernel.counting import Counts, Prices, Seen

Events = list[dict[str, Any]]
GAP = SessionDefinition(policy=Policy(gap_ms=10, max_duration_ms=None))


def with_products(rows: Events) -> pa.Table:
    """A column that sessions do not carry: it hangs on what else the event is, so duplicates agree in it."""
    return events_table(rows).append_column("product", pa.array([product_of(row) for row in rows], pa.string()))


def product_of(row: dict[str, Any]) -> str | None:
    return None if row["time"] % 5 == 0 else f"p{row['time'] % 3}"


def counted(rows: Events, policy: Policy, rule: Rules, window_ms: int) -> Counter[Any]:
    """By a plain group-by, over what is neither excluded nor a duplicate."""
    last, counts = dict[Any, int](), Counter[Any]()
    within_ms = policy.duplicates_within_ms if policy.repeats_ids else 0
    for row in sorted(rows, key=lambda row: row["time"]):
        if row.get("type") in rule.excluded_events:
            continue
        key = (row["user"], row["id"])
        before, last[key] = last.get(key), row["time"]
        if row["id"] is None or before is None or row["time"] - before > within_ms:
            counts[row["time"] // window_ms * window_ms, row["user"], product_of(row)] += 1
    return counts


class Course:
    """A processor that is restarted from merged changes now and then, and what came out of it."""

    def __init__(self, definition: SessionDefinition) -> None:
        self.definition = definition
        self.processor = EventProcessor(definition, [Counts(), Seen()], track_changes=True)
        self.parts = [self.processor.changes()]
        self.made: dict[str, list[pa.Table]] = {"user_sessions": [], "event_counts": [], "seen_events": []}

    def note(self, made: dict[str, pa.Table]) -> None:
        for name, rows in made.items():
            self.made[name].append(rows)

    def restart(self) -> None:
        self.parts.append(self.processor.changes())
        whole = merge_changes(self.parts, whole=True)
        operators = [Counts(), Seen()]
        self.processor = EventProcessor.restore(whole, self.definition, operators, track_changes=True)
        assert self.processor.dropped == ()

    def rows(self, name: str) -> list[dict[str, Any]]:
        return [row for table in self.made[name] for row in table.to_pylist()]


@given(events(), policies(), rules(), st.data())
def test_any_order_cut_and_restart_gives_what_a_group_by_gives(
    rows: Events, policy: Policy, rule: Rules, data: st.DataObject
):
    lateness = data.draw(st.sampled_from([0, 3, 40, 1000]), label="lateness")
    delays = data.draw(st.lists(st.integers(0, lateness), min_size=len(rows), max_size=len(rows)), label="delays")
    arriving = [r for _, r in sorted(zip(delays, rows, strict=True), key=lambda p: p[0] + p[1]["time"])]
    course = Course(SessionDefinition(policy=policy, rules=rule))
    at, latest = 0, None
    while at < len(arriving):
        size = data.draw(st.integers(1, 12), label="batch")
        batch, at = arriving[at : at + size], at + size
        assert course.processor.push(with_products(batch)).num_rows == 0
        latest = max([e["time"] for e in batch] + ([] if latest is None else [latest]))
        for action in data.draw(st.lists(st.sampled_from(["advance", "take", "merge", "restart"]), max_size=3)):
            match action:
                case "advance":
                    course.note(course.processor.advance(latest - lateness))
                case "take":
                    course.parts.append(course.processor.changes())
                case "merge" if len(course.parts) > 1:
                    first = data.draw(st.integers(0, len(course.parts) - 2), label="from")
                    course.parts[first:] = [merge_changes(course.parts[first:], whole=first == 0)]
                case "restart":
                    course.restart()
    course.note(course.processor.flush())
    sessions = [row for table in course.made["user_sessions"] for row in sorted_rows(table)]
    by = lambda row: (row["user"], row["session_start_time_ms"], row["session_end_time_ms"], row["session_id"])  # noqa: E731
    assert sorted(sessions, key=by) == sorted(expected_sessions(rows, policy, rule), key=by)
    expected = counted(rows, policy, rule, window_ms=10)
    found = course.rows("event_counts")
    assert {(r["window_start_ms"], r["user"], r["product"]): r["count"] for r in found} == expected
    assert len(found) == len(expected)
    assert len(course.rows("seen_events")) == expected.total() == course.processor.counts.settled
    course.parts.append(course.processor.changes())
    end = merge_changes(course.parts, whole=True)
    assert end.deltas["counts"].tables["open"].rows.num_rows == 0
    assert end.deltas["seen"].tables["kept"].rows.num_rows == 0


def push(processor: Any, *rows: dict[str, Any]) -> pa.Table:
    return processor.push(pa.Table.from_pylist([{"user": "a", **row} for row in rows]))


def test_duplicates_that_differ_only_for_an_operator_are_told_apart_by_content():
    """Which of them counts hangs on what they hold, not on which came first."""
    twins = [{"event_time_ms": 1, "event_id": "x", "product": product} for product in ("b", "a", None)]
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        processor = EventProcessor(GAP, [Counts()])
        for at in order:
            push(processor, {**twins[at], "product": twins[at]["product"]} | {})
        (row,) = processor.flush()["event_counts"].to_pylist()
        assert (row["product"], row["count"]) == (None, 1)


def test_an_operator_beside_them_leaves_the_sessions_as_they_are():
    """The page decides between duplicates before the type, whether or not a session column or an operator has it."""
    without_pages = SessionDefinition(policy=GAP.policy, columns=SessionColumns(("user", "events_by_type")))
    twins = pa.table(
        {
            "user": ["a", "a"],
            "event_time_ms": [1, 1],
            "event_id": ["x", "x"],
            "page": ["1", "2"],
            "event_type": ["z", "y"],
        }
    )
    made = []
    for operators in ([], [Counts("page")]):
        processor = EventProcessor(without_pages, operators)
        processor.push(twins)
        made.append(processor.flush()["user_sessions"].to_pylist())
    assert made[0] == made[1] == [{"user": "a", "events_by_type": [("z", 1)]}]


@pytest.mark.parametrize("columns", [("user", "event_count"), SessionColumns().names])
@pytest.mark.parametrize("column", ["page", "event_type", "event_id"])
def test_columns_that_sessions_have_as_codes_come_as_text(column, columns):
    processor = EventProcessor(
        SessionDefinition(policy=GAP.policy, columns=SessionColumns(columns)), [Counts(column)], track_changes=True
    )
    push(processor, {"event_time_ms": 1, column: "first"}, {"event_time_ms": 12, column: None})
    push(processor, {"event_time_ms": 2, column: "first"}, {"event_time_ms": 3})
    found = processor.flush()["event_counts"].to_pylist()
    by_window = {(row["window_start_ms"], row[column]): row["count"] for row in found}
    assert by_window == {(0, "first"): 2, (0, None): 1, (10, None): 1}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array(["1", "2"]), ["1", "2"]),
        (pa.array([1, 2]), ["1", "2"]),
        (pa.array(["1", "2"]).dictionary_encode(), ["1", "2"]),
        (pa.array([b"1", b"\xff"], pa.binary()), ["1", None]),
        (pa.array([["1"], ["2"]]), [None, None]),
        (pa.nulls(2), [None, None]),
    ],
)
def test_a_column_of_another_type_is_converted_or_null(values, expected):
    """No record ends a run because of a column that only an operator looks at."""
    processor = EventProcessor(GAP, [Counts()])
    processor.push(pa.table({"user": ["a", "b"], "event_time_ms": [1, 2], "product": values}))
    found = processor.flush()["event_counts"].to_pylist()
    assert [row["product"] for row in sorted(found, key=lambda row: row["user"])] == expected


def test_numbers_that_are_none_are_null():
    processor = EventProcessor(GAP, [Seen()])
    processor.push(pa.table({"user": ["a", "b"], "event_time_ms": [1, 2], "value": pa.array([1, 2])}))
    assert processor.flush()["seen_events"]["value"].to_pylist() == [1.0, 2.0]


def test_a_new_operator_begins_at_the_watermark_and_one_left_out_is_dropped():
    first = EventProcessor(GAP, [Seen()], track_changes=True)
    push(first, {"event_time_ms": 1}, {"event_time_ms": 50})
    first.advance(20)
    parts = [first.changes()]
    whole = merge_changes(parts, whole=True)
    second = EventProcessor.restore(whole, GAP, [Counts()], track_changes=True)
    assert second.dropped == ("seen",)
    push(second, {"event_time_ms": 51, "product": "p"})
    parts.append(second.changes())
    assert set(parts[-1].deltas) == {"events", "sessions", "counts"}
    third = EventProcessor.restore(merge_changes(parts, whole=True), GAP, [Counts()], track_changes=True)
    made = third.flush()
    # the one that was pending when the operator came has no product, as nobody had asked for it
    assert [(r["product"], r["count"]) for r in made["event_counts"].to_pylist()] == [("p", 1), (None, 1)]
    assert made["user_sessions"]["event_count"].to_pylist() == [2]


@pytest.mark.parametrize("packed", [False, True])
def test_an_operator_that_comes_back_does_not_find_its_old_state(packed):
    base = EventProcessor(GAP, [Counts()], track_changes=True)
    push(base, {"event_time_ms": 1, "product": "old"})
    base.advance(5)
    parts = [base.changes()]
    without = EventProcessor.restore(merge_changes(parts, whole=True), GAP, track_changes=True)
    assert without.dropped == ("counts",)
    parts.append(without.changes())
    again = EventProcessor.restore(merge_changes(parts, whole=True), GAP, [Counts()], track_changes=True)
    push(again, {"event_time_ms": 6, "product": "new"})
    again.advance(7)
    parts.append(again.changes())
    if packed:
        parts = [parts[0], merge_changes(parts[1:])]
    last = EventProcessor.restore(merge_changes(parts, whole=True), GAP, [Counts()])
    assert [r["product"] for r in last.flush()["event_counts"].to_pylist()] == ["new"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("between", [0, 1])
def test_a_column_may_change_its_type_with_the_operators_that_ask_for_it(packed: bool, between: int) -> None:
    """Events that are pending are written anew in the new type, so that no later state has both."""
    processor = EventProcessor(GAP, [Prices(pa.float64())], track_changes=True)
    push(processor, {"event_time_ms": 1, "price": 0.5}, {"event_time_ms": 40, "price": 1.5})
    parts = [processor.changes()]
    courses: list[list[Prices]] = [*[[]] * between, [Prices(pa.string())]]
    for operators in courses:
        whole = merge_changes(parts, whole=True)
        processor = EventProcessor.restore(whole, GAP, operators, track_changes=True)
        push(processor, {"event_time_ms": 41, "price": "x"})
        processor.advance(2)
        parts.append(processor.changes())
    push(processor, {"event_time_ms": 42, "price": "y"})
    parts.append(processor.changes())
    if packed:
        parts = [parts[0], merge_changes(parts[1:])]
    again = EventProcessor.restore(merge_changes(parts, whole=True), GAP, [Prices(pa.string())], track_changes=True)
    assert not again.changes().deltas["events"].whole
    prices = again.flush()["prices"]
    assert prices.schema.field("price").type == pa.string()
    expected = ["1.5", *[None] * between, "x", "y"]
    assert (prices["event_time_ms"].to_pylist(), prices["price"].to_pylist()) == (
        [40, *[41] * (between + 1), 42],
        expected,
    )
    assert again.counts.pending == 0


def test_a_snapshot_of_the_sessions_alone_is_refused_beside_other_operators() -> None:
    processor = EventProcessor(GAP, [Counts(), Seen()])
    with pytest.raises(ValueError, match="counts, seen"):
        Sessionizer.over(processor).snapshot()
    assert Sessionizer.over(EventProcessor(GAP)).snapshot()


def test_another_definition_of_an_operator_is_its_own_to_refuse():
    first = EventProcessor(GAP, [Counts(window_ms=10)], track_changes=True)
    whole = merge_changes([first.changes()], whole=True)
    with pytest.raises(StateError, match="other windows"):
        EventProcessor.restore(whole, GAP, [Counts(window_ms=20)])


def test_operators_that_do_not_fit_together_are_refused():
    with pytest.raises(ConfigError, match="same name"):
        EventProcessor(GAP, [Counts(), Counts()])
    with pytest.raises(ConfigError, match="same table"):
        EventProcessor(GAP, [Counts(), Counts(name="others")])
    with pytest.raises(ConfigError, match="no event has"):
        EventProcessor(GAP, [Counts("value")])
    for table in ("events", "late_events", "rejected_events", "enriched_events"):
        with pytest.raises(ConfigError, match="the engine fills") as caught:
            EventProcessor(GAP, [Counts(tables=("event_counts", table))])
        assert caught.value.detail == f"operator counts, table {table}"
    other = Counts("product", name="other", tables=("other",))
    other.columns = {"product": pa.int64()}
    with pytest.raises(ConfigError, match="different types"):
        EventProcessor(GAP, [Counts(), other])


def test_rows_of_a_table_that_was_not_named_are_a_mistake():
    odd = Counts(tables=())
    processor = EventProcessor(GAP, [odd])
    push(processor, {"event_time_ms": 1})
    with pytest.raises(ValueError, match="a table it does not have"):
        processor.flush()


def delta(rows: list[tuple[str, int, int]], gone: list[tuple[str, int]] = []) -> Changes:  # noqa: B006
    keys = {"key": pa.string(), "number": pa.int64()}
    made = pa.table({name: pa.array([r[i] for r in rows], kind) for i, (name, kind) in enumerate(keys.items())})
    made = made.append_column("value", pa.array([r[2] for r in rows], pa.int64()))
    removed = pa.table({name: pa.array([r[i] for r in gone], kind) for i, (name, kind) in enumerate(keys.items())})
    table = TableDelta(rows=made, merge=Upsert(("key", "number")), removed=removed)
    return Changes({"x": StateDelta(header={}, tables={"t": table})})


def test_rows_of_several_keys_are_replaced_and_removed():
    parts = [
        delta([("a", 1, 10), ("a", 2, 20), ("b", 1, 30)]),
        delta([("a", 2, 21)], [("b", 1)]),
        delta([("b", 1, 31)]),
    ]
    merged = merge_changes(parts).deltas["x"].tables["t"]
    found = sorted(zip(*(column.to_pylist() for column in merged.rows.columns), strict=True))
    assert found == [("a", 1, 10), ("a", 2, 21), ("b", 1, 31)]
    assert merged.removed is not None
    assert merged.removed.num_rows == 0
    first = merge_changes(parts[:2]).deltas["x"].tables["t"]
    assert first.removed is not None
    assert first.removed.to_pylist() == [{"key": "b", "number": 1}]


def test_rows_without_a_time_stay():
    def part(*values: int) -> Changes:
        table = TableDelta(rows=pa.table({"v": pa.array(values, pa.int64())}), merge=Append())
        return Changes({"x": StateDelta(header={}, tables={"t": table})})

    merged = merge_changes([part(1), part(), part(2, 3)], whole=True).deltas["x"]
    assert (merged.tables["t"].rows["v"].to_pylist(), merged.whole) == ([1, 2, 3], True)


def test_plain_sessions_have_no_dictionaries():
    core = Sessionizer(GAP.policy)
    core.push(
        pa.table(
            {
                "user": pa.array(["a", "b"]).dictionary_encode(),
                "event_time_ms": [1, 2],
                "page": pa.array(["/", None]).dictionary_encode(),
                "event_type": pa.array(["view", "view"]).dictionary_encode(),
            }
        )
    )
    sessions = core.flush()
    assert any(pa.types.is_dictionary(kind) for kind in sessions.schema.types)
    plain = plain_sessions(sessions)
    assert plain.schema.types == core.columns.schema().types
    assert plain.to_pylist() == sessions.to_pylist()


def test_cut_once_is_the_old_name():
    events = pa.table({"user": ["a"], "event_time_ms": [1]})
    with pytest.warns(DeprecationWarning, match="cut_bounded"):
        assert Sessionizer().cut_once(events) is not None
