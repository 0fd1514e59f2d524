"""Follows a directory (or patterns) for new files and reads each exactly once. Implements ports.StreamSource.

A file should be complete when it appears, best by renaming it into place; a growing file is read after it settles. A
finished file that grows is not read again (`replaced` and the log report it). A renamed finished file is recognised,
and a new file under its old name is read. An unreadable file, such as Parquet without a footer, is retried while
others are read; it becomes one rejected record once it is unchanged for broken_after_s. Damage inside a file is
rejected where it is.

There is one partition, and a position is one number for any number of files: the file log numbers the files in reading
order; file n has the offsets from n * STRIDE on, one for each of its records, and is finished when the position
reaches the next file.
"""

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sessionize.connectors.files.directory_scan import FileStat, Folder
from sessionize.connectors.files.file_log import FileEntry, FileLog
from sessionize.connectors.files.file_reader import FileReader, batch_mismatch, changed, missing_from_log
from sessionize.connectors.files.fingerprint import fingerprint_of
from sessionize.connectors.files.finished_files import FinishedFiles
from sessionize.connectors.files.moved_roots import settle_root
from sessionize.connectors.files.notices import LOG, Counted, empty
from sessionize.connectors.files.opening import named
from sessionize.connectors.files.source import FileSource
from sessionize.connectors.files.unreadable import rejected_file, why_unreadable
from sessionize.errors import InputError
from sessionize.formats.dialects import Dialect
from sessionize.formats.input_format import AUTO, InputFormat
from sessionize.ports import Positions, Ranges, StreamBatch

STRIDE = 1 << 40
PARTITION = "files"
_BATCH_BYTES = 4 << 20
_BATCH_RECORDS = 50_000
_SCAN_INTERVAL_S = 0.1


