"""Decodes Avro records one by one to JSON values, which are validated like any other record.

The schema comes from a file, or each value names a registry's schema in five leading bytes (a zero and a number).
Without those bytes, a value of another schema is detected only where it does not fit.
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

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

# Schema id -> the texts of the schemas it refers to, then its own. None: the registry has no such id.
SchemaLookup = Callable[[int], Sequence[str] | None]
Schema = dict[str, Any]


def parsed_schema(texts: Sequence[str], *, source: str) -> Schema:
    """The parsed last one of these schemas; it may refer to types of the earlier ones.

    source: where it comes from. Errors: ConfigError if it is not the schema of a record.
    """
    named: dict[str, Any] = {}
    parsed: Any = None
    try:
        for text in texts:
            parsed = fastavro.parse_schema(json.loads(text), named_schemas=named)
    except (ValueError, TypeError, AttributeError, LookupError, fastavro.schema.SchemaParseException) as error:
        raise ConfigError("the Avro schema cannot be read", detail=f"{source}: {error!r}") from None
    if not isinstance(parsed, dict) or parsed.get("type") not in ("record", "error"):
        raise ConfigError("the Avro schema is not a record schema", detail=source, hint="events are records")
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

    __slots__ = ("_by_id", "_json", "_lookup", "_schema", "_unknown")

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
        """schema: the schema of all values, as text; source: where it comes from. lookup: each value names its schema.

        Exactly one of the two is given. columns, extras: as in JsonLines. decode passes on what lookup raises.
        Errors: ConfigError.
        """
        if (schema is None) == (lookup is None):
            raise ConfigError("Avro needs a schema or a registry", hint="give a schema file, or a registry's address")
        self._json = JsonRecords(dialect, columns=columns, extras=extras)
        self._schema = None if schema is None else parsed_schema([schema], source=source)
        self._lookup = lookup
        self._by_id: dict[int, Schema] = {}
        self._unknown: dict[int, Fault] = {}  # reset by each decode: a missing schema may be registered later

    @property
    def columns(self) -> tuple[str, ...]:
        """The canonical columns of the events."""
        return self._json.columns

    def decode(self, values: Values, offsets: Ints, *, source: str, latest_ms: int | None) -> Decoded:
        """See RecordDecoder."""
        texts: list[bytes | None] = []
        positions: list[int] = []
        faults: dict[int, Fault] = {}
        self._unknown = {}
        for position, value in enumerate(values):
            found = TOMBSTONE if value is None else self._as_json(value)
            if isinstance(found, Fault):
                faults[position] = found
            else:
                texts.append(found)
                positions.append(position)
        decoded = self._json.decode(texts, np.array(positions, np.int64), source=source, latest_ms=latest_ms)
        for row in decoded.rejected.to_pylist():
            faults[row["line_number"]] = Fault(row["reason"], row["detail"])
        rejects = Rejects()
        for position in sorted(faults):
            rejects.add(values[position], source=source, line_number=int(offsets[position]), fault=faults[position])
        return Decoded(decoded.events, rejects.take(), nulled=decoded.nulled, local_times=decoded.local_times)

    def _as_json(self, value: bytes) -> bytes | Fault:
        if not value:
            return Fault(EMPTY_VALUE, "the record's value is empty")
        start, schema = 0, self._schema
        if schema is None:
            found = self._schema_of(value)
            if isinstance(found, Fault):
                return found
            start, schema = _HEAD_BYTES, found
        stream = io.BytesIO(value)
        stream.seek(start)
        try:
            record = fastavro.schemaless_reader(stream, schema, None)
            text = msgspec.json.encode(record, enc_hook=str)
        except Exception as error:  # invalid bytes can raise anything
            if str(UNREADABLE_BYTES) in str(error):
                return Fault(TOO_DEEP, f"the record is nested more than {NESTING_MAX:,} levels deep")
            return Fault(INVALID_AVRO, f"not a record of the schema: {type(error).__name__}: {error}"[:200])
        if stream.tell() != len(value):
            return Fault(INVALID_AVRO, f"{len(value) - stream.tell()} bytes follow the record")
        return text

    def _schema_of(self, value: bytes) -> Schema | Fault:
        """The schema whose id the value begins with."""
        if len(value) < _HEAD_BYTES or value[:1] != _MAGIC:
            return Fault(INVALID_AVRO, f"the value does not begin with a zero and a schema id: {value[:5]!r}")
        number = int.from_bytes(value[1:_HEAD_BYTES], "big")
        known = self._by_id.get(number) or self._unknown.get(number)
        if known is not None:
            return known
        found = self._look_up(number)
        if isinstance(found, Fault):
            self._unknown[number] = found
        else:
            self._by_id[number] = found
        return found

    def _look_up(self, number: int) -> Schema | Fault:
        texts = self._lookup(number) if self._lookup is not None else None
        if texts is None:
            return Fault(UNKNOWN_SCHEMA, f"the registry has no schema {number}")
        try:
            return parsed_schema(texts, source=f"schema {number}")
        except SessionizeError as error:
            return Fault(UNKNOWN_SCHEMA, f"{error.message}: {error.detail}"[:200])


def json_records(file: IO[bytes]) -> Iterator[bytes]:
    """The records of an Avro file as JSON, one after the other. Errors: whatever fastavro raises for damage."""
    for record in fastavro.reader(file):
        yield msgspec.json.encode(record, enc_hook=str)


class AvroWriter:
    """Encodes records as Avro. number: the schema id written before each value; None for bare values."""

    __slots__ = ("_head", "_schema", "text")

    def __init__(self, schema: str, *, number: int | None = None) -> None:
        """Errors: ConfigError."""
        self.text = schema
        self._schema = parsed_schema([schema], source="the schema")
        self._head = b"" if number is None else _MAGIC + number.to_bytes(4, "big")

    def encode(self, record: Mapping[str, Any]) -> bytes:
        """Errors: ValueError, TypeError if the record does not fit the schema."""
        stream = io.BytesIO()
        stream.write(self._head)
        fastavro.schemaless_writer(stream, self._schema, record)
        return stream.getvalue()


def schema_like(records: Sequence[Mapping[str, Any]], *, name: str) -> str:
    """A schema inferred from these records; every field is optional and nullable."""
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
