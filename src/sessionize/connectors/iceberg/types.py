"""Maps Arrow types to Iceberg types, and finds the wider of two types.

Only Iceberg's type promotions are allowed: int to long, float to double, a decimal to more digits.
"""

import pyarrow as pa
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
)

from sessionize.arrow import decoded_type
from sessionize.errors import OutputError


class FieldIds:
    """Temporary field ids for a new schema; the catalog assigns the final ones."""

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> int:
        self._last += 1
        return self._last


def iceberg_type(arrow: pa.DataType, column: str, ids: FieldIds) -> IcebergType:
    """The Iceberg type of a column. Errors: OutputError for a type that a format v2 table can't store."""
    arrow = decoded_type(arrow)
    if pa.types.is_list(arrow) or pa.types.is_large_list(arrow) or pa.types.is_fixed_size_list(arrow):
        return ListType(ids.next(), iceberg_type(arrow.value_type, column, ids), element_required=False)
    if pa.types.is_map(arrow):
        key_id, value_id = ids.next(), ids.next()
        key, value = (iceberg_type(t, column, ids) for t in (arrow.key_type, arrow.item_type))
        return MapType(key_id, key, value_id, value, value_required=False)
    if pa.types.is_struct(arrow):
        fields = [arrow.field(i) for i in range(arrow.num_fields)]
        return StructType(*(NestedField(ids.next(), f.name, iceberg_type(f.type, column, ids)) for f in fields))
    primitive = _primitive(arrow)
    if primitive is None:
        raise OutputError(
            "a column's type cannot be stored in an Iceberg table",
            detail=f"column {column!r} has the type {arrow}",
            hint="convert the column, or leave it out",
        )
    return primitive


def _primitive(arrow: pa.DataType) -> IcebergType | None:
    kinds = pa.types
    if kinds.is_boolean(arrow):
        return BooleanType()
    if kinds.is_integer(arrow):
        if kinds.is_uint64(arrow):
            return None
        return LongType() if kinds.is_int64(arrow) or kinds.is_uint32(arrow) else IntegerType()
    if kinds.is_floating(arrow):
        return DoubleType() if kinds.is_float64(arrow) else FloatType()
    if kinds.is_string(arrow) or kinds.is_large_string(arrow) or kinds.is_string_view(arrow):
        return StringType()
    if kinds.is_binary(arrow) or kinds.is_large_binary(arrow) or kinds.is_binary_view(arrow):
        return BinaryType()
    if kinds.is_date32(arrow):
        return DateType()
    if kinds.is_timestamp(arrow) and arrow.unit != "ns":
        return TimestampType() if arrow.tz is None else TimestamptzType()
    if kinds.is_time(arrow) and arrow.unit != "ns":
        return TimeType()
    if kinds.is_decimal(arrow) and arrow.precision <= 38:
        return DecimalType(arrow.precision, arrow.scale)
    return None


def wider(table: IcebergType, rows: IcebergType) -> IcebergType | None:
    """The type that holds the values of both, None if there is none; `table` itself if the rows fit.

    Nested types must be equal, because they do not evolve.
    """
    if fits(rows, table):
        return table
    return rows if table.is_primitive and fits(table, rows) else None


def fits(narrow: IcebergType, wide: IcebergType) -> bool:
    """Whether every value of `narrow` is a value of `wide` (field ids do not matter)."""
    if isinstance(narrow, ListType) and isinstance(wide, ListType):
        return fits(narrow.element_type, wide.element_type)
    if isinstance(narrow, MapType) and isinstance(wide, MapType):
        return fits(narrow.key_type, wide.key_type) and fits(narrow.value_type, wide.value_type)
    if isinstance(narrow, StructType) and isinstance(wide, StructType):
        names = [f.name for f in wide.fields]
        return [f.name for f in narrow.fields] == names and all(
            fits(n.field_type, w.field_type) for n, w in zip(narrow.fields, wide.fields, strict=True)
        )
    if isinstance(narrow, DecimalType) and isinstance(wide, DecimalType):
        return narrow.scale == wide.scale and narrow.precision <= wide.precision
    pairs = ((IntegerType, LongType), (FloatType, DoubleType))
    return narrow == wide or any(isinstance(narrow, n) and isinstance(wide, w) for n, w in pairs)
