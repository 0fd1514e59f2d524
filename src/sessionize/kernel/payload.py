"""The columns that operators ask for, in the types that they ask for."""

import pyarrow as pa
import pyarrow.compute as pc

from sessionize.arrow import decoded_type
from sessionize.kernel.large_text import with_room

PAYLOAD_TYPES = frozenset({pa.string(), pa.int64(), pa.float64(), pa.bool_()})


def as_type(table: pa.Table, name: str, kind: pa.DataType) -> pa.ChunkedArray:
    """A column of the table in this type: null where there is none, and where a value has no form in the type.

    Values are never made Python's, which has no dates beyond the year 9999. Errors: none, whatever the values are.
    """
    if name not in table.column_names or table.column_names.count(name) > 1:
        return pa.chunked_array([pa.nulls(table.num_rows, kind)])
    column = table[name]
    if column.type == kind:
        return column
    if pa.types.is_nested(decoded_type(column.type)):
        return pa.chunked_array([pa.nulls(table.num_rows, kind)])
    parts = [_converted(part, kind) for chunk in column.chunks for part in with_room(chunk)]
    return pa.chunked_array(parts, kind)


def _converted(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if isinstance(values, pa.DictionaryArray):
        return _converted(values.dictionary, kind).take(values.indices)
    try:
        return values.cast(kind)
    except pa.ArrowException:
        return _value_by_value(values, kind)


def _value_by_value(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """What can be converted; each distinct value is tried once, where the type knows which are distinct."""
    try:
        distinct = values.unique()
        place = pc.index_in(values, distinct)
    except pa.ArrowException:
        distinct, place = values, None
    made = [_one_value(distinct.slice(at, 1), kind) for at in range(len(distinct))]
    converted = pa.concat_arrays([pa.array([], kind), *made])
    return converted if place is None else converted.take(place)


def _one_value(value: pa.Array, kind: pa.DataType) -> pa.Array:
    try:
        return value.cast(kind)
    except pa.ArrowException:
        return pa.nulls(1, kind)
