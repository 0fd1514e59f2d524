"""Further fields: every format gives the same column, and a value of a wrong type becomes null and is counted."""

import io
import json
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest

from sessionize.errors import ConfigError, InputError
from sessionize.formats.avro import AvroRecords
from sessionize.formats.csv_text.decoder import CsvLines
from sessionize.formats.dialects import DIALECTS, Dialect, Field
from sessionize.formats.json_lines import JsonLines
from sessionize.formats.records import JsonRecords
from sessionize.formats.tabular import Tabular
from sessionize.formats.tabular_layout import Layout
from sessionize.formats.validation import Decoded

FIELDS = (
    Field("referrer", ("from",)),
    Field("price", ("price",), "number"),
    Field("count", ("n",), "integer"),
    Field("paid", ("paid",), "boolean"),
)
OWN = Dialect.mapping(user="u", time="t", page="p").with_fields(FIELDS)
GOOD = {"u": "a", "t": 1, "p": "/", "from": "x", "price": 1.5, "n": 3, "paid": True}
TYPES = {"referrer": pa.string(), "price": pa.float64(), "count": pa.int64(), "paid": pa.bool_()}
EXPECTED = {"user": "a", "event_time_ms": 1, "page": "/", "referrer": "x", "price": 1.5, "count": 3, "paid": True}


def of_json(records: list[dict[str, Any]], dialect: Dialect = OWN) -> Decoded:
    decoder = JsonLines(dialect)
    decoder.add("\n".join(map(json.dumps, records)).encode(), source="f")
    return decoder.take()


def of_kafka(records: list[dict[str, Any]], dialect: Dialect = OWN) -> Decoded:
    values = [json.dumps(record).encode() for record in records]
    return JsonRecords(dialect).decode(values, np.arange(len(values)), source="t", latest_ms=None)


def of_csv(records: list[dict[str, Any]], dialect: Dialect = OWN) -> Decoded:
    names = list(GOOD)
    decoder = CsvLines(",".join(names).encode(), dialect, source="f")
    rows = [",".join("" if r.get(n) is None else str(r[n]) for n in names) for r in records]
    decoder.add("\n".join([*rows, ""]).encode(), source="f")
    return decoder.take()


def of_table(records: list[dict[str, Any]], dialect: Dialect = OWN) -> Decoded:
    table = pa.Table.from_pylist(records)
    layout = Layout.of(table.schema, dialect, source="f", columns=None, extras=False)
    return Tabular(layout, dialect).decode(table, source="f", line_number=int)


def of_avro(records: list[dict[str, Any]], dialect: Dialect = OWN) -> Decoded:
    kinds = {"u": "string", "t": "long", "p": "string", "from": "string", "price": "double", "n": "long"}
    kinds["paid"] = "boolean"
    schema = {"type": "record", "name": "E", "fields": [{"name": n, "type": k} for n, k in kinds.items()]}
    values = []
    for record in records:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(schema), record)
        values.append(out.getvalue())
    decoder = AvroRecords(dialect, schema=json.dumps(schema))
    return decoder.decode(values, np.arange(len(values)), source="t", latest_ms=None)


@pytest.mark.parametrize("decode", [of_json, of_kafka, of_csv, of_table, of_avro])
def test_fields_reach_the_events_with_their_types(decode: Any) -> None:
    decoded = decode([GOOD])
    assert decoded.events.to_pylist() == [EXPECTED]
    assert {name: decoded.events[name].type for name in TYPES} == TYPES
    assert not any(decoded.nulled.values())


WRONG: dict[str, list[Any]] = {
    "from": [{"a": 1}, ["x"]],
    "price": ["much", "nan", "1e999", [1], True],
    "n": ["1.5", 1.5, 2**63, "99999999999999999999", True, {}],
    "paid": ["maybe", 2, 0.5, []],
}
CASES = [(path, value) for path, values in WRONG.items() for value in values]
NAME_OF = {field.paths[0]: field.name for field in FIELDS}


@pytest.mark.parametrize("decode", [of_json, of_kafka])
@pytest.mark.parametrize(("path", "value"), CASES)
def test_a_value_of_a_wrong_type_becomes_null_and_is_counted(decode: Any, path: str, value: object) -> None:
    decoded = decode([GOOD, {**GOOD, path: value}, GOOD])
    assert decoded.events.to_pylist() == [EXPECTED, {**EXPECTED, NAME_OF[path]: None}, EXPECTED]
    assert decoded.nulled == {NAME_OF[path]: 1}
    assert not len(decoded.rejected)


@pytest.mark.parametrize("decode", [of_csv, of_table])
@pytest.mark.parametrize(("path", "value"), [c for c in CASES if isinstance(c[1], str)])
def test_a_wrong_text_in_a_table_becomes_null_and_is_counted(decode: Any, path: str, value: str) -> None:
    decoded = decode([{n: str(v) for n, v in {**GOOD, path: value}.items()}])
    assert decoded.events.to_pylist() == [{**EXPECTED, NAME_OF[path]: None}]
    assert decoded.nulled == {NAME_OF[path]: 1}