class DirectorySource:
    """Follows files in the order of (modification time, name). Not for several threads.

    paths: directories with all subfolders, or patterns such as logs/*.ndjson.gz. input_format: how bytes become rows;
    where it names a format, files of any name are read. log_path: this source's file log, kept
    beside the checkpoints. exclude: folders whose files are not input. settle_s: how long a file must be unchanged;
    broken_after_s: the same for an unreadable file. max_future_ms: events later than the start of their file
    plus this are rejected. bounded: read only files that exist now. batch_bytes, batch_records: the approximate size
    of a batch, in uncompressed text and in records. Errors: InputError for a directory that does not exist or is in
    exclude; StateError if it is unclear whether these are the folders of the log; those of FileLog.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        dialect: Dialect,
        input_format: InputFormat = AUTO,
        log_path: Path,
        exclude: Sequence[Path] = (),
        columns: frozenset[str] | None = None,
        extras: bool = False,
        max_future_ms: int | None = None,
        bounded: bool = False,
        settle_s: float = 1.0,
        broken_after_s: float = 60.0,
        batch_bytes: int = _BATCH_BYTES,
        batch_records: int = _BATCH_RECORDS,
    ) -> None:
        self._folder = Folder(paths, exclude=exclude, any_ending=input_format.format != "auto")
        self._input_format = input_format
        self._dialect = dialect
        self._columns = columns
        self._extras = extras
        self._max_future_ms = max_future_ms
        self._settle_s, self._broken_after_s = settle_s, broken_after_s
        self._batch_bytes, self._batch_records = batch_bytes, batch_records
        self._log = FileLog(log_path)
        settle_root(self._log, self._folder)
        self._at = 0
        self._finished = FinishedFiles()
        self._retry_later: dict[str, FileStat] = {}  # unreadable, but perhaps not completely written
        self._not_permitted: dict[str, FileStat] = {}  # not permitted to open
        self._waiting: deque[tuple[str, FileStat]] = deque()
        self._reader: FileReader | None = None
        self._caught_up = False
        self._empty = Counted()
        self._only = frozenset(self._folder.scan({})) if bounded else None

    @property
    def event_columns(self) -> frozenset[str]:
        """The canonical columns of every batch of events."""
        return frozenset(self._dialect.columns_for(self._columns))

    @property
    def user_name(self) -> str:
        """The input's name of the user column."""
        return self._dialect.user_name

    @property
    def replaced(self) -> frozenset[str]:
        """Finished files that changed later."""
        return self._folder.replaced | self._finished.grown

    def partitions(self) -> frozenset[str]:
        """The only partition: files are read one after the other."""
        return frozenset({PARTITION})

    def seek(self, positions: Positions) -> None:
        """Continue at this offset, or at the first file if there is none. Errors: InputError."""
        if positions.keys() - {PARTITION}:
            raise missing_from_log(next(iter(positions.keys() - {PARTITION})))
        self._go_to(positions.get(PARTITION, 0))

    def poll(self, *, timeout_s: float, now_ms: int) -> list[StreamBatch]:
        """The next batch of the current or next file; waits at most timeout_s for a file. Many blank lines give [] too.

        Errors: InputError if a started file is missing or changed; UnavailableError if a file or a directory cannot be
        reached; those of FileLog. After an error the current file continues at the same position, before any other.
        """
        try:
            return self._poll(timeout_s, now_ms)
        except BaseException:
            self._close_reader()
            self._waiting.clear()
            raise

    def _poll(self, timeout_s: float, now_ms: int) -> list[StreamBatch]:
        deadline = time.monotonic() + timeout_s
        while self._reader is None:
            began_s = time.monotonic()
            found = self._resume() if self._at % STRIDE else self._next_file(now_ms)
            if isinstance(found, StreamBatch):
                return [found]
            if found is not None:
                continue
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return []
            # a scan of very many files takes long, and must not use all the time
            time.sleep(min(max(_SCAN_INTERVAL_S, 4 * (time.monotonic() - began_s)), left_s))
        self._caught_up = False
        batch = self._next_batch(self._reader)
        return [] if batch is None else [batch]

    def read(self, ranges: Ranges, *, now_ms: int) -> Iterator[StreamBatch]:
        """Exactly these records again, file by file in the order of the log. The log has the now_ms of each file."""
        first, end = ranges.get(PARTITION, (self._at, self._at))
        self._go_to(first)
        while self._at < end:
            reader = self._reader or self._resume()
            batch = self._next_batch(reader) if isinstance(reader, FileReader) else reader
            if self._at > end:
                raise batch_mismatch(self._log.entries[end // STRIDE].place, end % STRIDE)
            if batch is not None:
                yield batch

    def caught_up(self) -> frozenset[str]:
        """The partition, if the last poll found no more files, not even an unsettled one."""
        return self.partitions() if self._caught_up else frozenset()

    def lag(self) -> int | None:
        """Always None: the records of unread files are not counted."""
        return None

    def close(self) -> None:
        """Close the current file."""
        self._close_reader()

    # ---- choosing a file ----

    def _go_to(self, offset: int) -> None:
        self._close_reader()
        self._waiting.clear()
        number, begun = divmod(offset, STRIDE)
        if number + (begun > 0) > len(self._log.entries):
            raise missing_from_log(f"number {number}")
        self._at, self._caught_up = offset, False
        self._finished = FinishedFiles(self._log.entries[:number])

    def _resume(self) -> FileReader | StreamBatch:
        """Open the file of the current position, or return the one batch of an unreadable file."""
        number, begun = divmod(self._at, STRIDE)
        if number >= len(self._log.entries):
            raise missing_from_log(f"number {number}")
        entry = self._log.entries[number]
        if entry.unreadable is not None:
            return self._reject_file(entry, entry.unreadable)
        self._reader = self._open(entry, begun)
        return self._reader

    def _next_file(self, now_ms: int) -> FileReader | StreamBatch | None:
        """Start the oldest new settled file, if there is one; or return the one batch of an unreadable file."""
        if not self._waiting:
            self._waiting = deque(self._find())
        while self._waiting:
            place, seen = self._waiting.popleft()
            # it may have waited for long; the next scan handles a file that is now missing or different
            now = self._folder.seen(place)
            if now is None or not now.matches(seen):
                continue
            entry = FileEntry(
                number=self._at // STRIDE,
                place=place,
                size_bytes=seen.size_bytes,
                mtime_ns=seen.mtime_ns,
                now_ms=now_ms,
                batch_bytes=self._batch_bytes,
                batch_records=self._batch_records,
                inode=seen.inode,
            )
            if self._finished.has(entry, self._folder.path(place)):
                continue
            found = self._start(entry, seen)
            if found is not None:
                return found
        return None

    def _find(self) -> list[tuple[str, FileStat]]:
        """New settled files, in order."""
        there = self._folder.scan(self._finished.places)
        self._finished.recheck(there)
        if self._only is not None:
            there = {place: seen for place, seen in there.items() if place in self._only}
        self._not_permitted = {place: seen for place, seen in self._not_permitted.items() if place in there}
        self._caught_up = there.keys() <= self._not_permitted.keys()
        self._retry_later = {place: seen for place, seen in self._retry_later.items() if place in there}
        ready = [place for place, seen in there.items() if seen.has_settled(self._settle_s)]
        in_order = sorted(ready, key=lambda place: (there[place].mtime_ns, place))
        return [(place, there[place]) for place in in_order if not self._is_retried_later(place, there[place])]

    def _is_retried_later(self, place: str, seen: FileStat) -> bool:
        """Whether it is unchanged since a failed attempt, and may still become readable."""
        tried = self._retry_later.get(place)
        return tried is not None and tried.matches(seen) and not seen.has_settled(self._broken_after_s)

    def _start(self, entry: FileEntry, seen: FileStat) -> FileReader | StreamBatch | None:
        """Start a file or reject it, and add it to the log; None if it may still become readable."""
        try:
            entry = replace(entry, fingerprint=self._fingerprint_of(entry))
            reader = self._open(entry, 0)
        except InputError as error:
            now = self._folder.seen(entry.place)
            if now is None or not now.matches(entry):
                return None
            if isinstance(error.__cause__, PermissionError) and self._only is None:
                self._retry_when_readable(entry.place, seen, error)
                return None
            why = why_unreadable(self._folder.path(entry.place), error)
            if not seen.has_settled(self._broken_after_s):
                if entry.place not in self._retry_later:  # perhaps still being written: one log line per file
                    text = "%s cannot be read yet, retrying until it is unchanged for %g s: %s"
                    LOG.warning(text, entry.place, self._broken_after_s, why)
                self._retry_later[entry.place] = seen
                return None
            self._log.add(replace(entry, unreadable=why))
            LOG.warning("%s cannot be read and is rejected: %s", entry.place, why)
            return self._reject_file(entry, why)
        self._not_permitted.pop(entry.place, None)
        self._reader = reader  # from here on any error closes it
        self._log.add(entry)
        if not entry.size_bytes and (count := self._empty.add()) is not None:
            LOG.warning("%s", empty([entry.place], count=count))
        return reader

    def _retry_when_readable(self, place: str, seen: FileStat, error: InputError) -> None:
        """Retry a file without read permission for as long as needed, without delaying others."""
        if place not in self._not_permitted:
            LOG.warning("%s cannot be opened, retrying until its permissions allow it: %s", place, error.detail)
        self._not_permitted[place] = seen

    def _reject_file(self, entry: FileEntry, why: str) -> StreamBatch:
        """The one batch of an unreadable file."""
        batch = rejected_file(self._folder.path(entry.place), why, self.event_columns, self._dialect)
        return StreamBatch(PARTITION, self._finish(entry), batch.events, batch.rejected)

    def _finish(self, entry: FileEntry) -> Ranges:
        """Move the position past the file; returns the offsets up to there."""
        first, self._at = self._at, (entry.number + 1) * STRIDE
        self._finished.add(entry)
        self._caught_up = False
        return {PARTITION: (first, self._at)}

    # ---- the current file ----

    def _open(self, entry: FileEntry, offset: int) -> FileReader:
        with self._unchanged(entry):
            if not entry.size_bytes and _is_compressed(entry.place):  # a writer may be about to start
                raise InputError("a compressed file has no content", detail=f"file {entry.place}")
            source = FileSource(
                [self._folder.path(entry.place)],
                dialect=self._dialect,
                input_format=self._input_format,
                columns=self._columns,
                extras=self._extras,
                batch_bytes=entry.batch_bytes,
                batch_records=entry.batch_records,
                max_future_ms=self._max_future_ms,
                now_ms=entry.now_ms,
            )
            return FileReader(entry, source, offset)

    def _fingerprint_of(self, entry: FileEntry) -> str | None:
        with self._unchanged(entry):
            return fingerprint_of(self._folder.path(entry.place))

    def _next_batch(self, reader: FileReader) -> StreamBatch | None:
        """None if the next part of the file has no records."""
        with self._unchanged(reader.entry):
            step = reader.next()
        if step is None:
            return None
        batch, last = step
        if last:
            self._close_reader()
            ranges = self._finish(reader.entry)
        else:
            first, self._at = self._at, reader.entry.number * STRIDE + reader.offset
            ranges = {PARTITION: (first, self._at)}
        return StreamBatch(PARTITION, ranges, batch.events, batch.rejected, batch.lost, batch.nulled, batch.local_times)

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    @contextmanager
    def _unchanged(self, entry: FileEntry) -> Iterator[None]:
        """Fail if the file changes while it is read, because the same records could not be read again."""
        self._check_same(entry)
        try:
            yield
        except InputError:
            self._check_same(entry)
            raise
        self._check_same(entry)

    def _check_same(self, entry: FileEntry) -> None:
        now = self._folder.seen(entry.place)
        if now is None or not now.matches(entry):
            raise changed(self._folder.path(entry.place), entry, now)


def _is_compressed(place: str) -> bool:
    name = named(place)
    return name is not None and name.compression is not None
