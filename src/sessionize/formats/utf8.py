"""Finds strings in tables that are not UTF-8: some programs write such strings into Parquet.

Such a value would pass unnoticed and fail in a later reader, so its row is rejected here. The check takes one pass
over the bytes, and pure ASCII needs little more.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from sessionize.arrow import is_text
from sessionize.formats.rejects import INVALID_UTF8, Fault, Faults
from sessionize.session.limits import is_utf8

_SHOWN_BYTES = 40


@dataclass(frozen=True, slots=True)
class ValidText:
    """table: with � for invalid bytes. broken: by row and column the invalid values, as JSON of their bytes."""

    table: pa.Table
    broken: dict[int, dict[str, bytes]]

    @property
    def faults(self) -> Faults:
        """The faults of the rows with invalid values."""
        return {
            row: Fault(
                INVALID_UTF8, "not UTF-8: " + ", ".join(f"{n} = {v[:_SHOWN_BYTES]!r}" for n, v in values.items())
            )
            for row, values in self.broken.items()
        }


def with_valid_text(table: pa.Table) -> ValidText:
    """The table with valid text, and the invalid values. Errors: ArrowInvalid for other damage."""
    broken: dict[int, dict[str, bytes]] = {}
    for place, field in enumerate(table.schema):
        column = table.column(place)
        if all(_is_valid(chunk) for chunk in column.chunks):
            continue
        start, chunks = 0, []
        for chunk in column.chunks:
            repaired, values = _repaired(chunk)
            chunks.append(repaired)
            for row, value in values.items():
                broken.setdefault(start + row, {})[field.name] = value
            start += len(chunk)
        table = table.set_column(place, field, pa.chunked_array(chunks, field.type))
    return ValidText(table, broken)


def _is_valid(array: pa.Array) -> bool:
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _is_valid(array.dictionary)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return is_utf8(array)
    if not (pa.types.is_nested(kind) or pa.types.is_string_view(kind)):
        return True
    try:
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise
        return False
    return True


def _repaired(array: pa.Array) -> tuple[pa.Array, dict[int, bytes]]:
    """The array with � for invalid bytes, and by row the invalid values as JSON."""
    if pa.types.is_dictionary(array.type):
        repaired, broken = _repaired(array.dictionary)
        codes = array.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(np.isin(codes, np.fromiter(broken, np.int64, len(broken)))).tolist()
        return pa.DictionaryArray.from_arrays(array.indices, repaired), {row: broken[int(codes[row])] for row in rows}
    values, found = [], {}
    for row, value in enumerate(array.cast(_as_bytes(array.type)).to_pylist()):
        try:
            values.append(_text_in(value, array.type, "strict"))
        except UnicodeDecodeError:
            values.append(_text_in(value, array.type, "replace"))
            escaped = json.dumps(_text_in(value, array.type, "surrogateescape"), ensure_ascii=False, default=str)
            found[row] = escaped.encode("utf-8", "surrogateescape")
    return pa.array(values, array.type), found


def _as_bytes(kind: pa.DataType) -> pa.DataType:
    """The type with bytes instead of text."""
    if is_text(kind):
        return pa.large_binary() if pa.types.is_large_string(kind) else pa.binary()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_as_bytes(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_as_bytes(kind.key_type), _as_bytes(kind.item_type))
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_as_bytes(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_as_bytes(kind.value_type)))
    return kind


def _text_in(value: Any, kind: pa.DataType, errors: str) -> Any:
    """The value with text instead of bytes. errors: as in bytes.decode."""
    if value is None:
        return None
    if is_text(kind):
        return value.decode("utf-8", errors)
    if pa.types.is_struct(kind):
        return {field.name: _text_in(value[field.name], field.type, errors) for field in kind}
    if pa.types.is_map(kind):
        return [(_text_in(k, kind.key_type, errors), _text_in(v, kind.item_type, errors)) for k, v in value]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [_text_in(each, kind.value_type, errors) for each in value]
    return value
