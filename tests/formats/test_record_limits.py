"""How much one record may be: fields, nesting, columns. Beyond it, it is rejected alone, whatever its form."""

import io
import json
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest

from sessionize import ConfigError, InputError
from sessionize.formats.avro import AvroRecords
from sessionize.formats.csv_text.decoder import CsvLines
from sessionize.formats.dialects import Dialect
from sessionize.formats.json_limits import FIELDS_MAX, NESTING_MAX
from sessionize.formats.json_lines import JsonLines
from sessionize.formats.tabular_layout import Layout
from sessionize.formats.validation import EXTRA_COLUMNS_MAX, Decoded

OWN = Dialect.mapping(user="u", time="t", time_format="ms")
GOOD = b'{"u":"a","t":1,"x":{"deep":[1]}}'


def record(*members: bytes) -> bytes:
    return b"{" + b",".join((b'"u":"a"', b'"t":1', *members)) + b"}"


def fields(count: int) -> bytes:
    """A record of so many fields."""
    return record(*(b'"%x":1' % n for n in range(256, 254 + count)))


def nested(levels: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    """A record nested so deeply, itself included."""
    return record(b'"x":' + opening * (levels - 1) + b"1" + closing * (levels - 1))


def decoded(*lines: bytes, extras: bool = True) -> Decoded:
    decoder = JsonLines(OWN, extras=extras)
    decoder.add(b"\n".join(lines) + b"\n", source="f")
    return decoder.take()


def reasons(made: Decoded) -> list[str]:
    return [str(reason) for reason in made.rejected["reason"].to_pylist()]


@pytest.mark.parametrize("extras", [False, True])
@pytest.mark.parametrize("among", [0, 3, 40])
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (fields(FIELDS_MAX), None),
        (fields(FIELDS_MAX + 1), "too_many_fields"),
        (fields(200_000), "too_many_fields"),
        (record(*(b'"same":1' for _ in range(FIELDS_MAX + 1))), None),  # the last one of a name counts
        (record(b'"x":{' + b",".join(b'"%x":1' % n for n in range(FIELDS_MAX + 1)) + b"}"), None),
        (record(b'"x":"' + b"a:b" * (FIELDS_MAX * 2) + b'"'), None),
        (nested(NESTING_MAX), None),
        (nested(NESTING_MAX + 1), "too_deep"),
        (nested(NESTING_MAX, b'{"":', b"}"), None),
        (nested(NESTING_MAX + 1, b'{"":', b"}"), "too_deep"),
        (nested(800, b'[{"":', b"}]"), "too_deep"),
        (nested(100_000), "too_deep"),
        (record(b'"x":[' + b",".join(b"[{}]" for _ in range(NESTING_MAX)) + b"]"), None),
        (record(b'"x":"' + rb"[[{\"" * NESTING_MAX + b'"'), None),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else str(value),
)
def test_fields_and_nesting(line: bytes, reason: str | None, among: int, extras: bool):
    """among: so many long lines that are fine on either side."""
    others = [record(b'"text":"' + b"x" * 1_500 + b'"', b'"l":[[{}]]')] * among
    made = decoded(GOOD, *others, line, *others, GOOD, extras=extras)
    assert reasons(made) == ([] if reason is None else [reason])
    assert made.events.num_rows == 2 + 2 * among + (reason is None)
    if reason is not None:
        assert made.rejected["line_number"].to_pylist() == [2 + among]
        assert made.rejected["raw"].to_pylist() == [line]


def test_one_record_of_many_names_does_not_slow_down_those_behind_it():
    """Names are learned from records that are like others, so that the quick decoder stays."""
    decoder = JsonLines(OWN, extras=True)
    assert decoder._extras is not None
    decoder.add(GOOD + b"\n", source="f")
    learned = decoder._extras._decoder
    assert learned is not None
    decoder.add(fields(3_000) + b"\n" + GOOD + b"\n", source="f")
    decoder.add(GOOD + b"\n", source="f")
    assert len(decoder._extras._as_text) <= EXTRA_COLUMNS_MAX
    assert not decoder._extras._unnameable
    made = decoder.take().events
    assert made.num_rows == 4
    assert len(json.loads(made["properties"][1].as_py())) + EXTRA_COLUMNS_MAX == 3_000 - 2


