"""Every type that a query can have, as JSON: numbers in full, moments in ISO 8601, bytes in base64."""

import json
from decimal import Decimal

import duckdb
import pyarrow as pa
import pytest

from sessionize.cli.terminal.json_rows import json_lines

AS_JSON = [
    ("170141183460469231731687303715884105727::HUGEINT", "170141183460469231731687303715884105727"),
    ("18446744073709551615::UBIGINT", "18446744073709551615"),
    ("-5::TINYINT", "-5"),
    ("1.50::DECIMAL(10,2)", "1.50"),
    ("3::DECIMAL(38,0)", "3"),
    ("12345678901234567890.123456789::DECIMAL(38,9)", "12345678901234567890.123456789"),
    ("0.000000001::DECIMAL(38,9)", "0.000000001"),
    ("1e300::DOUBLE", "1e+300"),
    ("0.1::FLOAT", "0.1"),
    ("'nan'::DOUBLE", "null"),
    ("'-inf'::DOUBLE", "null"),
    ("'inf'::FLOAT", "null"),
    ("NULL", "null"),
    ("NULL::DATE", "null"),
    ("true", "true"),
    ("DATE '2024-01-02'", '"2024-01-02"'),
    ("DATE '12024-01-02'", '"12024-01-02"'),
    ("'infinity'::DATE", "null"),
    ("TIMESTAMP '2024-01-02 03:04:05'", '"2024-01-02T03:04:05"'),
    ("TIMESTAMP '2024-01-02 03:04:05.600'", '"2024-01-02T03:04:05.6"'),
    ("TIMESTAMP_NS '2024-01-02 03:04:05.123456789'", '"2024-01-02T03:04:05.123456789"'),
    ("TIMESTAMP_S '2024-01-02 03:04:05'", '"2024-01-02T03:04:05"'),
    ("'2024-01-02 03:04:05+02'::TIMESTAMPTZ", '"2024-01-02T01:04:05Z"'),
    ("'-infinity'::TIMESTAMP", "null"),
    ("TIME '01:02:03.5'", '"01:02:03.5"'),
    ("INTERVAL '1 month 2 days 3.5 seconds'", '"P1M2DT3.5S"'),
    ("INTERVAL 0 SECOND", '"PT0S"'),
    ("'ab\\x00\\xFF'::BLOB", '"YWIA/w=="'),
    ("'é\"\n'", '"é\\"\\n"'),
    ("'small'::ENUM('small', 'large')", '"small"'),
    ("'6ccd780c-baba-1026-9564-5b8c656024db'::UUID", '"6ccd780c-baba-1026-9564-5b8c656024db"'),
    ("[1, NULL, 3]", "[1, null, 3]"),
    ("[TIMESTAMP '2024-01-01', NULL]", '["2024-01-01T00:00:00", null]'),
    ("[1, 2]::INT[2]", "[1, 2]"),
    ("[[0.5::DECIMAL(2,1)]]", "[[0.5]]"),
    ("{'day': DATE '2024-01-01', 'b': 1.5::DECIMAL(3,1), 'c': NULL}", '{"day": "2024-01-01", "b": 1.5, "c": null}'),
    ("MAP {'view': 2, 'buy': 1}", '{"view": 2, "buy": 1}'),
    ("MAP {1: 'x', 2: NULL}", '{"1": "x", "2": null}'),
    ("MAP {'k': TIMESTAMP '2024-01-01'}", '{"k": "2024-01-01T00:00:00"}'),
    ("union_value(num := 2)", "2"),
]


def of_query(expression: str) -> str:
    (line,) = json_lines(duckdb.sql(f"SELECT {expression} AS v FROM (VALUES (1), (2)) t(x) LIMIT 1").to_arrow_table())
    return line


@pytest.mark.parametrize(("expression", "expected"), AS_JSON)
def test_a_value_of_each_type(expression: str, expected: str) -> None:
    line = of_query(expression)
    assert line == f'{{"v": {expected}}}'
    json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_a_sum_is_a_number() -> None:  # of DuckDB's type HUGEINT
    assert of_query("sum(x)") == '{"v": 3}'


def test_no_digit_is_lost_where_the_reader_keeps_them() -> None:
    exact = "12345678901234567890.123456789"
    assert json.loads(of_query(f"{exact}::DECIMAL(38,9)"), parse_float=Decimal) == {"v": Decimal(exact)}


def test_rows_in_their_order_and_columns_in_theirs() -> None:
    rows = pa.table({"b": [1, 2], "a": ["x", None]})
    assert list(json_lines(rows)) == ['{"b": 1, "a": "x"}', '{"b": 2, "a": null}']
    assert list(json_lines(rows.slice(0, 0))) == []


def test_two_columns_of_one_name_are_two() -> None:
    rows = pa.table([[1], [2], [3]], names=["a", "a", "a_1"])
    assert [json.loads(line) for line in json_lines(rows)] == [{"a": 1, "a_1": 2, "a_1_1": 3}]


def test_durations_and_dates_of_other_units() -> None:
    rows = pa.table({"d": pa.array([1500], pa.duration("ms")), "m": pa.array([86_400_000], pa.date64())})
    assert list(json_lines(rows)) == ['{"d": "PT1.5S", "m": "1970-01-02"}']
