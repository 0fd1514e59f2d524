"""Parquet to decoded batches, one per row group, two at a time in threads.

Text columns are read as dictionaries, which saves time and memory; users that the file stores without a dictionary
stay plain. A very large row group is read in slices. Of a damaged row group, the rows before the damage are read; the
others become one rejected record that counts for all of them. A file without a footer cannot be read.
"""

import errno
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sessionize.connectors.files.notices import LOG
from sessionize.connectors.files.parquet_footer import first_chunk_sizes
from sessionize.connectors.files.places import open_bytes, transport_failure
from sessionize.connectors.files.unreadable import file_failure
from sessionize.connectors.local_paths import is_address
from sessionize.errors import InputError
from sessionize.formats.dialects import Dialect
from sessionize.formats.rejects import CORRUPT_PARQUET, Fault, Rejects
from sessionize.formats.tabular import Tabular
from sessionize.formats.tabular_layout import Layout
from sessionize.formats.validation import DECODED_TYPES, Decoded
from sessionize.session.columns import USER

_THREADS = 2
_GROUP_ROWS_MAX = 2_000_000  # a larger row group is read in slices
_SLICE_ROWS = 1_000_000
_SALVAGED_ROWS = 500  # rows read at a time from a damaged row group
_LOST_MAX = 1 << 32  # a footer may contain any number
_TOO_FEW = "it has fewer rows than the footer says"
_PLAIN_BYTES_MIN = 12  # a value takes less than that where most of them are dictionary indices
_UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)
_OF_OFFSETS = (errno.EINVAL, errno.EFBIG, errno.EOVERFLOW)  # the errors for an invalid offset from a damaged footer


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetReader:
    """Reads the columns of a dialect from Parquet files, row groups of more than group_rows_max in slices.

    keys: columns with the same text in every row, unless the file has them.
    plain_users: users that a file stores without a dictionary may be plain text.
    piece_bytes_max: the approximate decoded size of a batch; it may be small in the file, where a value that a million
    rows share is stored once. None for no limit; otherwise row groups are read one after the other.
    """

    dialect: Dialect
    columns: frozenset[str] | None
    extras: bool
    latest_ms: int | None
    keys: tuple[tuple[str, str | None], ...] = ()
    plain_users: bool = False
    group_rows_max: int = _GROUP_ROWS_MAX
    slice_rows: int = _SLICE_ROWS
    piece_bytes_max: int | None = None

    def batches(self, path: str, size_bytes: int) -> Iterator[tuple[Decoded, int]]:
        """The batches of one file, each with its share of size_bytes.

        Errors: InputError if the file has no readable footer, lacks a mapped column, or cannot be reached;
        UnavailableError if the disk fails, which is not damage.
        """
        file = _opened(path)
        with file:
            keys = {name: text for name, text in self.keys if name not in file.schema_arrow.names}
            schema = pa.schema([*file.schema_arrow, *((name, pa.string()) for name in keys)])
            layout = Layout.of(schema, self.dialect, source=path, columns=self.columns, extras=self.extras)
            tabular = Tabular(layout, self.dialect, latest_ms=self.latest_ms)
            read = _Groups(
                path,
                file,
                layout,
                tabular,
                keys=keys,
                plain_users=self.plain_users,
                piece_bytes_max=self.piece_bytes_max,
            )
            rows = max(file.metadata.num_rows, 1)
            small = self.piece_bytes_max is None and all(n <= self.group_rows_max for n in read.row_counts)
            for decoded, row_count in read.two_at_once() if small else read.in_slices(self.slice_rows):
                yield decoded, size_bytes * row_count // rows


