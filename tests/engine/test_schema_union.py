"""Further fields that change their type from batch to batch: one epoch, one schema, and nothing fails or is lost."""

import datetime as dt
import decimal
from typing import Any

import pyarrow as pa
import pytest

from sessionize.engine.schema_union import SchemaUnion


def aligned(*columns: pa.Array) -> list[list[Any]]:
    union, tables = SchemaUnion(), [pa.table({"x": column}) for column in columns]
    for table in tables:
        union.add(table)
    made = union.aligned(tables)
    assert len({table.schema for table in made}) == 1
    pa.concat_tables(made)
    return [table["x"].to_pylist() for table in made]


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (pa.array([1]), pa.array([0.5]), [[1.0], [0.5]]),
        (pa.array([2**53]), pa.array([0.5]), [[2.0**53], [0.5]]),
        (pa.array([2**53 + 1]), pa.array([0.5]), [["9007199254740993"], ["0.5"]]),
        (pa.array([-(2**63)]), pa.array([0.5]), [["-9223372036854775808"], ["0.5"]]),
        (pa.array([2**63 + 5], pa.uint64()), pa.array([1]), [["9223372036854775813"], ["1"]]),
        (pa.array([2**60]), pa.array([1.5], pa.float32()), [["1152921504606846976"], ["1.5"]]),
        (pa.array([2**60]), pa.array([7], pa.int8()), [["1152921504606846976"], ["7"]]),
        (pa.array([2**60]), pa.array(["x"]), [["1152921504606846976"], ["x"]]),
        (pa.array([2**60]), pa.array([None, 5]), [[2**60], [None, 5]]),
        (pa.array([b"\xffa"]), pa.array(["x"]), [["\\xffa"], ["x"]]),
        (pa.array([b"\xff", None]), pa.array([1]), [["\\xff", None], ["1"]]),
        (pa.array([True]), pa.array([1]), [["true"], ["1"]]),
        (pa.array([dt.date(1, 1, 1)]), pa.array([1.5]), [["0001-01-01"], ["1.5"]]),
        (pa.array([decimal.Decimal("1.50")]), pa.array([2]), [["1.50"], ["2"]]),
        (pa.array([float("nan")]), pa.array(["a"]), [["nan"], ["a"]]),
        (pa.nulls(2), pa.array([1]), [[None, None], [1]]),
    ],
)
def test_two_types_in_either_order(one: pa.Array, other: pa.Array, both: list[list[Any]]):
    assert aligned(one, other) == both
    assert aligned(other, one) == both[::-1]


def test_a_large_number_counts_wherever_it_comes():
    made = aligned(pa.array([0.5]), pa.array([1]), pa.array([2**62]), pa.array([2]))
    assert made == [["0.5"], ["1"], ["4611686018427387904"], ["2"]]
