"""Rows of a table as JSON objects, one value for each row: what goes out record by record."""

from typing import Any

import msgspec
import pyarrow as pa

from sessionize.formats.faults import RAW_BYTES_MAX

_ENCODE = msgspec.json.Encoder().encode


def json_rows(rows: pa.Table) -> list[bytes]:
    """One JSON object for each row; maps are objects, dates ISO 8601, bytes base64, a NaN is null."""
    columns = [_plain(column) for column in rows.columns]
    names = rows.column_names
    return [_ENCODE(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


def json_rejected(rejected: pa.Table) -> list[bytes]:
    """REJECTED_SCHEMA as JSON objects: raw as text where it is UTF-8, else as raw_base64.

    At most RAW_BYTES_MAX of raw are kept, so that a record of any size fits into a message; raw_size_bytes is its size.
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


def _plain(column: pa.ChunkedArray) -> list[Any]:
    values = column.to_pylist()
    return [None if v is None else dict(v) for v in values] if pa.types.is_map(column.type) else values
