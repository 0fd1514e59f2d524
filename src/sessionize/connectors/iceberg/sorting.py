"""Rows of one partition in the table's order, however many: what does not fit into memory is divided on disk first.

Each part has a narrow range of the first two columns of the order (a date and a bucket), so the files that are made of
them have narrow ranges too, and whoever looks for a bucket, or replaces rows of one, opens few.
"""

import shutil
import tempfile
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
    """Takes the rows of one partition and gives them to a staging, in order; a context manager.

    rows_expected: about how many there will be. Errors: OSError.
    """

    def __init__(self, staging: Staging, rows_expected: int) -> None:
        self._staging, self._rows_expected = staging, rows_expected
        self._columns = _leading(staging.metadata, staging.schema)
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
        """Take rows in the table's columns."""
        if not self._columns:
            self._staging.add(rows)
            return
        self._waiting.append(rows)
        if sum(part.nbytes for part in self._waiting) >= MEMORY_BYTES_MAX:
            self._divide()

    def finish(self) -> None:
        """Everything is there."""
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
        keys = self._keys(rows)
        if self._folder is None:
            count = max(2, -(-self._rows_expected // rows.num_rows) + 1)
            self._bounds = np.unique(np.quantile(keys, np.arange(1, count) / count, method="nearest"))
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

    def _keys(self, rows: pa.Table) -> npt.NDArray[np.int64]:
        keys = np.zeros(rows.num_rows, np.int64)
        for at in self._columns:
            values = rows.column(at).cast(pa.int32()).fill_null(0).to_numpy().astype(np.int64)
            keys = keys * _BUCKETS_MAX + values
        return keys


def _leading(metadata: TableMetadata, schema: Schema) -> list[int]:
    """Where the dates and buckets are by which the table is sorted first."""
    order = metadata.sort_order_by_id(metadata.default_sort_order_id)
    found = []
    for sort in order.fields[:2] if order is not None else ():
        column = schema.find_field(sort.source_id)
        if not isinstance(sort.transform, IdentityTransform) or not isinstance(
            column.field_type, (DateType, IntegerType)
        ):
            break
        found.append(schema.fields.index(column))
    return found
