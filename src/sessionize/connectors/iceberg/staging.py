"""Data files that are written but not yet part of a table: rows in, one growing Parquet file per partition.

Rows wait in memory only until they are worth a row group, then one sort brings each partition's rows together
and each goes to its own file; where the table lets choose, the rows that waited decide by which partition spec.
The table's metadata is read here, never changed; a file counts only once a snapshot names it.
"""

import contextlib
import itertools
import os
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import (
    MetricModeTypes,
    StatisticsCollector,
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
    schema_to_pyarrow,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionFieldValue, PartitionKey, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record

from sessionize.connectors.iceberg.data_files import read_files, remove_files
from sessionize.connectors.iceberg.layouts import chosen, partition_values, specs_to_choose
from sessionize.connectors.iceberg.schema_evolution import file_schema
from sessionize.connectors.iceberg.storage import open_data_file, sync_data_file
from sessionize.errors import OutputError
from sessionize.session.columns import EVENT_ID, EVENT_TIME, SESSION_END, SESSION_ID, SESSION_START

BUFFER_BYTES_MAX = 64 << 20
# What a table says of a column's metrics when nothing is kept of its values.
_NO_BOUNDS = frozenset({MetricModeTypes.NONE, MetricModeTypes.COUNTS})
# Each open file holds a descriptor; processes are commonly allowed 1024.
_OPEN_FILES_MAX = 256
_WORKERS = min(4, os.cpu_count() or 1)
_FILE_SIZE_DEFAULT = 128 << 20
_ROW_GROUP_ROWS_DEFAULT = 1 << 20
# Below this, handing a piece to another thread costs more than writing it.
_PIECE_BYTES_MIN = 1 << 20
# Columns whose values hardly repeat: a dictionary of them would be built and thrown away.
_UNLIKE = frozenset({EVENT_ID, EVENT_TIME, SESSION_ID, SESSION_START, SESSION_END})

Ints = npt.NDArray[np.int64]
PartitionValues = tuple[Any, ...]
# The number of a partition spec, and the values of its fields.
FileKey = tuple[int, PartitionValues]


@dataclass(slots=True)
class _OpenFile:
    """One data file while it grows. One thread at a time writes to it."""

    path: str
    spec_id: int
    partition: PartitionKey | None
    io: FileIO
    schema: pa.Schema
    dictionaries: list[str]
    measured: list[str] | bool
    row_group_rows: int
    compression: str
    stream: Any = None
    writer: pq.ParquetWriter | None = None

    def write(self, rows: pa.Table) -> None:
        if self.writer is None:
            self.stream = open_data_file(self.io, self.path)
            self.writer = pq.ParquetWriter(
                self.stream,
                self.schema,
                compression=self.compression,
                use_dictionary=self.dictionaries,
                write_statistics=self.measured,
                store_decimal_as_integer=True,
            )
        self.writer.write_table(rows, row_group_size=self.row_group_rows)

    def size_bytes(self) -> int:
        return int(self.stream.tell()) if self.stream is not None else 0

    def close(self) -> tuple[pq.FileMetaData, int]:
        """Finish the file for good; its footer and its size. Both handles are released even when the disk is full."""
        assert self.writer is not None
        try:
            self.writer.close()
            size = self.size_bytes()
        finally:
            self.stream.close()
        sync_data_file(self.io, self.path)
        return self.writer.writer.metadata, size

    def drop(self) -> None:
        """Release both handles of a file that nobody wants; what the disk says about it does not matter."""
        with contextlib.suppress(OSError, pa.ArrowException):
            if self.writer is not None:
                self.writer.close()
        with contextlib.suppress(OSError, pa.ArrowException):
            if self.stream is not None:
                self.stream.close()


@dataclass(slots=True)
class Staging:
    """Writes rows of one table in one schema; `finish` gives the data files for a snapshot, `discard` removes
    them.

    metadata: of the table as it was when staging began; its partitions and properties hold for all files.
    schema: what is written, with the field ids the files carry.
    """

    io: FileIO
    metadata: TableMetadata
    schema: Schema
    buffer_bytes_max: int = BUFFER_BYTES_MAX
    _paths: list[str] = field(default_factory=list, init=False)
    _done: list[DataFile] = field(default_factory=list, init=False)
    _open: OrderedDict[FileKey, _OpenFile] = field(default_factory=OrderedDict, init=False)
    _buffer: list[pa.Table] = field(default_factory=list, init=False)
    _buffered_bytes: int = field(default=0, init=False)
    _columns: pa.Schema = field(init=False)
    _dictionaries: list[str] = field(init=False)
    _measured: list[str] | bool = field(init=False)
    _statistics: dict[int, StatisticsCollector] = field(init=False)
    _ids: dict[str, int] = field(init=False)
    _name: str = field(default_factory=lambda: uuid.uuid4().hex, init=False)

    def __post_init__(self) -> None:
        self._prepare()

    def add(self, rows: pa.Table) -> None:
        """Take rows aligned to `schema`; they reach the disk when the buffer is full. Errors: OSError."""
        self._buffer.append(rows)
        self._buffered_bytes += rows.nbytes
        if self._buffered_bytes >= self.buffer_bytes_max:
            self.flush()

    def change_schema(self, schema: Schema) -> None:
        """Write what follows in a new schema; files that are begun are finished in the old one."""
        self.flush()
        self._close(list(self._open))
        self.schema = schema
        self._prepare()

    def finish(self) -> list[DataFile]:
        """Write and close everything; all data files so far, in the order of their paths. Errors: OSError."""
        self.flush()
        self._close(list(self._open))
        self._done.sort(key=lambda file: file.file_path)
        return self._done

    def read_back(self) -> Iterator[pa.Table]:
        """The rows of the finished files, a row group at a time. Errors: OSError."""
        return read_files(self.io, self._done, self.schema)

    def discard(self) -> None:
        """Remove every file that was begun. Errors: OutputError, after all were tried, for those left."""
        for file in self._open.values():
            file.drop()
        self._open.clear()
        self._buffer.clear()
        remove_files(self.io, self._paths)

    def _prepare(self) -> None:
        """What every file of the schema needs, and what costs more than a small file."""
        in_files = file_schema(self.schema)
        self._columns = schema_to_pyarrow(in_files)
        self._statistics = compute_statistics_plan(in_files, self.metadata.properties)
        self._ids = parquet_path_to_id_mapping(in_files)
        self._dictionaries = [path for path in self._ids if path not in _UNLIKE]
        # minima and maxima that no reader can use cost a fifth of writing sessions
        unmeasured = self.metadata.properties.get("write.metadata.metrics.default") == "none"
        wanted = {i for i, plan in self._statistics.items() if plan.mode.type not in _NO_BOUNDS}
        self._measured = [path for path, i in self._ids.items() if i in wanted] if unmeasured else True

    def flush(self) -> None:
        """Write the rows that wait to their files. Errors: OSError."""
        if not self._buffer:
            return
        rows = pa.concat_tables(self._buffer).combine_chunks()
        self._buffer.clear()
        self._buffered_bytes = 0
        spec = chosen(specs_to_choose(self.metadata), rows, self.schema)
        groups = list(self._partitions(rows, spec))
        for first in range(0, len(groups), _OPEN_FILES_MAX):
            self._write(groups[first : first + _OPEN_FILES_MAX])

    def _write(self, groups: Sequence[tuple[FileKey, pa.Table]]) -> None:
        """At most _OPEN_FILES_MAX groups, side by side; files used longest ago are finished to make room."""
        keys = {values for values, _ in groups}
        surplus = len(self._open.keys() | keys) - _OPEN_FILES_MAX
        if surplus > 0:
            self._close([values for values in self._open if values not in keys][:surplus])
        tasks = []
        for values, rows in groups:
            file = self._open.get(values) or self._new_file(values)
            self._open[values] = file
            self._open.move_to_end(values)
            tasks.append((file.write, rows))
        if sum(rows.nbytes for _, rows in groups) < len(groups) * _PIECE_BYTES_MIN:
            for write, rows in tasks:
                write(rows)
        else:
            _side_by_side(tasks)
        limit = int(self.metadata.properties.get("write.target-file-size-bytes", _FILE_SIZE_DEFAULT))
        self._close([values for values in keys if self._open[values].size_bytes() >= limit])

    def _new_file(self, of: FileKey) -> _OpenFile:
        spec_id, values = of
        key = self._key(self.metadata.specs()[spec_id], values) if values else None
        locations = load_location_provider(self.metadata.location, self.metadata.properties)
        path = locations.new_data_location(f"{len(self._paths):05d}-{self._name}.parquet", key)
        self._paths.append(path)
        properties = self.metadata.properties
        return _OpenFile(
            path,
            spec_id,
            key,
            self.io,
            self._columns,
            self._dictionaries,
            self._measured,
            row_group_rows=int(properties.get("write.parquet.row-group-limit", _ROW_GROUP_ROWS_DEFAULT)),
            compression=properties.get("write.parquet.compression-codec", "zstd").replace("uncompressed", "none"),
        )

    def _key(self, spec: PartitionSpec, values: PartitionValues) -> PartitionKey:
        pairs = zip(spec.fields, values, strict=True)
        return PartitionKey([PartitionFieldValue(f, value) for f, value in pairs], spec, self.schema)

    def _close(self, keys: Iterable[FileKey]) -> None:
        files = [self._open.pop(values) for values in keys]
        for file, (footer, size_bytes) in zip(files, _side_by_side([(f.close,) for f in files]), strict=True):
            statistics = data_file_statistics_from_parquet_metadata(footer, self._statistics, self._ids)
            done = DataFile.from_args(
                content=DataFileContent.DATA,
                file_path=file.path,
                file_format=FileFormat.PARQUET,
                partition=file.partition.partition if file.partition is not None else Record(),
                file_size_in_bytes=size_bytes,
                sort_order_id=None,
                equality_ids=None,
                key_metadata=None,
                **statistics.to_serialized_dict(),
            )
            done.spec_id = file.spec_id
            self._done.append(done)

    def _partitions(self, rows: pa.Table, spec: PartitionSpec) -> Iterator[tuple[FileKey, pa.Table]]:
        """The rows of each partition, in the table's sort order, ties in the order they came."""
        group = np.zeros(rows.num_rows, np.int64)
        coded = []
        for partition in spec.fields:
            values = partition_values(partition, rows, self.schema)
            codes = values.dictionary_encode(null_encoding="encode")
            coded.append(codes)
            group = group * len(codes.dictionary) + codes.indices.to_numpy()
        order = group
        wanted = self.metadata.sort_order_by_id(self.metadata.default_sort_order_id)
        for sort in wanted.fields if wanted is not None else ():
            if not isinstance(sort.transform, IdentityTransform):
                continue
            source = self.schema.find_field(sort.source_id)
            codes = rows.column(self.schema.fields.index(source)).combine_chunks().dictionary_encode()
            ranks = np.empty(len(codes.dictionary) + 1, np.int64)
            ranks[-1] = len(codes.dictionary)
            ranks[pc.sort_indices(codes.dictionary).to_numpy()] = np.arange(len(codes.dictionary))
            order = _refined(order, ranks[codes.indices.fill_null(-1).to_numpy()], len(ranks))
        if not np.all(order[1:] >= order[:-1]):
            by = np.argsort(order.astype(np.min_scalar_type(int(order.max()))), kind="stable")
            rows, group = _taken(rows, pa.array(by)), group[by]
            coded = [codes.take(pa.array(by)) for codes in coded]
        starts = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), rows.num_rows]
        for start, end in itertools.pairwise(starts):
            values = tuple(_value(codes[start]) for codes in coded)
            yield (spec.spec_id, values), rows.slice(start, end - start)


