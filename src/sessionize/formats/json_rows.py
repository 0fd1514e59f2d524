"""Encodes the rows of a table as JSON objects, one for each output record."""

from collections.abc import Collection
from typing import Any

import msgspec
import pyarrow as pa

from sessionize.formats.rejects import RAW_BYTES_MAX

SHORTENED_FIELDS = "shortened_fields"
_NAME_CHARACTERS_MAX = 100
_NULL = msgspec.Raw(b"null")
_ENCODE = msgspec.json.Encoder(enc_hook=str).encode
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def json_rows(rows: pa.Table) -> list[bytes]:
    """One JSON object for each row; maps are objects, dates ISO 8601, bytes base64, a NaN is null."""
    columns = [_plain(column) for column in rows.columns]
    names = rows.column_names
    return [_ENCODE(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


def json_rejected(rejected: pa.Table) -> list[bytes]:
    """REJECTED_SCHEMA as JSON objects: raw as text where it is UTF-8, else as raw_base64.

    raw is cut to RAW_BYTES_MAX so that any record fits into a message; raw_size_bytes is its full size.
    """
    records = []
    for row in rejected.to_pylist():
        raw: bytes | None = row.pop("raw")
        kept = (raw or b"")[:RAW_BYTES_MAX]
        text, encoded = None, None
        if raw is not None:
            try:
                text = kept.decode()
            except UnicodeDecodeError:
                encoded = kept
        size_bytes = None if raw is None else len(raw)
        records.append(_ENCODE({**row, "raw": text, "raw_base64": encoded, "raw_size_bytes": size_bytes}))
    return records


def json_without(row: bytes, names: Collection[str]) -> bytes | None:
    """The JSON object with null for these fields, listed in `shortened_fields`; None if it has none of them."""
    fields = _FIELDS(row)
    emptied = [name for name in names if bytes(fields.get(name, _NULL)) != b"null"]
    return _ENCODE({**fields, **dict.fromkeys(emptied, _NULL), SHORTENED_FIELDS: emptied}) if emptied else None


def json_with_only(row: bytes, names: Collection[str]) -> bytes | None:
    """The JSON object of only these fields; `shortened_fields` lists the others, except long names.

    None if it has no others.
    """
    fields = _FIELDS(row)
    left = [name for name in fields if name not in names and bytes(fields[name]) != b"null"]
    if not left:
        return None
    told = [name for name in left if len(name) <= _NAME_CHARACTERS_MAX]
    return _ENCODE({**{name: raw for name, raw in fields.items() if name in names}, SHORTENED_FIELDS: told})


def _plain(column: pa.ChunkedArray) -> list[Any]:
    values = column.to_pylist()
    return [None if v is None else dict(v) for v in values] if pa.types.is_map(column.type) else values
