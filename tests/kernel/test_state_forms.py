"""Whatever deltas fit can be merged, from any one to any other; what does not fit names operator and table."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize import StateError
from sessionize.kernel.changes import Changes, merge_changes
from sessionize.kernel.operator import Append, StateDelta, TableDelta, Upsert
from sessionize.kernel.state_forms import Forms, forms_after

MERGES = [Append(), Append("time", 1), Append("time", 2, cleared=True), Upsert(("time",)), Upsert(("time", "key"))]
KINDS = [pa.int64(), pa.int64(), pa.int64(), pa.float64(), pa.string()]


@st.composite
def tables(draw: st.DrawFn, merges: list[Append | Upsert], kinds: list[pa.DataType]) -> pa.Table:
    def columns() -> pa.Table:
        names = draw(st.lists(st.sampled_from(["time", "key", "value"]), unique=True, min_size=2))
        n = draw(st.integers(0, 2))
        ones = pa.array(["1"] * n, pa.string())
        return pa.table(
            {name: ones.cast(draw(st.sampled_from(kinds))) if draw(some) else pa.nulls(n) for name in names}
        )

    some = st.sampled_from([True, True, False])
    removed = columns().select([]) if draw(st.booleans()) else columns()
    merge = draw(st.sampled_from(merges))
    if isinstance(merge, Upsert) and set(merge.key) <= set(removed.column_names):
        return TableDelta(rows=columns(), merge=merge, removed=removed.select(list(merge.key)))
    return TableDelta(rows=columns(), merge=merge)


def delta(**tables: TableDelta) -> StateDelta:
    return StateDelta(header={}, tables=tables)


@given(st.data())
def test_what_fits_can_be_merged(data: st.DataObject) -> None:
    merges = [data.draw(st.sampled_from(MERGES))] if data.draw(st.booleans()) else MERGES[:3]
    kinds = data.draw(st.sampled_from([KINDS[:1], KINDS]))
    parts, forms = list[Changes](), None
    for table in data.draw(st.lists(tables(merges, kinds), min_size=2, max_size=5)):
        try:
            forms = forms_after("x", delta(t=table), forms)
        except StateError:
            continue
        parts.append(Changes({"x": delta(t=table)}))
    for first in range(len(parts)):
        merged = merge_changes(parts[first:], whole=first == 0)
        forms_after("x", merged.deltas["x"], None)  # and a run that goes on from there knows its form


INTS = TableDelta(rows=pa.table({"k": [1], "v": [2]}), merge=Upsert(("k",)), removed=pa.table({"k": [3]}))


def changed(**more: Any) -> TableDelta:
    return TableDelta(**{"rows": INTS.rows, "merge": INTS.merge, "removed": INTS.removed, **more})


@pytest.mark.parametrize(
    "table",
    [
        changed(rows=pa.table({"k": [1]})),
        changed(rows=pa.table({"k": [1], "v": pa.nulls(1), "more": [0.5]})),
        changed(rows=pa.table({}), removed=None),
    ],
)
def test_columns_may_be_missing_new_or_null(table: TableDelta) -> None:
    forms = forms_after("x", delta(t=table), forms_after("x", delta(t=INTS), None))
    assert forms["t"].rows.field("v").type == pa.int64()  # what is known stays known
    with pytest.raises(StateError):
        forms_after("x", delta(t=changed(rows=pa.table({"k": [1], "v": [0.5]}))), forms)


@pytest.mark.parametrize(
    ("tables", "why"),
    [
        ({"t": changed(rows=pa.table({"k": [1], "v": [0.5]}))}, "its table t"),
        ({"t": changed(removed=pa.table({"k": ["a"]}))}, "its table t"),
        ({"t": changed(rows=pa.table({"k": ["a"]}), removed=None)}, "its table t"),
        ({"t": changed(rows=pa.table({"v": [1]}))}, "lack the column 'k'"),
        ({"t": changed(merge=Upsert(("k", "v")), removed=None)}, "adds up by upsert k v, its state by upsert k"),
        ({"t": TableDelta(rows=INTS.rows, merge=Append())}, "adds up by append, its state by upsert k"),
        ({"t": TableDelta(rows=pa.table({"v": [0.5]}), merge=Append("v"))}, "by which rows leave, is double"),
        ({"t": INTS, "u": INTS}, "its delta has the tables t, u, its state t"),
        ({}, "its delta has the tables none, its state t"),
    ],
)
def test_what_does_not_fit_is_named(tables: dict[str, TableDelta], why: str) -> None:
    before: Forms = forms_after("x", delta(t=INTS), None)
    with pytest.raises(StateError, match="does not fit") as caught:
        forms_after("x", delta(**tables), before)
    assert caught.value.detail.startswith("operator x: ")
    assert why in caught.value.detail