class _Groups:
    """The row groups of one file."""

    def __init__(
        self,
        path: str,
        file: pq.ParquetFile,
        layout: Layout,
        tabular: Tabular,
        *,
        keys: Mapping[str, str | None],
        plain_users: bool,
        piece_bytes_max: int | None,
    ) -> None:
        self._path = path
        self._piece_bytes_max = piece_bytes_max
        self._metadata = file.metadata
        self._schema = file.schema_arrow
        self._layout = layout
        self._keys = keys
        self._read = [name for name in layout.read if name not in keys]
        self._tabular = tabular
        user_paths = {".".join(map(str, path)) for path in layout.paths[USER]} if plain_users else set()
        if is_address(path):  # one more request is worth more than it saves
            user_paths = set()
        places = frozenset(n for n in range(len(file.schema)) if file.schema.column(n).path in user_paths)
        # column metadata is not read through pyarrow, which crashes the process if it is damaged
        try:
            chunks = first_chunk_sizes(path, places, self._metadata.num_columns)
        except OSError as error:
            raise file_failure(path, error) from error
        # whether users are stored without a dictionary, because they are too many
        self._plain_users = any(c.uncompressed_bytes > _PLAIN_BYTES_MIN * c.num_values for c in chunks)
        # a damaged footer may contain any number
        self.row_counts = [max(0, self._metadata.row_group(n).num_rows) for n in range(self._metadata.num_row_groups)]
        self._rows_before = [sum(self.row_counts[:n]) for n in range(len(self.row_counts))]

    def two_at_once(self) -> Iterator[tuple[Decoded, int]]:
        """In order; while the caller uses one, the next two are being read."""
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="sessionize-parquet")
        numbers = iter(range(len(self.row_counts)))
        try:
            waiting = deque(pool.submit(self._whole, n) for n in islice(numbers, _THREADS))
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(self._whole, n) for n in islice(numbers, 1))
                yield result
        finally:
            pool.shutdown(cancel_futures=True)

    def in_slices(self, slice_rows: int) -> Iterator[tuple[Decoded, int]]:
        """In order, with at most one slice in memory."""
        with self._opened() as file:
            for number, row_count in enumerate(self.row_counts):
                done = 0
                try:
                    for rows in self._slices(file, number, self._rows_at_once(number, slice_rows)):
                        for piece in pieces(rows, self._piece_bytes_max):
                            yield self._decoded(piece, self._rows_before[number] + done), piece.num_rows
                            done += piece.num_rows
                    if done < row_count:  # after some damage pyarrow returns fewer rows without an error
                        raise pa.ArrowInvalid(_TOO_FEW)
                except _UNREADABLE as error:
                    _check_damage(self._path, error)
                    yield self._salvaged(number, done), row_count - done

    def _whole(self, number: int) -> tuple[Decoded, int]:
        row_count = self.row_counts[number]
        try:
            plain_users = self._plain_users
            with self._opened(plain_users=plain_users) as file:
                table = file.read_row_group(number, columns=self._read, use_threads=False)
            if table.num_rows < row_count:
                raise pa.ArrowInvalid(_TOO_FEW)
            return self._decoded(table, self._rows_before[number], plain_users=plain_users), row_count
        except _UNREADABLE as error:
            _check_damage(self._path, error)
            return self._salvaged(number, 0), row_count

    def _rows_at_once(self, number: int, slice_rows: int) -> int:
        """Rows per slice: fewer if the rows are large according to the footer."""
        size_bytes = self._metadata.row_group(number).total_byte_size
        if self._piece_bytes_max is None or size_bytes <= 0:
            return slice_rows
        fit = self.row_counts[number] * self._piece_bytes_max // size_bytes
        return int(min(slice_rows, max(fit, _SALVAGED_ROWS)))

    def _slices(self, file: pq.ParquetFile, number: int, slice_rows: int) -> Iterator[pa.Table]:
        for batch in file.iter_batches(slice_rows, row_groups=[number], columns=self._read, use_threads=False):
            yield pa.table(batch)

    def _salvaged(self, number: int, done: int) -> Decoded:
        """The readable rows of a damaged row group, starting at row number done."""
        parts, read = list[Decoded](), 0
        try:
            with self._opened() as file:
                for rows in self._slices(file, number, _SALVAGED_ROWS):
                    new = rows.slice(max(0, done - read))
                    if new.num_rows:
                        parts.append(
                            self._decoded(new, self._rows_before[number] + read + rows.num_rows - new.num_rows)
                        )
                    read += rows.num_rows
            if read < self.row_counts[number]:
                raise pa.ArrowInvalid(_TOO_FEW)
        except _UNREADABLE as error:
            _check_damage(self._path, error)
            parts.append(self._lost(number, max(read, done), error))
        if not parts:
            parts.append(self._decoded(self._schema.empty_table(), 0))
        events = pa.concat_tables([part.events for part in parts])
        rejected = pa.concat_tables([part.rejected for part in parts])
        nulled = Counter[str]()
        for part in parts:
            nulled.update(part.nulled)
        return Decoded(events, rejected, parts[-1].lost, nulled, sum(part.local_times for part in parts))

    def _opened(self, *, plain_users: bool = False) -> pq.ParquetFile:
        dictionaries = [
            path[0]
            for column, paths in self._layout.paths.items()
            for path in paths
            if len(path) == 1
            and path[0] not in self._keys
            and pa.types.is_dictionary(DECODED_TYPES.get(column, pa.string()))
            and not (plain_users and column == USER)
        ]
        if self._piece_bytes_max is not None:  # so that it is decoded piece by piece
            own = [name for name in self._layout.extras if name not in self._keys]
            dictionaries += [name for name in own if pa.types.is_string(self._schema.field(name).type)]
        try:
            return pq.ParquetFile(
                _source(self._path),
                metadata=self._metadata,
                pre_buffer=is_address(self._path),
                read_dictionary=dictionaries,
                page_checksum_verification=True,
            )
        except OSError as error:
            _check_damage(self._path, error)
            raise

    def _decoded(self, table: pa.Table, rows_before: int, *, plain_users: bool = False) -> Decoded:
        for name, text in self._keys.items():
            table = table.append_column(name, pa.repeat(pa.scalar(text, pa.string()), len(table)))
        return self._tabular.decode(
            table, source=self._path, line_number=lambda row: rows_before + row + 1, plain_users=plain_users
        )

    def _lost(self, number: int, done: int, error: Exception) -> Decoded:
        """One rejected record for the rest of a row group, and the number of further rows that it counts for."""
        rejects = Rejects()
        lost = min(max(self.row_counts[number] - done, 1), _LOST_MAX)
        first = self._rows_before[number] + done + 1
        fault = Fault(
            CORRUPT_PARQUET,
            f"{lost:,} rows of row group {number} cannot be read, from row {first:,} of the file on: {error}",
        )
        LOG.warning("%s is damaged: %s", self._path, fault.detail)
        rejects.add(None, source=self._path, line_number=first, fault=fault)
        nothing = self._decoded(self._schema.empty_table(), 0)
        return Decoded(nothing.events, rejects.take(), {CORRUPT_PARQUET: lost - 1})


