"""Data files that are whole and that no snapshot names yet: who writes them need not be who commits them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema

from sessionize.connectors.iceberg.schema_evolution import file_names
from sessionize.errors import OutputError


@dataclass(frozen=True, slots=True)
class StagedFiles:
    """Files of one table, with what is needed to commit them from another process: all of it pickles.

    columns: what the rows brought, which the table has to learn. schema: with the field ids that the files carry.
    spec_id: the partition spec that the table had then.
    """

    files: tuple[DataFile, ...]
    columns: pa.Schema
    schema: Schema
    spec_id: int

    @property
    def rows(self) -> int:
        """How many rows the files have."""
        return sum(file.record_count for file in self.files)

    def read(self, io: FileIO) -> Iterator[pa.Table]:
        """The rows, a row group at a time. Errors: OSError."""
        return read_files(io, self.files, self.schema)


def read_files(io: FileIO, files: Iterable[DataFile], schema: Schema) -> Iterator[pa.Table]:
    """The rows of data files that were written in this schema, a row group at a time. Errors: OSError."""
    names = file_names(schema)
    for file in files:
        with io.new_input(file.file_path).open() as stream:
            parquet = pq.ParquetFile(stream)
            for group in range(parquet.num_row_groups):
                rows = parquet.read_row_group(group)
                yield rows.rename_columns([names[name] for name in rows.column_names])


def remove_files(io: FileIO, paths: Iterable[str]) -> None:
    """Remove files that no snapshot names. Errors: OutputError, after all were tried, for those left."""
    paths, failures = list(paths), list[str]()
    for path in paths:
        try:
            io.delete(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            failures.append(f"{path}: {error}")
    if failures:
        raise OutputError(
            "files that were not committed could not be removed",
            detail=f"{len(failures)} of {len(paths)}; {failures[0]}",
            hint="no table knows them; remove them by hand",
        )
