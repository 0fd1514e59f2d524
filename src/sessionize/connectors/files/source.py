"""Files as a source of events: NDJSON, CSV, TSV and Parquet, gzipped text, directories, globs and stdin.

No file is read as a whole. Files are read in the given order, and the batches do not depend on the number of
processes.
"""

import os
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Set
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from typing import cast

import pyarrow as pa

from sessionize.connectors.files.notices import LINKED_FOLDER, LOG, NO_FILE, OTHER_ENDING, empty, skipped_files
from sessionize.connectors.files.source_paths import STDIN, InputFile, format_of, input_files
from sessionize.connectors.files.source_ranges import divide
from sessionize.connectors.files.source_text import ReadAhead, TextDecoder, feed, split_header
from sessionize.connectors.files.source_worker import DecoderSpec
from sessionize.connectors.files.source_workers import in_order
from sessionize.connectors.files.unreadable import file_failure, nothing, one_rejected
from sessionize.errors import ConfigError, InputError
from sessionize.formats.dialects import Dialect
from sessionize.formats.gunzip import GzipStream
from sessionize.formats.lines import Readable
from sessionize.formats.validation import Decoded
from sessionize.ports import EventBatch

_BATCH_BYTES = 16 << 20
_PIECES = 4  # a batch of Parquet has at most so many times the text of a text batch
_WORTH_WORKERS = 4  # below this number of batches, starting a process costs more than it saves
_PROCESSES_MAX = 4
_HEADER_BYTES_MAX = 64 << 10
_DELIMITERS = {"csv": ",", "tsv": "\t"}


