"""A snapshot of an Iceberg table as input, whichever program has written it.

One data file is read after the other. Files with deleted rows, of tables with renamed columns and of other formats
than Parquet are read by pyiceberg, which takes a whole file into memory.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan, schema_to_pyarrow
from pyiceberg.manifest import FileFormat
from pyiceberg.table import FileScanTask, Table

from sessionize.connectors.iceberg.catalog import Catalog, load_table
from sessionize.connectors.iceberg.dataset import batches, found_by_name
from sessionize.connectors.iceberg.errors import STORAGE_ERRORS, storage_failure
from sessionize.connectors.iceberg.listing import listed_files, paths_with_deletes, table_size
from sessionize.errors import InputError, SessionizeError

_READ = "a table cannot be read"
_ERRORS = (*STORAGE_ERRORS, pa.ArrowException, ValueError, NotImplementedError)


class IcebergSnapshot:
    """An Iceberg table as it was when it was opened. Implements table_source.TableSnapshot."""

    def __init__(self, catalog: Catalog, database: str, table: str, *, name: str) -> None:
        """Read the table's metadata. name: for messages and rejected records.

        Errors: ConfigError where there is no such table; InputError, OutputError, UnavailableError.
        """
        self.name = name
        self._table = load_table(catalog, database, table)  # never refreshed, so the snapshot stays the same
        snapshot = self._table.current_snapshot()
        self.version = f"{self._table.metadata.table_uuid}@{'' if snapshot is None else snapshot.snapshot_id}"
        try:
            self.schema: pa.Schema = schema_to_pyarrow(self._table.schema(), include_field_ids=False)
            size = table_size(self._table)
        except _ERRORS as error:
            raise self._failure("its metadata", error) from error
        self.size_bytes = size.size_bytes
        self.row_count: int | None = size.rows

    def read(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """These columns of all rows. Errors: InputError for files that are missing or damaged; UnavailableError."""
        what: Any = "its metadata"
        try:
            plain, deleted = found_by_name(self._table), paths_with_deletes(self._table)
            for listed in listed_files(self._table):
                file = listed.file
                what = file.file_path
                if file.file_path in deleted:
                    continue
                if plain and file.file_format == FileFormat.PARQUET:
                    for rows in batches(self._table, [file], only=columns):
                        yield from rows.to_batches()
                else:
                    yield from _scanned(self._table, FileScanTask(file), columns)
            what = "its metadata"
            for task in self._table.scan().plan_files() if deleted else ():
                what = task.file.file_path
                if what in deleted:
                    yield from _scanned(self._table, task, columns)
        except _ERRORS as error:
            raise self._failure(what, error) from error

    def _failure(self, what: str, error: Exception) -> SessionizeError:
        is_local = what.startswith("file:") or isinstance(error, FileNotFoundError)
        if isinstance(error, OSError) and (error.errno is not None or not is_local) and not _is_missing(error):
            return storage_failure(_READ, f"{self.name}, {what}", error)
        if _is_missing(error):
            hint = "the file is gone, by maintenance or by hand; run again to read the newest snapshot"
        elif isinstance(error, STORAGE_ERRORS) and not isinstance(error, OSError):
            return storage_failure(_READ, f"{self.name}, {what}", error)
        else:
            hint = "the file is damaged, or the table uses a feature that pyiceberg does not read"
        return InputError(_READ, detail=f"{self.name}, {what}: {error}", hint=hint)


def _scanned(table: Table, task: FileScanTask, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    scan = ArrowScan(table.metadata, table.io, table.schema().select(*columns), AlwaysTrue())
    for batch in scan.to_record_batches([task]):
        yield batch.select(list(columns))


def _is_missing(error: Exception) -> bool:
    return isinstance(error, FileNotFoundError)