def _refined(order: Ints, ranks: Ints, count: int) -> Ints:
    """The order of rows, ties by their ranks among `count`. The numbers stay within 63 bits."""
    if int(order.max(initial=0)) >= (1 << 62) // count:
        order = np.unique(order, return_inverse=True)[1]
    return order * count + ranks


def _taken(rows: pa.Table, by: pa.Array) -> pa.Table:
    """The rows in another order; a column that is empty anyway stays as it is."""
    empty = [column.null_count == rows.num_rows for column in rows.columns]
    moved = rows.select([i for i, is_empty in enumerate(empty) if not is_empty]).take(by)
    others = iter(moved.columns)
    columns = [column if is_empty else next(others) for column, is_empty in zip(rows.columns, empty, strict=True)]
    return pa.table(columns, schema=rows.schema)


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (OverflowError, ValueError) as error:
        raise OutputError(
            "a date cannot name a partition",
            detail=f"day {scalar.value.cast(pa.int32()).as_py()} since 1970-01-01: {error}",
            hint="only the years 1 to 9999 have partitions; such times should be rejected while decoding",
        ) from error


def _side_by_side(tasks: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Call each task (function, arguments…) on a few threads; results in order, errors after all ended."""
    if len(tasks) < 2:
        return [function(*arguments) for function, *arguments in tasks]
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="iceberg-files") as pool:
        futures: list[Future[Any]] = [pool.submit(function, *arguments) for function, *arguments in tasks]
        wait(futures)
    return [future.result() for future in futures]