@pytest.mark.parametrize("decode", [of_json, of_csv, of_table])
@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("price", "2.5", 2.5),
        ("price", " 1e3 ", 1000.0),
        ("price", "", None),
        ("n", "7", 7),
        ("n", "7.0", 7),
        ("n", "-9223372036854775808", -(2**63)),
        ("n", "", None),
        ("paid", "FALSE", False),
        ("paid", "1", True),
        ("paid", "", None),
    ],
)
def test_text_that_holds_a_value_is_one(decode: Any, path: str, value: str, expected: object) -> None:
    decoded = decode([{n: str(v) for n, v in {**GOOD, path: value}.items()}])
    assert decoded.events.to_pylist() == [{**EXPECTED, NAME_OF[path]: expected}]
    assert not any(decoded.nulled.values())


def test_text_of_other_values() -> None:
    texts = of_json([{**GOOD, "from": value} for value in (7, 1.5, True, None, "")]).events["referrer"].to_pylist()
    assert texts == ["7", "1.5", "true", None, ""]


@pytest.mark.parametrize("kind", [pa.float32(), pa.int8(), pa.decimal128(25, 2), pa.uint64(), pa.large_string()])
def test_columns_of_other_types(kind: pa.DataType) -> None:
    values = pa.array(["3", None]).cast(kind) if pa.types.is_large_string(kind) else pa.array([3, None]).cast(kind)
    table = pa.table({"u": ["a", "a"], "t": [1, 2], "p": ["/", "/"], "from": values, "price": values, "n": values})
    decoded = of_table(table.append_column("paid", pa.nulls(2)).to_pylist())
    assert decoded.events["price"].to_pylist() == [3.0, None]
    assert decoded.events["count"].to_pylist() == [3, None]
    assert decoded.events["paid"].to_pylist() == [None, None]


@pytest.mark.parametrize("decode", [of_json, of_csv, of_table])
@pytest.mark.parametrize(("path", "value", "reason"), [("price", "much", "wrong_type"), ("n", "1.5", "wrong_type")])
def test_strict_rejects_the_record(decode: Any, path: str, value: str, reason: str) -> None:
    from dataclasses import replace

    record = {n: str(v) for n, v in {**GOOD, path: value}.items()}
    decoded = decode([record], replace(OWN, strict=True))
    assert not len(decoded.events)
    assert decoded.rejected["reason"].to_pylist() == [reason]
    assert value in decoded.rejected["detail"][0].as_py()


def test_a_rejected_record_counts_no_other_value() -> None:
    decoded = of_json([{**GOOD, "u": None, "price": "much"}])
    assert len(decoded.rejected) == 1
    assert not any(decoded.nulled.values())


def test_fields_beside_a_dialect_and_beside_extras() -> None:
    dialect = DIALECTS["clicks"].with_fields([Field("ref", ("context.ref",))])
    decoder = JsonLines(dialect, extras=True)
    decoder.add(b'{"user_id":"a","timestamp":1,"url":"/","context":{"ref":"r"},"ref":"other","k":1}', source="f")
    (row,) = decoder.take().events.to_pylist()
    assert (row["ref"], row["k"]) == ("r", 1)
    assert json.loads(row["properties"]) == {"context": {"ref": "r"}, "ref": "other"}


def test_only_the_fields_asked_for_are_built() -> None:
    decoder = JsonLines(OWN, columns=frozenset({"price"}))
    assert decoder.columns == ("user", "event_time_ms", "price")


def test_a_table_without_the_column_says_what_it_has() -> None:
    with pytest.raises(InputError) as caught:
        of_table([{**GOOD, "form": "x", "from2": 1} | {"from": None}], Dialect.mapping(user="u", time="t").with_fields(
            [Field("referrer", ("fron",))]))  # fmt: skip
    assert "did you mean" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("a=b.c", Field("a", ("b.c",))),
        ("price:number=p", Field("price", ("p",), "number")),
        ("a=b,c", Field("a", ("b", "c"))),
    ],
)
def test_fields_of_a_command_line(text: str, field: Field) -> None:
    assert Field.parse(text) == field


@pytest.mark.parametrize("text", ["a", "a=", "=b", "page=b", "User=b", "a:money=b", "a=b..c", 'a="b"', "session_id=x"])
def test_fields_that_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        Field.parse(text)


def test_two_fields_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="same name"):
        Dialect.mapping(user="u", time="t").with_fields([Field("a", ("b",)), Field("A", ("c",))])
    with pytest.raises(ConfigError, match="same name"):
        Dialect.mapping(user="u", time="t").with_fields([Field("u", ("b",))])
