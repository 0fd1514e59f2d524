"""Adds fields to `properties`; its existing text stays unchanged."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from sessionize.session.columns import PROPERTIES

_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODE = msgspec.json.Encoder(enc_hook=str).encode

# Arrow adds columns of these names to those of a file; a scan of a file that has them too fails.
ARROWS_OWN = ("__filename", "__fragment_index", "__batch_index", "__last_in_fragment")


def with_fields(texts: Sequence[str | None], fields: pa.Table) -> pa.StringArray:
    """The JSON object of each text plus the non-null fields of its row.

    The values in the text are not decoded: a number keeps every digit, however long it is.
    """
    columns = [_python_times(column) for column in fields.columns]
    rows = pa.Table.from_arrays(columns, names=fields.column_names).to_pylist()
    return pa.array([_with(text, row) for text, row in zip(texts, rows, strict=True)], pa.string())


def moved_to_properties(events: pa.Table, names: Sequence[str]) -> pa.Table:
    """The events with these fields moved into `properties`."""
    texts = events[PROPERTIES].to_pylist() if PROPERTIES in events.column_names else [None] * events.num_rows
    merged = with_fields(texts, events.select(names))
    kept = events.drop_columns([name for name in (*names, PROPERTIES) if name in events.column_names])
    return kept.append_column(PROPERTIES, merged)


def _with(text: str | None, row: Mapping[str, Any]) -> str | None:
    given = {name: _finite(value) for name, value in row.items() if value is not None}
    if not given:
        return text
    return _ENCODE({**_MEMBERS.decode(text or "{}"), **given}).decode()


def _finite(value: Any) -> Any:
    """JSON has neither NaN nor infinity."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _python_times(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Python's times are no finer than a microsecond."""
    if pa.types.is_duration(column.type):
        return column.cast(pa.int64())
    in_ns = pa.types.is_timestamp(column.type) or pa.types.is_time64(column.type)
    return column.cast(pa.string()) if in_ns and column.type.unit == "ns" else column
