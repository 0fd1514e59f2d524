"""A table as an Arrow dataset: its data files as the catalog lists them, each with the partition it belongs
to.

A reader that pushes a filter on a partition column down into the dataset never opens the files of other
partitions. Files that lack a column read as null, narrower types as the table's own.
"""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from pyiceberg.io.pyarrow import PyArrowFileIO, schema_to_pyarrow
from pyiceberg.manifest import FileFormat
from pyiceberg.schema import Schema, index_by_name
from pyiceberg.table import FileScanTask, Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import DateType

from sessionize.connectors.iceberg.alignment import file_names, file_schema
from sessionize.errors import InputError


@dataclass(frozen=True, slots=True)
class ReadableTable:
    """data: an Arrow dataset, or a table where the dataset could not say what the rows are.

    names: what the table calls the columns of `data`, in their order; files escape names with unusual
    characters.
    """

    data: ds.Dataset | pa.Table
    names: tuple[str, ...]


def readable(table: Table) -> ReadableTable:
    """The table's current snapshot for a reader. Errors: InputError when it cannot be read.

    Tables that others changed in ways a plain dataset can't follow (deleted rows, renamed columns, other
    formats) are read into memory by pyiceberg instead.
    """
    schema = table.schema()
    names = tuple(file_names(schema).values())
    try:
        tasks = list(table.scan().plan_files())
        if not _is_plain(table, tasks) or not isinstance(table.io, PyArrowFileIO):
            return ReadableTable(table.scan().to_arrow(), names)
    except (OSError, ValueError) as error:
        raise InputError("a table cannot be read", detail=f"{'.'.join(table.name())}: {error}") from error
    columns = schema_to_pyarrow(file_schema(schema), include_field_ids=False)
    parquet = ds.ParquetFileFormat()
    fragments = []
    filesystem = table.io.fs_by_scheme("file", None)
    for task in tasks:
        scheme, netloc, path = PyArrowFileIO.parse_location(task.file.file_path, table.io.properties)
        filesystem = table.io.fs_by_scheme(scheme, netloc)
        fragments.append(parquet.make_fragment(path, filesystem, _partition(table, task)))
    data = ds.FileSystemDataset(fragments, columns, parquet, filesystem)
    return ReadableTable(data, names)


def _is_plain(table: Table, tasks: list[FileScanTask]) -> bool:
    """Whether every file's columns can be found by name alone, and every row of a file counts."""
    if any(task.delete_files or task.file.file_format != FileFormat.PARQUET for task in tasks):
        return False
    now = index_by_name(table.schema())
    ids = {field_id: name for name, field_id in now.items()}
    for schema in table.metadata.schemas:
        for name, field_id in index_by_name(schema).items():
            if now.get(name, field_id) != field_id or ids.get(field_id, name) != name:
                return False
    return True


def _partition(table: Table, task: FileScanTask) -> ds.Expression:
    """What holds for every row of a file, by its partition; transforms other than identity say nothing."""
    schema = table.schema()
    escaped = {in_table: in_file for in_file, in_table in file_names(schema).items()}
    known = ds.scalar(True)
    for i, partition in enumerate(table.specs()[task.file.spec_id].fields):
        name = schema.find_column_name(partition.source_id)
        if name is None or name not in escaped or not isinstance(partition.transform, IdentityTransform):
            continue
        column, value = ds.field(escaped[name]), task.file.partition[i]
        known = known & (
            column.is_null() if value is None else column == _scalar(schema, partition.source_id, value)
        )
    return known


def _scalar(schema: Schema, source_id: int, value: Any) -> pa.Scalar:
    """A partition's value as Iceberg keeps it (a date as days), in the column's Arrow type."""
    type_ = schema.find_field(source_id).field_type
    if isinstance(type_, DateType) and isinstance(value, int):
        return pa.scalar(value, pa.int32()).cast(pa.date32())
    return pa.scalar(value, schema_to_pyarrow(type_))
