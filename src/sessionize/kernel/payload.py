"""The columns that operators ask for, in the types that they ask for."""

import pyarrow as pa

from sessionize.arrow import decoded_type

PAYLOAD_TYPES = frozenset({pa.string(), pa.int64(), pa.float64(), pa.bool_()})


def as_type(table: pa.Table, name: str, kind: pa.DataType) -> pa.ChunkedArray:
    """A column of the table in this type: null where there is none, and where a value has no form in the type."""
    if name not in table.column_names or table.column_names.count(name) > 1:
        return pa.chunked_array([pa.nulls(table.num_rows, kind)])
    column = table[name]
    if column.type == kind:
        return column
    if pa.types.is_nested(decoded_type(column.type)):
        return pa.chunked_array([pa.nulls(table.num_rows, kind)])
    try:
        return column.cast(kind)
    except pa.ArrowException:
        return _value_by_value(column, kind)


def _value_by_value(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """What can be converted; each distinct value is tried once."""
    made: dict[object, object] = {}
    for value in column.unique():
        try:
            made[value.as_py()] = value.cast(kind).as_py()
        except pa.ArrowException:
            made[value.as_py()] = None
    return pa.chunked_array([pa.array([made.get(value) for value in column.to_pylist()], kind)])
