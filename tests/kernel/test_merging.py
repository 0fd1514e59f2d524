"""Deltas of tables add up by their rules, whatever was merged before: merging merges is merging everything."""

from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize import StateError
from sessionize.kernel.changes import Changes, merge_changes
from sessionize.kernel.operator import Append, StateDelta, TableDelta, Upsert

NAMES = ["row", "row_max", "0", "1", "key", "time"]
values = {pa.int64(): st.one_of(st.none(), st.integers(0, 2)), pa.string(): st.sampled_from([None, "", "a", "b"])}


def changes(table: TableDelta, *, whole: bool = False) -> Changes:
    return Changes({"x": StateDelta(header={}, tables={"t": table}, whole=whole)})


def table_of(merged: Changes) -> TableDelta:
    return merged.deltas["x"].tables["t"]


def content(merged: Changes) -> Any:
    """What a merge says, in no order: rows and removed keys, without columns that are null throughout, and the rule."""
    table = table_of(merged)
    parts = [Counter[Any](), Counter[Any]()]
    for part, rows in zip(parts, (table.rows, table.removed), strict=True):
        for row in [] if rows is None else rows.to_pylist():
            part[frozenset((name, value) for name, value in row.items() if value is not None)] += 1
    return parts, table.merge, merged.deltas["x"].whole


@st.composite
def upserts(draw: st.DrawFn) -> list[Changes]:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    types = {name: draw(st.sampled_from(list(values))) for name in names}
    parts = []
    for number in range(draw(st.integers(1, 6))):
        key = st.tuples(*(values[kind] for kind in types.values()))
        keys = draw(st.lists(key, max_size=5, unique=True))
        split = draw(st.integers(0, len(keys)))
        rows, removed = keys[:split], keys[split:]
        columns = [
            {n: pa.array([k[i] for k in some], types[n]) for i, n in enumerate(names)} for some in (rows, removed)
        ]
        if draw(st.booleans()):
            kind = draw(st.sampled_from([pa.null(), pa.int64()]))
            columns[0]["value"] = pa.array([None if pa.types.is_null(kind) else number] * len(rows), kind)
        none = not removed and draw(st.booleans())
        merge = Upsert(tuple(names))
        delta = TableDelta(rows=pa.table(columns[0]), merge=merge, removed=None if none else pa.table(columns[1]))
        parts.append(changes(delta, whole=draw(st.sampled_from([False, False, False, True]))))
    return parts


@st.composite
def appends(draw: st.DrawFn) -> list[Changes]:
    time = draw(st.sampled_from(["time", "row", None]))
    parts = []
    for number in range(draw(st.integers(1, 6))):
        columns = {}
        if time is not None:
            times = draw(st.lists(st.integers(0, 9), max_size=4))
            columns[time] = pa.array(times, pa.int64())
            until = draw(st.one_of(st.none(), st.integers(0, 9)))
        else:
            times, until = [number], None
        if draw(st.booleans()):
            kind = draw(st.sampled_from([pa.null(), pa.string()]))
            columns["value"] = pa.array([None if pa.types.is_null(kind) else str(number)] * len(times), kind)
        merge = Append(time, until, draw(st.sampled_from([False, False, False, True])))
        rows = pa.table(columns) if times else pa.table({})
        parts.append(changes(TableDelta(rows=rows, merge=merge), whole=draw(st.sampled_from([False, False, True]))))
    return parts


@given(st.one_of(upserts(), appends()), st.booleans(), st.data())
def test_merging_merges_is_merging_everything(parts: list[Changes], whole: bool, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(parts) - 1), label="from")
    last = data.draw(st.integers(first + 1, len(parts)), label="to")
    some = merge_changes(parts[first:last], whole=whole and first == 0)
    merged = merge_changes([*parts[:first], some, *parts[last:]], whole=whole)
    assert content(merged) == content(merge_changes(parts, whole=whole))


def test_rows_that_have_left_do_not_come_back() -> None:
    """A delta that names no time, or an earlier one, says nothing about the rows of before."""
    deltas = [([1, 5], None), ([6], 4), ([7], None), ([3], 2)]
    parts = [changes(TableDelta(rows=pa.table({"t": times}), merge=Append("t", until))) for times, until in deltas]
    stepwise = parts[0]
    for part in parts[1:]:
        stepwise = merge_changes([stepwise, part])
    for merged in (merge_changes(parts), stepwise):
        assert table_of(merged).rows["t"].to_pylist() == [5, 6, 7]
        assert table_of(merged).merge == Append("t", 4)


def test_what_was_cleared_begins_anew() -> None:
    parts = [
        changes(TableDelta(rows=pa.table({"t": [9]}), merge=Append("t", 8))),
        changes(TableDelta(rows=pa.table({"t": [1, 3]}), merge=Append("t", 2, cleared=True))),
    ]
    assert table_of(merge_changes(parts)).rows["t"].to_pylist() == [3]
    assert table_of(merge_changes(parts)).merge == Append("t", 2, cleared=True)


@pytest.mark.parametrize("name", ["row", "row_max", "0"])
def test_a_key_may_have_any_name(name: str) -> None:
    parts = [
        changes(TableDelta(rows=pa.table({name: [1, 2], "v": [value] * 2}), merge=Upsert((name,)))) for value in "ab"
    ]
    assert table_of(merge_changes(parts)).rows.to_pylist() == [{name: 1, "v": "b"}, {name: 2, "v": "b"}]


def test_changes_that_do_not_fit_together_are_named() -> None:
    parts = [changes(TableDelta(rows=pa.table({"v": rows}), merge=Append())) for rows in ([1.5], ["x"])]
    with pytest.raises(StateError, match="do not fit together") as caught:
        merge_changes(parts)
    assert "operator x" in caught.value.detail
    other = Changes({"x": StateDelta(header={}, tables={"other": TableDelta(rows=pa.table({}), merge=Append())})})
    with pytest.raises(StateError, match="do not fit together"):
        merge_changes([parts[0], other])
    both = {**parts[0].deltas["x"].tables, "other": TableDelta(rows=pa.table({}), merge=Append())}
    two = Changes({"x": StateDelta(header={}, tables=both)})
    with pytest.raises(StateError, match="do not fit together"):
        merge_changes([two, parts[0]])  # nothing says that the rows of the other table have left
    named = merge_changes([two, parts[0]], only=())
    assert dict(named.deltas["x"].tables) == {}
