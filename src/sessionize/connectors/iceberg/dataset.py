"""A table as an Arrow dataset: its data files from the catalog, each with its partition.

A filter on a partition column that a reader pushes down skips the files of other partitions. A column missing from a
file reads as null, a narrower type as the table's type.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import and_
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan, PyArrowFileIO, schema_to_pyarrow
from pyiceberg.manifest import DataFile, FileFormat
from pyiceberg.schema import index_by_name
from pyiceberg.table import FileScanTask, Table
from pyiceberg.transforms import IdentityTransform, MonthTransform, Transform, TruncateTransform
from pyiceberg.typedef import Record

from sessionize.connectors.iceberg.listing import listed_files, paths_with_deletes
from sessionize.connectors.iceberg.schema_evolution import file_names, file_schema
from sessionize.connectors.iceberg.storage import split_location
from sessionize.errors import InputError

_FILES_AT_ONCE = 200
_BATCH_ROWS = 1 << 15


@dataclass(frozen=True, slots=True)
class ReadableTable:
    """data: an Arrow dataset, or a table if a dataset cannot represent the rows.

    names: the table's names of the columns of `data`, in order; files escape unusual characters in names.
    """

    data: ds.Dataset | pa.Table
    names: tuple[str, ...]


def readable(table: Table) -> ReadableTable:
    """The table's current snapshot for a reader. Errors: InputError if it cannot be read.

    Tables that other programs changed beyond a plain dataset (deleted rows, renamed columns, other formats) are read
    into memory by pyiceberg instead.
    """
    schema = table.schema()
    names = tuple(file_names(schema).values())
    try:
        files = [listed.file for listed in listed_files(table)]
        if not _is_plain(table, files) or not isinstance(table.io, PyArrowFileIO):
            return ReadableTable(table.scan().to_arrow(), names)
    except (OSError, ValueError) as error:
        raise InputError("a table cannot be read", detail=f"{'.'.join(table.name())}: {error}") from error
    return ReadableTable(_dataset(table, table.io, files), names)


def batches(table: Table, files: Sequence[DataFile], *, only: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows of some files in the table's current columns, in pieces; memory holds a few files at a time.

    only: of these columns, in this order; None: all.
    """
    if not found_by_name(table) or not isinstance(table.io, PyArrowFileIO):
        schema = table.schema() if only is None else table.schema().select(*only)
        scan = ArrowScan(table.metadata, table.io, schema, AlwaysTrue())
        for batch in scan.to_record_batches([FileScanTask(file) for file in files]):
            rows = pa.Table.from_batches([batch])
            yield rows if only is None else rows.select(list(only))
        return
    in_file = {in_table: in_file for in_file, in_table in file_names(table.schema()).items()}
    in_table = list(in_file) if only is None else list(only)
    columns = [in_file[name] for name in in_table]
    for start in range(0, len(files), _FILES_AT_ONCE):
        # a fragment keeps its footer in memory, so there are only a few at a time
        data = _dataset(table, table.io, files[start : start + _FILES_AT_ONCE])
        for batch in data.to_batches(columns, batch_size=_BATCH_ROWS, batch_readahead=4, fragment_readahead=4):
            if batch.num_rows:
                yield pa.Table.from_batches([batch]).rename_columns(in_table)


