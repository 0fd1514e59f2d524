"""Tables as sources of events: one snapshot, decoded in pieces as the rows of a Parquet file are.

What a table is made of is its connector's: iceberg/table_source.py, delta/source.py.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Protocol

import pyarrow as pa

from sessionize.formats.dialects import Dialect
from sessionize.formats.tabular import Tabular
from sessionize.formats.tabular_layout import Layout
from sessionize.ports import EventBatch

_ROWS_AT_ONCE = 1 << 18
_BYTES_AT_ONCE = 64 << 20
# The types of views and of long texts, which engines hand out, and those that decoding knows.
_PLAIN = {
    pa.string_view(): pa.string(),
    pa.large_string(): pa.string(),
    pa.binary_view(): pa.binary(),
    pa.large_binary(): pa.binary(),
}


class TableSnapshot(Protocol):
    """A table as it was when it was opened.

    name: in the user's form. version: equal for equal rows of one table: its id and its snapshot. row_count: at most so
    many rows, None when unknown.
    """

    name: str
    version: str
    schema: pa.Schema
    row_count: int | None
    size_bytes: int

    def read(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """These columns of all rows, in a fixed order. Errors: InputError, UnavailableError."""


class TableSource:
    """Reads events from a table. Implements ports.Source."""

    def __init__(
        self,
        table: TableSnapshot,
        *,
        dialect: Dialect,
        columns: frozenset[str] | None = None,
        extras: bool = False,
        max_future_ms: int | None = None,
        now_ms: int | None = None,
        plain_users: bool = False,
    ) -> None:
        """Find the dialect's fields among the columns; no row is read yet.

        columns, extras, max_future_ms, now_ms, plain_users: as in FileSource. Errors: InputError for a column that is
        missing or holds lists or objects.
        """
        self.table = table
        self._dialect = dialect
        self._columns = columns
        self._plain_users = plain_users
        latest_ms = None
        if max_future_ms is not None:
            latest_ms = (time.time_ns() // 1_000_000 if now_ms is None else now_ms) + max_future_ms
        self._schema = pa.schema([each.with_type(_plain(each.type)) for each in table.schema])
        layout = Layout.of(self._schema, dialect, source=table.name, columns=columns, extras=extras)
        self._tabular = Tabular(layout, dialect, latest_ms=latest_ms)
        tops = {path[0] for paths in layout.paths.values() for path in paths} | {*layout.extras, *layout.rest}
        self._read = [name for name in self._schema.names if name in tops]

    @property
    def size_bytes(self) -> int | None:
        """The size of the table's files."""
        return self.table.size_bytes

    @property
    def event_columns(self) -> frozenset[str]:
        """The canonical columns of every batch."""
        return frozenset(self._dialect.columns_for(self._columns))

    @property
    def user_name(self) -> str:
        """The input's name of the user column."""
        return self._dialect.user_name

    def batches(self) -> Iterator[EventBatch]:
        """The events, about a quarter million rows at a time. Errors: InputError for files that are missing or damaged;
        UnavailableError if the storage fails.
        """
        name, rows, share = self.table.name, 0, _Share(self.table.size_bytes, self.table.row_count)
        schema = pa.schema([self._schema.field(column) for column in self._read])
        for table in _gathered(self.table.read(self._read), schema):
            decoded = self._tabular.decode(
                table,
                source=name,
                line_number=lambda row, before=rows: before + row + 1,  # type: ignore[misc]
                plain_users=self._plain_users,
            )
            rows += table.num_rows
            yield EventBatch(decoded.events, decoded.rejected, share.of(rows), decoded.lost, decoded.nulled)


class _Share:
    """The bytes that rows count for, where only those of the whole are known."""

    def __init__(self, size_bytes: int, row_count: int | None) -> None:
        self._size_bytes, self._row_count, self._before = size_bytes, row_count, 0

    def of(self, rows: int) -> int:
        """The bytes of the rows since the last call; rows: all so far."""
        if not self._row_count:
            return 0
        now = self._size_bytes * min(rows, self._row_count) // self._row_count
        self._before, share = now, now - self._before
        return share


def _gathered(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Small batches together, as decoding costs something for each; with the schema's types."""
    held: list[pa.RecordBatch] = []
    rows = size_bytes = 0
    for batch in batches:
        if not batch.num_rows:
            continue
        held.append(batch if batch.schema.equals(schema) else batch.cast(schema))  # files of a table may differ
        rows, size_bytes = rows + batch.num_rows, size_bytes + batch.nbytes
        if rows >= _ROWS_AT_ONCE or size_bytes >= _BYTES_AT_ONCE:
            yield pa.Table.from_batches(held)
            held, rows, size_bytes = [], 0, 0
    if held:
        yield pa.Table.from_batches(held)


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type without views and 64-bit offsets, also inside of lists and structs."""
    if pa.types.is_struct(kind):
        return pa.struct([each.with_type(_plain(each.type)) for each in kind])
    if pa.types.is_map(kind):
        return pa.map_(_plain(kind.key_type), _plain(kind.item_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_plain(kind.value_type), kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(kind.value_field.with_type(_plain(kind.value_type)))
    return _PLAIN.get(kind, kind)