def pieces(rows: pa.Table, bytes_max: int | None) -> Iterator[pa.Table]:
    """The rows in pieces of about bytes_max each when decoded; one piece if bytes_max is None."""
    if bytes_max is None or not rows.num_rows:
        yield rows
        return
    sizes = np.full(rows.num_rows, 8 * rows.num_columns, np.int64)
    for column in rows.columns:
        sizes += _text_bytes(column)
    number = (np.cumsum(sizes) - sizes) // bytes_max  # the piece of each row
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    for start, end in pairwise((*starts.tolist(), rows.num_rows)):
        yield rows.slice(start, end - start)


def _text_bytes(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """int64[n]: the length of each value's text, 0 for other types."""
    found = [np.zeros(0, np.int64)]
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type) and pa.types.is_string(chunk.type.value_type):
            lengths = pc.binary_length(chunk.dictionary).take(chunk.indices)
        elif pa.types.is_string(chunk.type) or pa.types.is_large_string(chunk.type):
            lengths = pc.binary_length(chunk)
        else:
            found.append(np.full(len(chunk), chunk.nbytes // max(len(chunk), 1), np.int64))
            continue
        found.append(pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False).astype(np.int64))
    return np.concatenate(found)


def _source(path: str) -> Any:
    return open_bytes(path, random=True) if is_address(path) else path


def _check_damage(path: str, error: Exception) -> None:
    """Errors: those of file_failure if the system failed, so that a retry may succeed."""
    if (failure := transport_failure(path, error)) is not None:
        raise failure from error
    if isinstance(error, OSError) and error.errno is not None and error.errno not in _OF_OFFSETS:
        raise file_failure(path, error) from error


def _opened(path: str) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(_source(path))
        file.schema_arrow  # noqa: B018  checks the names, which may be damaged
        return file
    except _UNREADABLE as error:
        _check_damage(path, error)
        raise InputError(
            "a Parquet file cannot be read",
            detail=f"{path}: {error}",
            hint="it is incomplete (still being written, or truncated) or not Parquet",
        ) from error
