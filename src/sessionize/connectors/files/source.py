"""Files as a source of events: JSON, CSV, logs and Parquet, compressed text, directories, globs and stdin.

No file is read as a whole. Files are read in the given order, and the batches do not depend on the number of
processes.
"""

import os
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Set
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby

import pyarrow as pa

from sessionize.connectors.files.notices import LINKED_FOLDER, LOG, NO_FILE, OTHER_ENDING, empty, skipped_files
from sessionize.connectors.files.opening import named
from sessionize.connectors.files.source_lines import TextReader
from sessionize.connectors.files.source_paths import InputFile, input_files
from sessionize.connectors.files.source_ranges import divide
from sessionize.connectors.files.source_worker import DecoderSpec
from sessionize.connectors.files.source_workers import in_order
from sessionize.connectors.files.unreadable import nothing
from sessionize.connectors.local_paths import is_address
from sessionize.errors import ConfigError
from sessionize.formats.dialects import Dialect
from sessionize.formats.input_format import AUTO, BINARY, InputFormat
from sessionize.formats.validation import Decoded
from sessionize.ports import EventBatch

_BATCH_BYTES = 16 << 20
_PIECES = 4  # a batch of Parquet has at most so many times the text of a text batch
_WORTH_WORKERS = 4  # below this number of batches, starting a process costs more than it saves
_PROCESSES_MAX = 4
_HEADER_BYTES_MAX = 64 << 10


