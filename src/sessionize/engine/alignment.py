"""Tables whose further columns came and went, or changed their type, on the way: brought to one schema.

The input's own fields are found batch by batch, so one batch may lack a field, and another hold text where the one
before held numbers.
"""

from collections.abc import Iterable

import pyarrow as pa


class Columns:
    """Learns the columns of every table it sees, and brings tables to all of them."""

    def __init__(self) -> None:
        self._types: dict[str, pa.DataType] = {}

    def learn(self, table: pa.Table) -> None:
        """Remember the columns of a table."""
        for field in table.schema:
            known = self._types.get(field.name)
            self._types[field.name] = field.type if known is None else _common(known, field.type)

    def aligned(self, tables: Iterable[pa.Table]) -> list[pa.Table]:
        """The tables with every column learned so far, in one order and one type; what they lack is null."""
        return [
            pa.table(
                {
                    name: table[name].cast(kind) if name in table.column_names else pa.nulls(table.num_rows, kind)
                    for name, kind in self._types.items()
                }
            )
            for table in tables
        ]


def _common(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type that holds both: numbers together are doubles, anything else is text."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    numbers = [pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in (one, other)]
    return pa.float64() if all(numbers) else pa.string()
