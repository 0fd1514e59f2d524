"""Tables whose further columns came and went, or changed their type, on the way: brought to one schema.

The input's own fields are found batch by batch, so one batch may lack a field, and another hold text where the one
before held numbers.
"""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

_EXACT_MAX = 1 << 53  # whole numbers beyond are no doubles


class SchemaUnion:
    """The columns of all tables added so far; brings tables to all of them."""

    def __init__(self) -> None:
        self._types: dict[str, pa.DataType] = {}
        self._large: set[str] = set()  # columns with whole numbers that no double holds

    def add(self, table: pa.Table) -> None:
        """Add the columns of a table."""
        for field in table.schema:
            known = self._types.get(field.name)
            self._types[field.name] = field.type if known is None else _common(known, field.type)
            if pa.types.is_int64(field.type) or pa.types.is_uint64(field.type):
                ends = pc.min_max(table[field.name])
                if max(abs(ends["min"].as_py() or 0), abs(ends["max"].as_py() or 0)) > _EXACT_MAX:
                    self._large.add(field.name)

    def aligned(self, tables: Iterable[pa.Table]) -> list[pa.Table]:
        """The tables with every column added so far, in one order and one type; what they lack is null."""
        types = {name: self._type(name) for name in self._types}
        return [
            pa.table(
                {
                    name: _as(table[name], kind) if name in table.column_names else pa.nulls(table.num_rows, kind)
                    for name, kind in types.items()
                }
            )
            for table in tables
        ]

    def _type(self, name: str) -> pa.DataType:
        kind = self._types[name]
        return pa.string() if pa.types.is_floating(kind) and name in self._large else kind


def _common(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type that holds both: numbers together are doubles, anything else is text."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    numbers = [pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in (one, other)]
    return pa.float64() if all(numbers) else pa.string()


def _as(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | pa.Array:
    if pa.types.is_string(kind) and pa.types.is_binary(column.type):
        # a byte that is no UTF-8 is written as backslash, x and two digits, the rest as the text it is
        texts = [None if v is None else v.decode("utf-8", "backslashreplace") for v in column.to_pylist()]
        return pa.array(texts, kind)
    return column.cast(kind)