class FileSource:
    """Reads events from files. Implements ports.Source."""

    def __init__(
        self,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        dialect: Dialect,
        input_format: InputFormat = AUTO,
        columns: frozenset[str] | None = None,
        extras: bool = False,
        processes: int | None = None,
        batch_bytes: int = _BATCH_BYTES,
        batch_records: int | None = None,
        max_future_ms: int | None = None,
        now_ms: int | None = None,
        plain_users: bool = False,
    ) -> None:
        """Find the files; nothing is read yet.

        paths: files, directories (with all subfolders), globs, or "-" for stdin. input_format: how bytes become rows.
        columns: the canonical
        columns to build, None for all that the dialect maps; user and time always. extras: keep unmapped fields too.
        processes: how many decode large plain files of lines, this one included; None for up to four.
        batch_bytes: the approximate text size of a batch; a file of at least four batches is large.
        batch_records: the approximate maximum of lines or rows in a batch. With it, this process alone reads the files,
        and batches without records are returned too, so that blank lines do not block the caller.
        max_future_ms: reject events later than now_ms (None: the clock) plus this. plain_users: users from Parquet may
        be plain text where that is faster; otherwise they are dictionaries.
        Errors: InputError for paths that do not exist, cannot be read or are of an unknown format; ConfigError.
        """
        limits = (("processes", processes), ("batch_bytes", batch_bytes), ("batch_records", batch_records))
        for name, number in limits:
            if number is not None and number < 1:
                raise ConfigError(
                    f"{name} must be at least 1", detail=f"{name} = {number}", hint="leave it out for a sensible value"
                )
        one = isinstance(paths, str | os.PathLike)
        self._files, skipped = input_files([paths] if one else paths, input_format)  # type: ignore[list-item,arg-type]
        self.skipped: tuple[str, ...] = tuple(skipped)
        self._dialect = dialect
        self._input_format = input_format
        self._columns = columns
        self._extras = extras
        self._processes = processes if processes is not None else min(_cpu_count(), _PROCESSES_MAX)
        self._batch_bytes = batch_bytes
        self._batch_records = batch_records
        self._plain_users = plain_users
        self._begun: tuple[Iterator[EventBatch], Future[EventBatch | None]] | None = None
        self._latest_ms: int | None = None
        if max_future_ms is not None:
            self._latest_ms = (time.time_ns() // 1_000_000 if now_ms is None else now_ms) + max_future_ms
        self._recipe = DecoderSpec(dialect=dialect, columns=columns, extras=extras, latest_ms=self._latest_ms)
        self._texts = TextReader(
            spec=replace(self._recipe, input_format=input_format),
            input_format=input_format,
            batch_bytes=batch_bytes,
            batch_records=batch_records,
        )

    @property
    def size_bytes(self) -> int | None:
        """The size of all files on disk, None if one is a pipe."""
        if any(file.pipe for file in self._files):
            return None
        return sum(file.size_bytes for file in self._files)

    @property
    def files(self) -> tuple[InputFile, ...]:
        """The files in reading order."""
        return tuple(self._files)

    @property
    def has_files_of_one_size(self) -> bool:
        """Whether two files have equal size, so that their content may be equal."""
        sizes = [file.size_bytes for file in self._files if file.size_bytes]
        return len(set(sizes)) < len(sizes)

    def exclude(self, paths: Set[str]) -> None:
        """Exclude these files; call it before reading."""
        self._files = [file for file in self._files if file.path not in paths]

    def has_records(self, file: InputFile) -> bool:
        """Whether a file has more than a header; large files count as having records. Errors: as batches."""
        if file.pipe or file.size_bytes > _HEADER_BYTES_MAX:
            return True
        return any(batch.consumed for batch in self._one_by_one([file]))

    @property
    def event_columns(self) -> frozenset[str]:
        """The canonical columns of every batch."""
        return frozenset(self._dialect.columns_for(self._columns))

    def empty_events(self) -> pa.Table:
        """The events of a batch that has none."""
        return nothing(self.event_columns, self._dialect)

    @property
    def user_name(self) -> str:
        """The input's name of the user column."""
        return self._dialect.user_name

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Read the first batch in a thread, for the first call of batches() in this block.

        For callers with other work to do first, like loading an engine.
        """
        batches = self._batches()
        first: Future[EventBatch | None] = Future()
        # not a pool thread: Python would wait for it at exit, and a pipe's writer may never write
        threading.Thread(target=_first_of, args=(batches, first), name="sessionize-first", daemon=True).start()
        self._begun = batches, first
        try:
            yield
        finally:
            self._begun = None
            if first.done() or not any(file.pipe for file in self._files):
                wait([first])
                batches.close()

    def batches(self) -> Iterator[EventBatch]:
        """The events in the order of the files, about 16 MB of text or a row group of Parquet at a time.

        Errors: InputError for a file that cannot be read, or a table that lacks a mapped column; UnavailableError if
        the disk fails.
        """
        if self._begun is None:
            yield from self._batches()
            return
        (batches, waiting), self._begun = self._begun, None
        first = waiting.result()
        if first is not None:
            yield first
            yield from batches

    def _batches(self) -> Generator[EventBatch, None, None]:
        if self._batch_records is not None:
            yield from self._one_by_one(self._files)
            return
        self._log_unread()
        for lines_of, files in groupby(self._files, key=self._lines_in):
            group = list(files)
            found = self._one_by_one(group) if lines_of is None else self._ranges(group, lines_of)
            yield from (batch for batch in found if batch.consumed)

    def _log_unread(self) -> None:
        by_reason: dict[str, list[str]] = {}
        for path in self.skipped:
            linked, known = os.path.isdir(path), named(path) is not None
            by_reason.setdefault(LINKED_FOLDER if linked else NO_FILE if known else OTHER_ENDING, []).append(path)
        for why, paths in by_reason.items():
            LOG.warning("%s", skipped_files(paths, why))
        without = [file.path for file in self._files if not file.size_bytes and not file.pipe and file.is_plain_text]
        if without:
            LOG.warning("%s", empty(without))

    def _one_by_one(self, files: Iterable[InputFile]) -> Iterator[EventBatch]:
        for file in files:
            if file.format == "parquet":
                yield from self._parquet(file)
            elif file.format in BINARY:
                yield from (_batch(*found) for found in self._tables(file))
            else:
                yield from (_batch(*found) for found in self._texts.batches(file))

    def _lines_in(self, file: InputFile) -> InputFormat | None:
        """The format of a file that can be read in ranges, as each of its lines is a record; None for any other."""
        if (
            is_address(file.path)
            or file.pipe
            or file.compression is not None
            or not file.is_utf8
            or file.keys
            or file.guessed
        ):
            return None
        if file.format == "ndjson":
            return AUTO
        is_log = file.format in ("combined", "common", "regex")
        return replace(self._input_format, format=file.format) if is_log else None  # type: ignore[arg-type]

    def _ranges(self, files: list[InputFile], lines_of: InputFormat) -> Iterator[EventBatch]:
        work_list = divide(files, range_bytes=self._batch_bytes)
        processes = self._processes if len(work_list) >= _WORTH_WORKERS else 1
        lines_before = 0
        spec = replace(self._recipe, input_format=lines_of)
        for work, done in in_order(work_list, spec, processes=processes):
            rejected = done.decoded.rejected
            if work.ranges[0].start == 0:
                lines_before = 0
            elif lines_before:
                rejected = _with_file_lines(rejected, lines_before)
            lines_before += done.line_count
            decoded = done.decoded
            yield EventBatch(
                decoded.events,
                rejected,
                work.size_bytes,
                nulled=decoded.nulled,
                local_times=decoded.local_times,
            )

    def _tables(self, file: InputFile) -> Iterator[tuple[Decoded, int]]:
        from sessionize.connectors.files.source_tables import TableReader

        reader = TableReader(spec=self._recipe, rows_max=self._batch_records)
        return reader.orc(file) if file.format == "orc" else reader.avro(file)

    def _parquet(self, file: InputFile) -> Iterator[EventBatch]:
        # pyarrow.parquet is slow to import, and only Parquet needs it
        from sessionize.connectors.files.source_parquet import ParquetReader

        reader = ParquetReader(
            dialect=self._dialect,
            columns=self._columns,
            extras=self._extras,
            latest_ms=self._latest_ms,
            plain_users=self._plain_users,
            keys=file.keys,
        )
        if self._batch_records is not None:
            rows, piece_bytes_max = self._batch_records, _PIECES * self._batch_bytes
            reader = replace(reader, group_rows_max=rows, slice_rows=rows, piece_bytes_max=piece_bytes_max)
        for decoded, read_bytes in reader.batches(file.path, file.size_bytes):
            yield EventBatch(
                decoded.events, decoded.rejected, read_bytes, decoded.lost, decoded.nulled, decoded.local_times
            )


def _first_of(batches: Iterator[EventBatch], first: "Future[EventBatch | None]") -> None:
    try:
        first.set_result(next(batches, None))
    except BaseException as error:  # raised where the batch is requested
        first.set_exception(error)


def _batch(decoded: Decoded, read_bytes: int) -> EventBatch:
    return EventBatch(decoded.events, decoded.rejected, read_bytes, decoded.lost, decoded.nulled, decoded.local_times)


def _with_file_lines(rejected: pa.Table, lines: int) -> pa.Table:
    """The rejects with line numbers counted from the beginning of the file, not of the range."""
    place = rejected.schema.get_field_index("line_number")
    numbers = rejected.column(place).to_numpy() + lines
    return rejected.set_column(place, rejected.schema.field(place), pa.array(numbers))


def _cpu_count() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
