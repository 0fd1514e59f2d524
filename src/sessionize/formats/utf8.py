"""Text in tables that is no text: other programs write strings into Parquet without looking whether they are UTF-8.

Such a value would pass through here unseen and fail wherever somebody reads it, so its row is found beforehand. Looking
costs one pass over the bytes, and little more than that where all of them are ASCII.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from sessionize.formats.rejects import INVALID_UTF8, Fault, Faults
from sessionize.session.limits import is_utf8

_SHOWN_BYTES = 40


@dataclass(frozen=True, slots=True)
class ValidText:
    """table: with � for what is no UTF-8. broken: by row and column what was none, as JSON of its bytes."""

    table: pa.Table
    broken: dict[int, dict[str, bytes]]

    @property
    def faults(self) -> Faults:
        """Of the rows with such values."""
        return {
            row: Fault(
                INVALID_UTF8, "not UTF-8: " + ", ".join(f"{n} = {v[:_SHOWN_BYTES]!r}" for n, v in values.items())
            )
            for row, values in self.broken.items()
        }


def with_sound_text(table: pa.Table) -> ValidText:
    """Errors: ArrowInvalid for other damage."""
    broken: dict[int, dict[str, bytes]] = {}
    for place, field in enumerate(table.schema):
        column = table.column(place)
        if all(_is_sound(chunk) for chunk in column.chunks):
            continue
        start, chunks = 0, []
        for chunk in column.chunks:
            mended, values = _mended(chunk)
            chunks.append(mended)
            for row, value in values.items():
                broken.setdefault(start + row, {})[field.name] = value
            start += len(chunk)
        table = table.set_column(place, field, pa.chunked_array(chunks, field.type))
    return ValidText(table, broken)


def _is_sound(array: pa.Array) -> bool:
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _is_sound(array.dictionary)
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


def _mended(array: pa.Array) -> tuple[pa.Array, dict[int, bytes]]:
    """The array with � for what is no UTF-8, and by row the values that were none, as JSON."""
    if pa.types.is_dictionary(array.type):
        mended, broken = _mended(array.dictionary)
        codes = array.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(np.isin(codes, np.fromiter(broken, np.int64, len(broken)))).tolist()
        return pa.DictionaryArray.from_arrays(array.indices, mended), {row: broken[int(codes[row])] for row in rows}
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
    """The type with bytes in place of text."""
    if _is_text(kind):
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
    """The value with text in place of bytes. errors: as in bytes.decode."""
    if value is None:
        return None
    if _is_text(kind):
        return value.decode("utf-8", errors)
    if pa.types.is_struct(kind):
        return {field.name: _text_in(value[field.name], field.type, errors) for field in kind}
    if pa.types.is_map(kind):
        return [(_text_in(k, kind.key_type, errors), _text_in(v, kind.item_type, errors)) for k, v in value]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [_text_in(each, kind.value_type, errors) for each in value]
    return value


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