def rows_in_pieces(table: Table, *, only: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """All rows of the table's current snapshot, in pieces. only: of these columns. Errors: InputError."""
    try:
        yield from batches(table, [listed.file for listed in listed_files(table)], only=only)
    except (OSError, ValueError) as error:
        raise InputError("a table cannot be read", detail=f"{'.'.join(table.name())}: {error}") from error


def by_files(table: Table, groups: Sequence[frozenset[str]]) -> Iterator[tuple[int | None, pa.Table]]:
    """All rows in pieces, each with the index of its file's group; None for files outside all groups.

    groups: paths of data files. Only for a table that is_plain. Errors: those of reading files.
    """
    of = {path: index for index, group in enumerate(groups) for path in group}
    files: dict[int | None, list[DataFile]] = {}
    for listed in listed_files(table):
        files.setdefault(of.get(listed.file.file_path), []).append(listed.file)
    for index, its in files.items():
        for rows in batches(table, its):
            yield index, rows


def is_plain(table: Table) -> bool:
    """Whether the rows of a table are those of its data files: no other program deleted rows or renamed columns."""
    return _is_plain(table, [listed.file for listed in listed_files(table)])


def _dataset(table: Table, io: PyArrowFileIO, files: Iterable[DataFile]) -> ds.FileSystemDataset:
    columns = schema_to_pyarrow(file_schema(table.schema()), include_field_ids=False)
    parquet = ds.ParquetFileFormat()
    known = _partition_columns(table)
    fragments = []
    filesystem = io.fs_by_scheme("file", None)
    for file in files:
        scheme, netloc, path = split_location(file.file_path, io.properties)
        filesystem = io.fs_by_scheme(scheme, netloc)
        holds = (column.holds(file.partition) for column in known[file.spec_id])
        fragments.append(parquet.make_fragment(path, filesystem, functools.reduce(and_, holds, ds.scalar(True))))
    return ds.FileSystemDataset(fragments, columns, parquet, filesystem)


def _is_plain(table: Table, files: list[DataFile]) -> bool:
    """Whether the columns of every file can be found by name, and every row of a file counts."""
    if any(file.file_format != FileFormat.PARQUET for file in files) or paths_with_deletes(table):
        return False
    return found_by_name(table)


def found_by_name(table: Table) -> bool:
    """Whether no column was renamed, or dropped and recreated, so that a file's columns can be found by name."""
    now = index_by_name(table.schema())
    ids = {field_id: name for name, field_id in now.items()}
    for schema in table.metadata.schemas:
        for name, field_id in index_by_name(schema).items():
            if now.get(name, field_id) != field_id or ids.get(field_id, name) != name:
                return False
    return True


@dataclass(frozen=True, slots=True)
class _PartitionColumn:
    """A partition column of one partition spec: the position of its value and its name."""

    index: int
    column: ds.Expression
    type_: pa.DataType
    transform: Transform[Any, Any]

    def holds(self, values: Record) -> ds.Expression:
        """The condition implied by a file's partition value. Iceberg stores dates and months as numbers since 1970."""
        value, transform = values[self.index], self.transform
        if value is None:
            return self.column.is_null()
        if isinstance(transform, MonthTransform):
            return (self.column >= self._scalar(_month(value))) & (self.column < self._scalar(_month(value + 1)))
        if isinstance(transform, TruncateTransform):
            return (self.column >= self._scalar(value)) & (self.column < self._scalar(value + transform.width))
        return self.column == self._scalar(value)

    def _scalar(self, value: int) -> pa.Scalar:
        is_date = pa.types.is_date32(self.type_)
        return pa.scalar(value, pa.int32()).cast(self.type_) if is_date else pa.scalar(value, self.type_)


def _month(number: int) -> int:
    """The first day of a month; both are counted from January 1970."""
    return int(np.datetime64(number, "M").astype("datetime64[D]").astype(np.int64))


def _determines_values(transform: Transform[Any, Any], type_: pa.DataType) -> bool:
    """Whether a partition value determines the column's values."""
    if isinstance(transform, MonthTransform):
        return bool(pa.types.is_date32(type_))
    return isinstance(transform, IdentityTransform) or (
        isinstance(transform, TruncateTransform) and bool(pa.types.is_integer(type_))
    )


def _partition_columns(table: Table) -> dict[int, list[_PartitionColumn]]:
    """By partition spec: the columns whose values it determines; other transforms are ignored here."""
    schema = table.schema()
    escaped = {in_table: in_file for in_file, in_table in file_names(schema).items()}
    columns: dict[int, list[_PartitionColumn]] = {spec_id: [] for spec_id in table.specs()}
    for spec_id, spec in table.specs().items():
        for i, partition in enumerate(spec.fields):
            name = schema.find_column_name(partition.source_id)
            type_ = schema_to_pyarrow(schema.find_field(partition.source_id).field_type)
            if name in escaped and _determines_values(partition.transform, type_):
                columns[spec_id].append(_PartitionColumn(i, ds.field(escaped[name]), type_, partition.transform))
    return columns