class FileSource:
    """Reads events from files. Implements ports.Source."""

    def __init__(
        self,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        dialect: Dialect,
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

        paths: files, directories (with all subfolders), globs, or "-" for NDJSON from stdin. columns: the canonical
        columns to build, None for all that the dialect maps; user and time always. extras: keep unmapped fields too.
        processes: how many decode large plain NDJSON files, this one included; None for up to four.
        batch_bytes: the approximate text size of a batch; a file of at least four batches is large.
        batch_records: the approximate maximum of lines or rows in a batch. With it, this process alone reads the files,
        and batches without records are returned too, so that blank lines do not block the caller.
        max_future_ms: reject events later than now_ms (None: the clock) plus this. plain_users: users from Parquet may
        be plain text where that is faster; otherwise they are dictionaries.
        Errors: InputError for paths that do not exist, cannot be read or have an unknown ending; ConfigError.
        """
        limits = (("processes", processes), ("batch_bytes", batch_bytes), ("batch_records", batch_records))
        for name, number in limits:
            if number is not None and number < 1:
                raise ConfigError(
                    f"{name} must be at least 1", detail=f"{name} = {number}", hint="leave it out for a sensible value"
                )
        one = isinstance(paths, str | os.PathLike)
        self._files, skipped = input_files([paths] if one else paths)  # type: ignore[list-item,arg-type]
        self.skipped: tuple[str, ...] = tuple(skipped)
        self._dialect = dialect
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
        for in_ranges, files in groupby(self._files, key=_is_plain_ndjson):
            group = list(files)
            found = self._ranges(group) if in_ranges else self._one_by_one(group)
            yield from (batch for batch in found if batch.consumed)

    def _log_unread(self) -> None:
        by_reason: dict[str, list[str]] = {}
        for path in self.skipped:
            linked, known = os.path.isdir(path), format_of(path) is not None
            by_reason.setdefault(LINKED_FOLDER if linked else NO_FILE if known else OTHER_ENDING, []).append(path)
        for why, paths in by_reason.items():
            LOG.warning("%s", skipped_files(paths, why))
        without = [file.path for file in self._files if not file.size_bytes and not file.pipe and file.is_plain_text]
        if without:
            LOG.warning("%s", empty(without))

    def _one_by_one(self, files: Iterable[InputFile]) -> Iterator[EventBatch]:
        for file in files:
            if file.path == STDIN:
                yield from self._text(file, cast(Readable, sys.stdin.buffer), None)
            elif file.format == "parquet":
                yield from self._parquet(file)
            else:
                yield from self._text_file(file)

    def _ranges(self, files: list[InputFile]) -> Iterator[EventBatch]:
        work_list = divide(files, range_bytes=self._batch_bytes)
        processes = self._processes if len(work_list) >= _WORTH_WORKERS else 1
        lines_before = 0
        for work, done in in_order(work_list, self._recipe, processes=processes):
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

    def _parquet(self, file: InputFile) -> Iterator[EventBatch]:
        # pyarrow.parquet is slow to import, and only Parquet needs it
        from sessionize.connectors.files.source_parquet import ParquetReader

        reader = ParquetReader(
            dialect=self._dialect,
            columns=self._columns,
            extras=self._extras,
            latest_ms=self._latest_ms,
            plain_users=self._plain_users,
        )
        if self._batch_records is not None:
            rows, piece_bytes_max = self._batch_records, _PIECES * self._batch_bytes
            reader = replace(reader, group_rows_max=rows, slice_rows=rows, piece_bytes_max=piece_bytes_max)
        for decoded, read_bytes in reader.batches(file.path, file.size_bytes):
            yield EventBatch(
                decoded.events, decoded.rejected, read_bytes, decoded.lost, decoded.nulled, decoded.local_times
            )

    def _text_file(self, file: InputFile) -> Iterator[EventBatch]:
        try:
            with open(file.path, "rb", buffering=0) as raw:
                if not file.gzipped:
                    yield from self._text(file, raw, None)
                    return
                begins = raw.read(2)
                if not b"\x1f\x8b".startswith(begins):  # a shorter one is truncated
                    raise InputError(
                        "a file named .gz is not gzipped",
                        detail=f"file {file.path}",
                        hint="rename it without .gz",
                    )
                gzip = GzipStream(raw, begins=begins)
                if file.pipe:  # nothing is read ahead: a thread that waits for a pipe cannot be stopped
                    yield from self._text(file, gzip, gzip)
                    return
                ahead = ReadAhead(gzip)
                try:
                    yield from self._text(file, ahead, gzip)
                finally:
                    ahead.close()
        except OSError as error:
            raise file_failure(file.path, error) from error

    def _text(self, file: InputFile, stream: Readable, gzip: GzipStream | None) -> Iterator[EventBatch]:
        decoder: TextDecoder
        first_line = 1
        if file.format == "ndjson":
            decoder = self._recipe.decoder()
        else:
            header = split_header(stream, source=file.path)
            if header.ended and gzip is not None and gzip.fault is not None:
                LOG.warning("%s is damaged: %s; it has no whole line", file.path, gzip.fault.detail)
                yield one_rejected(header.text or None, gzip.fault, file.path, header.line, self.empty_events())
                return
            if not header.text:
                return
            decoder, stream = self._csv(header.text, file), header.rest
            first_line = header.line + 1
        gathered = read_before = lines = 0
        lines_max = self._batch_records
        steps = feed(stream, decoder, source=file.path, first_line=first_line, gzip=gzip, lines_max=lines_max)
        for size_bytes, line_count in steps:
            gathered += size_bytes
            lines += line_count
            if gathered >= self._batch_bytes or (lines_max is not None and lines >= lines_max):
                read_bytes = gathered if gzip is None else gzip.read_bytes - read_before
                read_before += read_bytes
                gathered = lines = 0
                yield _batch(decoder.take(), read_bytes)
        rest = decoder.take()
        # the end decides about a last line without a line feed, or with an unclosed quote
        if gathered or rest.events.num_rows or rest.rejected.num_rows:
            yield _batch(rest, gathered if gzip is None else gzip.read_bytes - read_before)

    def _csv(self, header: bytes, file: InputFile) -> TextDecoder:
        # pyarrow.csv is only needed here
        from sessionize.formats.csv_decoder import CsvLines

        return CsvLines(
            header,
            self._dialect,
            source=file.path,
            delimiter=_DELIMITERS[file.format],
            columns=self._columns,
            extras=self._extras,
            latest_ms=self._latest_ms,
        )


def _first_of(batches: Iterator[EventBatch], first: "Future[EventBatch | None]") -> None:
    try:
        first.set_result(next(batches, None))
    except BaseException as error:  # raised where the batch is requested
        first.set_exception(error)


def _batch(decoded: Decoded, read_bytes: int) -> EventBatch:
    return EventBatch(
        decoded.events, decoded.rejected, read_bytes, nulled=decoded.nulled, local_times=decoded.local_times
    )


def _is_plain_ndjson(file: InputFile) -> bool:
    return file.format == "ndjson" and not file.gzipped and not file.pipe


def _with_file_lines(rejected: pa.Table, lines: int) -> pa.Table:
    """The rejects with line numbers counted from the beginning of the file, not of the range."""
    place = rejected.schema.get_field_index("line_number")
    numbers = rejected.column(place).to_numpy() + lines
    return rejected.set_column(place, rejected.schema.field(place), pa.array(numbers))


def _cpu_count() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
