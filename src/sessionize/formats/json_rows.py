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


def json_rows(rows: pa.Table, *, opaque: Collection[str] = ()) -> list[bytes]:
    """One JSON object for each row; maps are objects, dates ISO 8601, bytes base64, a NaN is null.

    opaque: columns of bytes that come last, as text where they are UTF-8, else as <name>_base64. At most RAW_BYTES_MAX
    of them are kept, so that a record of any size fits into a message; <name>_size_bytes is their size.
    """
    shown = rows.drop_columns([name for name in opaque if name in rows.column_names])
    names, columns = list(shown.column_names), [_plain(column) for column in shown.columns]
    for name in opaque:
        if name in rows.column_names:
            names += [name, f"{name}_base64", f"{name}_size_bytes"]
            columns += _as_text(rows[name].to_pylist())
    return [_ENCODE(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


def opaque_fields(name: str) -> tuple[str, str]:
    """Under which names the bytes of an opaque column may come."""
    return (name, f"{name}_base64")


def _as_text(values: list[bytes | None]) -> tuple[list[str | None], list[bytes | None], list[int | None]]:
    """Text, other bytes, and sizes."""
    texts: list[str | None] = []
    others: list[bytes | None] = []
    for value in values:
        text, other = None, None
        if value is not None:
            try:
                text = value[:RAW_BYTES_MAX].decode()
            except UnicodeDecodeError:
                other = value[:RAW_BYTES_MAX]
        texts.append(text)
        others.append(other)
    return texts, others, [None if value is None else len(value) for value in values]


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
    listed = [name for name in left if len(name) <= _NAME_CHARACTERS_MAX]
    return _ENCODE({**{name: raw for name, raw in fields.items() if name in names}, SHORTENED_FIELDS: listed})


def _plain(column: pa.ChunkedArray) -> list[Any]:
    values = column.to_pylist()
    return [None if v is None else dict(v) for v in values] if pa.types.is_map(column.type) else values
