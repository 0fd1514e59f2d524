"""Avro records: the same events as in JSON, and bad bytes rejected one by one."""

import io
import json
from datetime import UTC, datetime
from decimal import Decimal

import fastavro
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize.errors import ConfigError, UnavailableError
from sessionize.formats.avro import AvroRecords, AvroWriter, parsed_schema, schema_like
from sessionize.formats.dialects import DIALECTS, Dialect

CLICKS = DIALECTS["clicks"]
SCHEMA = json.dumps(
    {
        "type": "record",
        "name": "click",
        "fields": [
            {"name": "user_id", "type": ["null", "string"]},
            {"name": "timestamp", "type": "long"},
            {"name": "url", "type": "string"},
        ],
    }
)
GOOD = {"user_id": "u", "timestamp": 1_767_571_200_000, "url": "/"}


def decoded(records, values, *, latest_ms=None):
    return records.decode(values, np.arange(100, 100 + len(values)), source="t[0]", latest_ms=latest_ms)


def rejected(records, values, **options):
    rows = decoded(records, values, **options).rejected.to_pylist()
    return [(row["line_number"], row["raw"], row["reason"]) for row in rows]


def framed(number: int, record=GOOD, schema: str = SCHEMA) -> bytes:
    return AvroWriter(schema, number=number).encode(record)


def test_bare_values_of_one_schema():
    write = AvroWriter(SCHEMA).encode
    values = [write({**GOOD, "timestamp": n, "user_id": f"u{n}"}) for n in range(20)]
    found = decoded(AvroRecords(CLICKS, schema=SCHEMA), values)
    assert found.events.to_pylist() == [{"user": f"u{n}", "event_time_ms": n, "page": "/"} for n in range(20)]
    assert found.rejected.num_rows == 0


def test_bad_bytes_are_rejected_one_by_one_with_their_own_bytes():
    write = AvroWriter(SCHEMA).encode
    good, no_user = write(GOOD), write({**GOOD, "user_id": None})
    values = [good, b"\xff" * 30, None, b"", good + b"x", good[:-1], no_user, good]
    records = AvroRecords(CLICKS, schema=SCHEMA)
    assert rejected(records, values) == [
        (101, values[1], "invalid_avro"),
        (102, None, "null_value"),
        (103, b"", "empty_value"),
        (104, values[4], "invalid_avro"),
        (105, values[5], "invalid_avro"),
        (106, no_user, "missing_user"),
    ]
    assert decoded(records, values).events.num_rows == 2
    assert rejected(records, [good], latest_ms=0) == [(100, good, "future_timestamp")]


def test_values_that_name_their_schema():
    newer = json.loads(SCHEMA)
    newer["fields"].insert(0, {"name": "added", "type": "int"})
    schemas = {7: [SCHEMA], 8: [json.dumps(newer)]}
    asked: list[int] = []

    def lookup(number):
        asked.append(number)
        return schemas.get(number)

    values = [framed(7), framed(8, {**GOOD, "added": 1}, json.dumps(newer)), framed(9), b"\x01rest", b"\x00\x00"]
    records = AvroRecords(CLICKS, lookup=lookup)
    assert [row["user"] for row in decoded(records, values).events.to_pylist()] == ["u", "u"]
    assert [(line, reason) for line, _, reason in rejected(records, values)] == [
        (102, "unknown_schema"),
        (103, "invalid_avro"),
        (104, "invalid_avro"),
    ]
    assert asked == [7, 8, 9, 9]  # what is known is asked for once
    schemas[9] = [SCHEMA]
    assert rejected(records, [framed(9)]) == []


def test_a_schema_that_is_none_rejects_and_a_registry_that_is_away_stops():
    assert [r for *_, r in rejected(AvroRecords(CLICKS, lookup=lambda _: ["{"]), [framed(1)])] == ["unknown_schema"]

    def away(_number):
        raise UnavailableError("the schema registry cannot be reached")

    with pytest.raises(UnavailableError):
        decoded(AvroRecords(CLICKS, lookup=away), [framed(1)])


def test_types_of_avro_that_json_lacks():
    schema = json.dumps(
        {
            "type": "record",
            "name": "e",
            "fields": [
                {"name": "who", "type": {"type": "record", "name": "w", "fields": [{"name": "id", "type": "int"}]}},
                {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
                {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
                {"name": "kind", "type": {"type": "enum", "name": "k", "symbols": ["VIEW", "BUY"]}},
                {"name": "blob", "type": "bytes"},
            ],
        }
    )
    at = datetime(2026, 1, 5, 12, 0, 0, 250_999, UTC)
    record = {"who": {"id": 42}, "at": at, "price": Decimal("12.50"), "kind": "BUY", "blob": b"\xff"}
    dialect = Dialect.mapping(user="who.id", time="at", event_type="kind", value="price")
    found = decoded(AvroRecords(dialect, schema=schema), [AvroWriter(schema).encode(record)])
    assert found.rejected.num_rows == 0, found.rejected.to_pylist()
    assert found.events.to_pylist() == [
        {"user": "42", "event_time_ms": 1_767_614_400_250, "event_type": "BUY", "value": 12.5}
    ]


def test_schemas_that_refer_to_others():
    inner = json.dumps({"type": "record", "name": "shop.user", "fields": [{"name": "id", "type": "string"}]})
    outer = json.dumps(
        {
            "type": "record",
            "name": "shop.click",
            "fields": [{"name": "user", "type": "shop.user"}, {"name": "at", "type": "long"}],
        }
    )
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, parsed_schema([inner, outer], source="here"), {"user": {"id": "u"}, "at": 5})
    dialect = Dialect.mapping(user="user.id", time="at")
    records = AvroRecords(dialect, lookup=lambda _: [inner, outer])
    assert decoded(records, [b"\x00\x00\x00\x00\x01" + stream.getvalue()]).events.to_pylist() == [
        {"user": "u", "event_time_ms": 5}
    ]


@pytest.mark.parametrize("text", ["", "{", '"string"', '{"type":"record"}', '{"type":"nothing"}', "[]", "null"])
def test_a_text_that_is_no_schema_of_records_is_an_error(text):
    with pytest.raises(ConfigError):
        AvroRecords(CLICKS, schema=text)


def test_a_schema_or_a_registry_but_not_both():
    with pytest.raises(ConfigError):
        AvroRecords(CLICKS)
    with pytest.raises(ConfigError):
        AvroRecords(CLICKS, schema=SCHEMA, lookup=lambda _: None)


def test_a_schema_made_from_records_takes_them():
    records = [{"a": 1, "b": {"c": "x"}, "d": None}, {"a": 2.5, "b": {"c": None, "e": True}, "d": "s"}, {}]
    schema = schema_like(records, name="user-events")
    write = AvroWriter(schema)
    read = [
        fastavro.schemaless_reader(io.BytesIO(write.encode(r)), parsed_schema([schema], source="s"), None)
        for r in records
    ]
    assert read[0] == {"a": 1, "b": {"c": "x", "e": None}, "d": None}
    assert read[1] == {"a": 2.5, "b": {"c": None, "e": True}, "d": "s"}
    assert read[2] == {"a": None, "b": None, "d": None}


@given(st.lists(st.one_of(st.none(), st.binary(max_size=40)), max_size=20))
def test_no_bytes_stop_it(values):
    found = decoded(AvroRecords(CLICKS, schema=SCHEMA), values)
    assert found.events.num_rows + found.rejected.num_rows == len(values)
    assert all(row["raw"] == values[row["line_number"] - 100] for row in found.rejected.to_pylist())