def test_too_many_names_are_given_up_and_tried_again_later():
    decoder = JsonLines(OWN, extras=True)
    assert decoder._extras is not None
    decoder.add(b"".join(record(b'"%x":1' % n) + b"\n" for n in range(5_000)), source="f")
    assert decoder._extras._unnameable
    assert len(decoder._extras._as_text) <= EXTRA_COLUMNS_MAX + 1  # no decoder is made for thousands of names
    for _ in range(100):
        decoder.add(GOOD + b"\n", source="f")
        decoder.take()
    assert decoder._extras._decoder is not None


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_table_of_any_width_is_read_where_its_columns_are_not_kept(quote: str):
    header = ",".join(["u", "t", *(f"c{n}" for n in range(FIELDS_MAX))]).encode()
    row = ",".join(["a", "1", *(f"{quote}{n}{quote}" for n in range(FIELDS_MAX))]).encode()
    decoder = CsvLines(header, OWN, source="f")
    decoder.add(row + b"\n", source="f")
    assert decoder.take().events.num_rows == 1
    with pytest.raises(InputError, match="too many columns to keep them all") as told:
        CsvLines(header, OWN, source="f.csv", extras=True)
    assert told.value.detail == "f.csv: 10,002 columns, at most 10,000 are kept"
    schema = pa.schema([("u", pa.string()), ("t", pa.int64()), *((f"c{n}", pa.int64()) for n in range(FIELDS_MAX))])
    Layout.of(schema, OWN, source="f.parquet", columns=None, extras=False)
    with pytest.raises(InputError, match="too many columns"):
        Layout.of(schema, OWN, source="f.parquet", columns=None, extras=True)


# Avro schemas that refer to themselves.

NODE = {
    "type": "record",
    "name": "Node",
    "fields": [{"name": "next", "type": ["null", "Node"]}, {"name": "tag", "type": "string"}],
}
PAIR = {
    "type": "record",
    "name": "shop.Left",
    "fields": [
        {
            "name": "right",
            "type": {
                "type": "record",
                "name": "Right",
                "fields": [
                    {"name": "lefts", "type": {"type": "array", "items": "Left"}},
                    {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}},
                ],
            },
        },
        {"name": "by_name", "type": {"type": "map", "values": ["null", "Right"]}},
    ],
}


def avro_schema(inner: Any) -> dict[str, Any]:
    names = {"u": "string", "t": "long", "x": inner}
    return {"type": "record", "name": "Event", "fields": [{"name": n, "type": kind} for n, kind in names.items()]}


def avro_decoded(schema: dict[str, Any], value: bytes) -> Decoded:
    decoder = AvroRecords(OWN, schema=json.dumps(schema), extras=True)
    return decoder.decode([value], np.array([7]), source="topic", latest_ms=None)


def avro_bytes(schema: dict[str, Any], record: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), record)
    return stream.getvalue()


@pytest.mark.parametrize(
    "x",
    [
        {"right": {"lefts": [], "kind": "B"}, "by_name": {"n": None}},
        {"right": {"lefts": [{"right": {"lefts": [], "kind": "A"}, "by_name": {}}], "kind": "B"}, "by_name": {}},
        {
            "right": {"lefts": [], "kind": "A"},
            "by_name": {"a": {"lefts": [{"right": {"lefts": [], "kind": "A"}, "by_name": {}}], "kind": "B"}},
        },
    ],
)
def test_avro_types_that_hold_each_other(x: dict[str, Any]):
    schema = avro_schema(PAIR)
    made = avro_decoded(schema, avro_bytes(schema, {"u": "a", "t": 1, "x": x}))
    assert json.loads(made.events["properties"][0].as_py()) == {"x": x}


@pytest.mark.parametrize("levels", [1, 400, NESTING_MAX - 1, NESTING_MAX, NESTING_MAX + 1, 1_000, 5_000, 1_000_000])
def test_avro_records_as_deep_as_they_like(levels: int):
    """Some thousand levels ended the process by exhausting its stack, without a word."""
    value = b"\x02a\x02" + b"\x02" * (levels - 1) + b"\x00" + b"\x02z" * levels
    made = avro_decoded(avro_schema(NODE), value)
    assert (made.events.num_rows, reasons(made)) == ((1, []) if levels < NESTING_MAX else (0, ["too_deep"]))
    if not made.events.num_rows:
        assert made.rejected["raw"].to_pylist() == [value]


@pytest.mark.parametrize(
    "items", ["null", {"type": "record", "name": "Nothing", "fields": [{"name": "n", "type": "null"}]}]
)
def test_avro_lists_of_nothing_are_refused(items: Any):
    """Ten bytes could announce a billion items."""
    schema = avro_schema({"type": "array", "items": items})
    with pytest.raises(ConfigError, match="list of nothing"):
        AvroRecords(OWN, schema=json.dumps(schema))
    decoder = AvroRecords(OWN, lookup=lambda number: [json.dumps(schema)])
    value = b"\x00\x00\x00\x00\x01" + b"\x02a\x02" + b"\xfe\xff\xff\xff\x0f\x00"
    assert reasons(decoder.decode([value], np.array([0]), source="topic", latest_ms=None)) == ["unknown_schema"]
