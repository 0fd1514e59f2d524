"""Avro records, one by one: to JSON values, and through the same judgement as any other record.

A schema comes from a file, or each value names its own by the five bytes before it (a zero and a number), which a
registry knows. Without those bytes, bytes that are not of the schema are noticed only where they do not fit it.
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import fastavro
import msgspec
import numpy as np

from sessionize.errors import ConfigError, SessionizeError
from sessionize.formats.avro_nesting import UNREADABLE_BYTES, unrolled
from sessionize.formats.dialects import Dialect
from sessionize.formats.json_limits import NESTING_MAX
from sessionize.formats.records import EMPTY_VALUE, TOMBSTONE, Ints, JsonRecords, Values
from sessionize.formats.rejects import TOO_DEEP, Fault, Rejects
from sessionize.formats.validation import Decoded

INVALID_AVRO = "invalid_avro"
UNKNOWN_SCHEMA = "unknown_schema"
_MAGIC = b"\x00"
_HEAD_BYTES = 5

# A schema's number -> its text, after those of the schemas that it refers to. None: the registry knows no such number.
SchemaLookup = Callable[[int], Sequence[str] | None]
Schema = dict[str, Any]


def parsed_schema(texts: Sequence[str], *, source: str) -> Schema:
    """A schema, ready for use; the last of the texts, which may name types of the ones before it.

    source: where it comes from. Errors: ConfigError when it is no schema of a record.
    """
    named: dict[str, Any] = {}
    parsed: Any = None
    try:
        for text in texts:
            parsed = fastavro.parse_schema(json.loads(text), named_schemas=named)
    except (ValueError, TypeError, AttributeError, LookupError, fastavro.schema.SchemaParseException) as error:
        raise ConfigError("the Avro schema cannot be read", detail=f"{source}: {error!r}") from None
    if not isinstance(parsed, dict) or parsed.get("type") not in ("record", "error"):
        raise ConfigError("the Avro schema is not that of a record", detail=source, hint="events are records")
    if not parsed.get("fields"):
        raise ConfigError("the Avro schema has no fields", detail=source, hint="events have a user and a time")
    finite: Schema = unrolled(parsed, named, parse=_parse_into, source=source)
    return finite


def _parse_into(schema: Schema, named: dict[str, Any]) -> bool:
    known = dict(named)
    try:
        known[schema["name"]] = fastavro.parse_schema(schema, named_schemas=known)
    except fastavro.schema.UnknownType:
        return False
    named.update(known)
    return True


class AvroRecords:
    """A RecordDecoder for values in Avro.

    A timestamp of Avro's own types is read as ISO 8601, so the dialect's time format has to be auto or iso8601 for it.
    """

    __slots__ = ("_by_number", "_json", "_lookup", "_schema", "_unknown")

    def __init__(
        self,
        dialect: Dialect,
        *,
        schema: str | None = None,
        source: str = "the schema",
        lookup: SchemaLookup | None = None,
        columns: frozenset[str] | None = None,
        extras: bool = False,
    ) -> None:
        """schema: the text of the one that all values have, source: where it is from. lookup: values name theirs.

        One of the two. columns, extras: as in JsonLines. Errors: ConfigError. What lookup raises ends a decode.
        """
        if (schema is None) == (lookup is None):
            raise ConfigError("Avro needs a schema or a registry", hint="give a schema file, or a registry's address")
        self._json = JsonRecords(dialect, columns=columns, extras=extras)
        self._schema = None if schema is None else parsed_schema([schema], source=source)
        self._lookup = lookup
        self._by_number: dict[int, Schema] = {}
        self._unknown: dict[int, Fault] = {}  # of this decode: one that is not there may be registered later

    @property
    def columns(self) -> tuple[str, ...]:
        """The canonical columns that the events have."""
        return self._json.columns

    def decode(self, values: Values, offsets: Ints, *, source: str, latest_ms: int | None) -> Decoded:
        """As RecordDecoder says."""
        texts: list[bytes | None] = []
        places: list[int] = []
        faults: dict[int, Fault] = {}
        self._unknown = {}
        for place, value in enumerate(values):
            found = TOMBSTONE if value is None else self._as_json(value)
            if isinstance(found, Fault):
                faults[place] = found
            else:
                texts.append(found)
                places.append(place)
        decoded = self._json.decode(texts, np.array(places, np.int64), source=source, latest_ms=latest_ms)
        for row in decoded.rejected.to_pylist():
            faults[row["line_number"]] = Fault(row["reason"], row["detail"])
        rejects = Rejects()
        for place in sorted(faults):
            rejects.add(values[place], source=source, line_number=int(offsets[place]), fault=faults[place])
        return Decoded(decoded.events, rejects.take())

    def _as_json(self, value: bytes) -> bytes | Fault:
        if not value:
            return Fault(EMPTY_VALUE, "the record's value is empty")
        start, schema = 0, self._schema
        if schema is None:
            found = self._named(value)
            if isinstance(found, Fault):
                return found
            start, schema = _HEAD_BYTES, found
        stream = io.BytesIO(value)
        stream.seek(start)
        try:
            record = fastavro.schemaless_reader(stream, schema, None)
            text = msgspec.json.encode(record, enc_hook=str)
        except Exception as error:  # whatever broken bytes lead a decoder to
            if str(UNREADABLE_BYTES) in str(error):
                return Fault(TOO_DEEP, f"the record is nested more than {NESTING_MAX:,} levels deep")
            return Fault(INVALID_AVRO, f"not a record of the schema: {type(error).__name__}: {error}"[:200])
        if stream.tell() != len(value):
            return Fault(INVALID_AVRO, f"{len(value) - stream.tell()} bytes are left over behind the record")
        return text

    def _named(self, value: bytes) -> Schema | Fault:
        """The schema that the value names."""
        if len(value) < _HEAD_BYTES or value[:1] != _MAGIC:
            return Fault(INVALID_AVRO, f"the value does not begin with a zero and a schema's number: {value[:5]!r}")
        number = int.from_bytes(value[1:_HEAD_BYTES], "big")
        known = self._by_number.get(number) or self._unknown.get(number)
        if known is not None:
            return known
        found = self._looked_up(number)
        if isinstance(found, Fault):
            self._unknown[number] = found
        else:
            self._by_number[number] = found
        return found

    def _looked_up(self, number: int) -> Schema | Fault:
        texts = self._lookup(number) if self._lookup is not None else None
        if texts is None:
            return Fault(UNKNOWN_SCHEMA, f"the registry has no schema {number}")
        try:
            return parsed_schema(texts, source=f"schema {number}")
        except SessionizeError as error:
            return Fault(UNKNOWN_SCHEMA, f"{error.message}: {error.detail}"[:200])


class AvroWriter:
    """Turns records into Avro. number: the schema's, to be named before each value; None for bare values."""

    __slots__ = ("_head", "_schema", "text")

    def __init__(self, schema: str, *, number: int | None = None) -> None:
        """Errors: ConfigError."""
        self.text = schema
        self._schema = parsed_schema([schema], source="the schema")
        self._head = b"" if number is None else _MAGIC + number.to_bytes(4, "big")

    def encode(self, record: Mapping[str, Any]) -> bytes:
        """Errors: ValueError, TypeError when the record is not one of the schema."""
        stream = io.BytesIO()
        stream.write(self._head)
        fastavro.schemaless_writer(stream, self._schema, record)
        return stream.getvalue()


def schema_like(records: Sequence[Mapping[str, Any]], *, name: str) -> str:
    """A schema for records like these: every field may also be missing or null."""
    return json.dumps(_record_type(records, "".join(c if c.isalnum() else "_" for c in name)), indent=2)


def _record_type(records: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    fields: dict[str, list[Any]] = {}
    for record in records:
        for field, value in record.items():
            fields.setdefault(field, []).append(value)
    return {
        "type": "record",
        "name": name,
        "fields": [
            {"name": field, "type": ["null", *_types(values, f"{name}_{field}")], "default": None}
            for field, values in fields.items()
        ],
    }


def _types(values: Sequence[Any], name: str) -> list[Any]:
    kinds = {type(value) for value in values} - {type(None)}
    found: list[Any] = [_record_type([v for v in values if isinstance(v, dict)], name)] if dict in kinds else []
    names = {bool: "boolean", int: "long", float: "double", str: "string"}
    return found + [names[kind] for kind in names if kind in kinds]
