"""Sorts the rows of one partition; rows that do not fit into memory are first divided on disk.

Each part has a narrow range of the first two sort columns (a date and a bucket), so the resulting files have narrow
ranges too, and reading or replacing the rows of a bucket opens few of them. The ranges are computed from these two
columns of all rows, read ahead: the first rows are not representative, because files are already sorted.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import DateType, IntegerType

from sessionize.connectors.iceberg.staging import Staging

MEMORY_BYTES_MAX = 48 << 20
_BUCKETS_MAX = 1 << 20


class SortedRows:
    """Takes the rows of one partition and stages them in order; a context manager.

    ahead: given column names, returns these columns of all rows to come, in pieces; called if the rows do not fit into
    memory. Errors: OSError.
    """

    def __init__(self, staging: Staging, ahead: Callable[[Sequence[str]], Iterable[pa.Table]]) -> None:
        self._staging, self._ahead = staging, ahead
        names = [field.name for field in staging.schema.fields]
        self._columns = [names.index(name) for name in leading_columns(staging.metadata, staging.schema)]
        self._waiting: list[pa.Table] = []
        self._folder: Path | None = None
        self._bounds: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._parts: list[pa.ipc.RecordBatchStreamWriter] = []

    def __enter__(self) -> "SortedRows":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for part in self._parts:
            part.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, rows: pa.Table) -> None:
        """Add rows with the table's columns."""
        if not self._columns:
            self._staging.add(rows)
            return
        self._waiting.append(rows)
        if sum(part.nbytes for part in self._waiting) >= MEMORY_BYTES_MAX:
            self._divide()

    def finish(self) -> None:
        """Stage the remaining rows: all were added."""
        if self._folder is None:
            for rows in self._waiting:
                self._staging.add(rows)
            return
        if self._waiting:
            self._divide()
        for number, part in enumerate(self._parts):
            part.close()
            path = self._folder / f"{number}.arrow"
            with pa.ipc.open_stream(pa.OSFile(str(path))) as reader:
                for batch in reader:
                    self._staging.add(pa.Table.from_batches([batch]))
            self._staging.flush()
            path.unlink()

    def _divide(self) -> None:
        rows = pa.concat_tables(self._waiting).combine_chunks()
        self._waiting = []
        keys = _keys([rows.column(at) for at in self._columns])
        if self._folder is None:
            self._bounds = self._bounds_for(rows.num_rows)
            self._folder = Path(tempfile.mkdtemp(prefix="sessionize-sort-"))
            options = pa.ipc.IpcWriteOptions(compression="zstd")
            self._parts = [
                pa.ipc.new_stream(str(self._folder / f"{i}.arrow"), rows.schema, options=options)
                for i in range(len(self._bounds) + 1)
            ]
        part = np.searchsorted(self._bounds, keys, side="right")
        rows = rows.take(pa.array(np.argsort(part, kind="stable")))
        ends = np.cumsum(np.bincount(part, minlength=len(self._parts)))
        for writer, start, end in zip(self._parts, [0, *ends[:-1]], ends, strict=True):
            writer.write_table(rows.slice(start, end - start))

    def _bounds_for(self, part_rows: int) -> npt.NDArray[np.int64]:
        """The first key of each part but the first, so that parts have at most about part_rows rows."""
        names = [self._staging.schema.fields[at].name for at in self._columns]
        found = np.empty(0, np.int64)
        counts = np.empty(0, np.int64)
        for rows in self._ahead(names):
            keys, times = np.unique(_keys([rows.column(name) for name in names]), return_counts=True)
            found, at = np.unique(np.concatenate([found, keys]), return_inverse=True)
            counts = np.bincount(at, np.concatenate([counts, times]), len(found)).astype(np.int64)
        ends = np.cumsum(counts)
        parts = max(2, -(-int(counts.sum()) // part_rows) + 1)
        return np.unique(found[np.searchsorted(ends, ends[-1] * np.arange(1, parts) // parts, side="right")])


def _keys(columns: Sequence[pa.ChunkedArray]) -> npt.NDArray[np.int64]:
    """Numbers that sort like the columns."""
    keys = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        keys = keys * _BUCKETS_MAX + column.cast(pa.int32()).fill_null(0).to_numpy().astype(np.int64)
    return keys


def leading_columns(metadata: TableMetadata, schema: Schema) -> list[str]:
    """The date and bucket columns that the table is sorted by first, at most two."""
    order = metadata.sort_order_by_id(metadata.default_sort_order_id)
    found = []
    for sort in order.fields[:2] if order is not None else ():
        column = schema.find_field(sort.source_id)
        if not isinstance(sort.transform, IdentityTransform) or not isinstance(
            column.field_type, (DateType, IntegerType)
        ):
            break
        found.append(column.name)
    return found
