"""Fields that join those in `properties`."""

import datetime as dt
import json
from decimal import Decimal

import pyarrow as pa
import pytest

from sessionize.formats.properties import with_fields


def test_what_was_written_stays_letter_by_letter() -> None:
    digits = '{"long":' + "9" * 5_000 + ',"exact":1.10}'
    (text,) = with_fields([digits], pa.table({"x": [1], "y": pa.nulls(1)})).to_pylist()
    assert text == digits[:-1] + ',"x":1}'


def test_rows_without_further_fields_are_untouched() -> None:
    assert with_fields([None, '{ "a": 1 }'], pa.table({"x": pa.nulls(2)})).to_pylist() == [None, '{ "a": 1 }']


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (pa.array([float("nan")]), "nan"),
        (pa.array([float("-inf")]), "-inf"),
        (pa.array([0.5]), 0.5),
        (pa.array([2**64 - 1], pa.uint64()), 2**64 - 1),
        (pa.array([dt.date(2024, 1, 2)]), "2024-01-02"),
        (pa.array([1], pa.timestamp("ns")), "1970-01-01 00:00:00.000000001"),
        (pa.array([1], pa.time64("ns")), "00:00:00.000000001"),
        (pa.array([1], pa.duration("ns")), 1),
        (pa.array([Decimal("1.50")], pa.decimal256(60, 2)), "1.50"),
        (pa.array([b"ab"], pa.binary(2)), "YWI="),
    ],
)
def test_any_value_can_be_read_again_as_json(value: pa.Array, read: object) -> None:
    (text,) = with_fields([None], pa.table({"x": value})).to_pylist()
    assert json.loads(text or "", parse_constant=lambda name: pytest.fail(f"{name} is no JSON")) == {"x": read}
