import random
import warnings

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessionize.connectors.iceberg.checksum import Checksum, checksum
from sessionize.session.columns import SESSION_TYPES

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "text": st.none() | st.text(max_size=3),
            "n": st.none() | st.integers(-(2**63), 2**63 - 1),
            "flag": st.none() | st.booleans(),
            "real": st.none() | st.floats(),
            "pages": st.none() | st.lists(st.none() | st.text(max_size=2), max_size=3),
            "types": st.none() | st.lists(st.tuples(st.text(max_size=2), st.integers(0, 9)), max_size=2),
            "raw": st.none() | st.binary(max_size=3),
        }
    ),
    max_size=8,
)
SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("n", pa.int64()),
        ("flag", pa.bool_()),
        ("real", pa.float64()),
        ("pages", pa.list_(pa.string())),
        ("types", SESSION_TYPES["events_by_type"]),
        ("raw", pa.binary()),
    ]
)


def table(rows: list[dict[str, object]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMA)


@settings(max_examples=50)
@given(ROWS, st.randoms(use_true_random=False), st.integers(0, 8))
def test_neither_order_nor_cuts_matter(rows: list[dict[str, object]], chance: random.Random, cut: int) -> None:
    shuffled = list(rows)
    chance.shuffle(shuffled)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = checksum(table(rows))
        parts = table(shuffled)
        assert whole == checksum(parts.slice(0, cut)) + checksum(parts.slice(cut)) == checksum(parts)
        assert whole == checksum(parts.select(list(reversed(parts.column_names))))


@settings(max_examples=50)
@given(ROWS, ROWS)
def test_other_rows_have_another_checksum(some: list[dict[str, object]], others: list[dict[str, object]]) -> None:
    is_same = sorted(map(repr, table(some).to_pylist())) == sorted(map(repr, table(others).to_pylist()))
    assert (checksum(table(some)) == checksum(table(others))) == is_same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([["a", "b"]], [["b", "a"]]),
        ([["a"], ["b"]], [["a", "b"], []]),
        ([[]], [None]),
        ([[None]], [[]]),
        ([["a"], ["a"]], [["b"], ["b"]]),
    ],
)
def test_lists_that_are_nearly_the_same(one: list[object], other: list[object]) -> None:
    type_ = pa.list_(pa.string())
    assert checksum(pa.table({"x": pa.array(one, type_)})) != checksum(pa.table({"x": pa.array(other, type_)}))


def test_values_that_changed_places_between_columns_or_rows() -> None:
    base = pa.table({"x": ["a", "b"], "y": ["c", "d"]})
    assert checksum(base) != checksum(pa.table({"x": ["a", "b"], "y": ["d", "c"]}))
    assert checksum(base) != checksum(pa.table({"x": ["c", "d"], "y": ["a", "b"]}))
    assert checksum(base).rows == 2


def test_nothing_sums_up_to_nothing() -> None:
    assert checksum(table([])) == Checksum()


def test_encoding_does_not_matter() -> None:
    plain = pa.table({"x": ["a", None, "a"]})
    assert checksum(plain) == checksum(pa.table({"x": plain["x"].dictionary_encode()}))
