"""A directory (or patterns) that is followed for new files, each read exactly once. Fits ports.StreamSource.

A file has to be complete when it appears, best by renaming it into place; one that still grows is left to settle. A
finished file that grows is not read again (`replaced` tells, and the log); under another name it is known, and another
file under its name is read. A file that cannot be read as what its name says, such as Parquet without a footer, waits
while others are read, and becomes one rejected record when nobody has touched it for broken_after_s. Damage inside a
file is rejected where it is.

There is one partition and one place, so that a position is one number however many files there were: the files are
numbered as they are taken up (the book), file n has the offsets from n * STRIDE on, one for each of its records, and is
finished when the next one's are reached.
"""

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sessionize.connectors.files.directory_scan import FileStat, Folder
from sessionize.connectors.files.file_log import Entry, FileLog
from sessionize.connectors.files.file_reader import Reading, changed, cut_elsewhere, not_in_the_book
from sessionize.connectors.files.fingerprint import print_of
from sessionize.connectors.files.finished_files import Finished
from sessionize.connectors.files.moved_roots import settle_root
from sessionize.connectors.files.notices import LOG, Counted, empty
from sessionize.connectors.files.source import FileSource
from sessionize.connectors.files.unreadable import set_aside, why_unreadable
from sessionize.errors import InputError
from sessionize.formats.dialects import Dialect
from sessionize.ports import Positions, Ranges, StreamBatch

STRIDE = 1 << 40
PARTITION = "files"
_BATCH_BYTES = 4 << 20
_BATCH_RECORDS = 50_000
_LOOK_EVERY_S = 0.1


class DirectorySource:
    """Follows files in the order of (modification time, name). Not for several threads.

    paths: directories, with all below them, or patterns such as logs/*.ndjson.gz. book: a file of this source's own,
    kept beside the checkpoints. exclude: folders whose files are no input. settle_s: how long a file must have
    been left alone; broken_after_s: one that cannot be read. max_future_ms: events later than the moment their file was
    taken up plus this are rejected. bounded: read only files that are there now. batch_bytes, batch_records: of text,
    unpacked, and of records, about as much as makes a batch. Errors: InputError for a directory that does not exist, or
    that lies in one of exclude; StateError for folders that may be those of the book or not; those of Book.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        dialect: Dialect,
        book: Path,
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
        self._folder = Folder(paths, exclude=exclude)
        self._dialect = dialect
        self._columns = columns
        self._extras = extras
        self._max_future_ms = max_future_ms
        self._settle_s, self._broken_after_s = settle_s, broken_after_s
        self._batch_bytes, self._batch_records = batch_bytes, batch_records
        self._book = FileLog(book)
        settle_root(self._book, self._folder)
        self._at = 0
        self._finished = Finished()
        self._doubtful: dict[str, FileStat] = {}  # could not be read like this, and may still be about to be written
        self._denied: dict[str, FileStat] = {}  # may not be opened
        self._waiting: deque[tuple[str, FileStat]] = deque()
        self._reading: Reading | None = None
        self._at_end = False
        self._empty = Counted()
        self._only = frozenset(self._folder.look({})) if bounded else None

    @property
    def event_columns(self) -> frozenset[str]:
        """The canonical columns that every batch of events has."""
        return frozenset(self._dialect.columns_for(self._columns))

    @property
    def user_name(self) -> str:
        """What the input calls the user."""
        return self._dialect.user_name

    @property
    def replaced(self) -> frozenset[str]:
        """Finished files that were seen to have changed since."""
        return self._folder.replaced | self._finished.grown

    def partitions(self) -> frozenset[str]:
        """Files are read one after the other, so there is one."""
        return frozenset({PARTITION})

    def seek(self, positions: Positions) -> None:
        """Go on from this offset; from the first file on when there is none. Errors: InputError."""
        if positions.keys() - {PARTITION}:
            raise not_in_the_book(next(iter(positions.keys() - {PARTITION})))
        self._go_to(positions.get(PARTITION, 0))

    def poll(self, *, timeout_s: float, now_ms: int) -> list[StreamBatch]:
        """The next batch of the file at hand, or of the next file; waits for one at most timeout_s. Nothing also when a
        file has nothing but blank lines for a while.

        Errors: InputError when a file that was begun is gone or changed; UnavailableError when a file or a directory
        cannot be reached; those of Book. After an error the file at hand is taken up again where it was, before any
        other.
        """
        try:
            return self._polled(timeout_s, now_ms)
        except BaseException:
            self._stop_reading()
            self._waiting.clear()
            raise

    def _polled(self, timeout_s: float, now_ms: int) -> list[StreamBatch]:
        deadline = time.monotonic() + timeout_s
        while self._reading is None:
            began_s = time.monotonic()
            found = self._resume() if self._at % STRIDE else self._next_file(now_ms)
            if isinstance(found, StreamBatch):
                return [found]
            if found is not None:
                continue
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return []
            # looking through very many files takes a while, and must not be all that is done
            time.sleep(min(max(_LOOK_EVERY_S, 4 * (time.monotonic() - began_s)), left_s))
        self._at_end = False
        batch = self._next_batch(self._reading)
        return [] if batch is None else [batch]

    def read(self, ranges: Ranges, *, now_ms: int) -> Iterator[StreamBatch]:
        """Exactly these records again, file by file in the order of the book. now_ms is in the book, per file."""
        first, end = ranges.get(PARTITION, (self._at, self._at))
        self._go_to(first)
        while self._at < end:
            reading = self._reading or self._resume()
            batch = self._next_batch(reading) if isinstance(reading, Reading) else reading
            if self._at > end:
                raise cut_elsewhere(self._book.entries[end // STRIDE].place, end % STRIDE)
            if batch is not None:
                yield batch

    def caught_up(self) -> frozenset[str]:
        """The partition, when the last poll found nothing more, not even a file that has to settle."""
        return self.partitions() if self._at_end else frozenset()

    def lag(self) -> int | None:
        """Nobody knows how many records a file has before it is read."""
        return None

    def close(self) -> None:
        """Release the file at hand."""
        self._stop_reading()

    # ---- which file ----

    def _go_to(self, offset: int) -> None:
        self._stop_reading()
        self._waiting.clear()
        number, begun = divmod(offset, STRIDE)
        if number + (begun > 0) > len(self._book.entries):
            raise not_in_the_book(f"number {number}")
        self._at, self._at_end = offset, False
        self._finished = Finished(self._book.entries[:number])

    def _resume(self) -> Reading | StreamBatch:
        """Open the file at which we stand, or give the one batch of it."""
        number, begun = divmod(self._at, STRIDE)
        if number >= len(self._book.entries):
            raise not_in_the_book(f"number {number}")
        entry = self._book.entries[number]
        if entry.unreadable is not None:
            return self._aside(entry, entry.unreadable)
        self._reading = self._open(entry, begun)
        return self._reading

    def _next_file(self, now_ms: int) -> Reading | StreamBatch | None:
        """Take up the oldest new file that has settled, if there is one; or the one batch of an unreadable file."""
        if not self._waiting:
            self._waiting = deque(self._find())
        while self._waiting:
            place, seen = self._waiting.popleft()
            # it may have waited for long; one that is gone or different now is found again by the next look
            now = self._folder.seen(place)
            if now is None or not now.is_as(seen):
                continue
            entry = Entry(
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
            found = self._take_up(entry, seen)
            if found is not None:
                return found
        return None

    def _find(self) -> list[tuple[str, FileStat]]:
        """New files that have settled, in order."""
        there = self._folder.look(self._finished.places)
        self._finished.doubt(there)
        if self._only is not None:
            there = {place: seen for place, seen in there.items() if place in self._only}
        self._denied = {place: seen for place, seen in self._denied.items() if place in there}
        self._at_end = there.keys() <= self._denied.keys()
        self._doubtful = {place: seen for place, seen in self._doubtful.items() if place in there}
        ready = [place for place, seen in there.items() if seen.has_settled(self._settle_s)]
        return [
            (p, there[p]) for p in sorted(ready, key=lambda p: (there[p].mtime_ns, p)) if not self._waits(p, there[p])
        ]

    def _waits(self, place: str, seen: FileStat) -> bool:
        """Whether it was tried as it is, and may still become readable."""
        tried = self._doubtful.get(place)
        return tried is not None and tried.is_as(seen) and not seen.has_settled(self._broken_after_s)

    def _take_up(self, entry: Entry, seen: FileStat) -> Reading | StreamBatch | None:
        """Begin a file, or set it aside, and note it; None where it may still become readable."""
        try:
            entry = replace(entry, fingerprint=self._print_of(entry))
            reading = self._open(entry, 0)
        except InputError as error:
            now = self._folder.seen(entry.place)
            if now is None or not now.is_as(entry):
                return None
            if isinstance(error.__cause__, PermissionError) and self._only is None:
                self._deny(entry.place, seen, error)
                return None
            why = why_unreadable(self._folder.path(entry.place), error)
            if not seen.has_settled(self._broken_after_s):
                if entry.place not in self._doubtful:  # a writer may still be at it: one line for a file
                    text = "%s cannot be read yet, and waits until nobody has touched it for %g s: %s"
                    LOG.warning(text, entry.place, self._broken_after_s, why)
                self._doubtful[entry.place] = seen
                return None
            self._book.add(replace(entry, unreadable=why))
            LOG.warning("%s cannot be read and is set aside: %s", entry.place, why)
            return self._aside(entry, why)
        self._denied.pop(entry.place, None)
        self._reading = reading  # from here on it is closed with whatever fails
        self._book.add(entry)
        if not entry.size_bytes and (count := self._empty.add()) is not None:
            LOG.warning("%s", empty([entry.place], count=count))
        return reading

    def _deny(self, place: str, seen: FileStat, error: InputError) -> None:
        """A file that may not be opened waits for as long as it takes, and nothing else waits for it."""
        if place not in self._denied:
            LOG.warning("%s may not be opened, and waits until it may be: %s", place, error.detail)
        self._denied[place] = seen

    def _aside(self, entry: Entry, why: str) -> StreamBatch:
        """The whole of a file that cannot be read."""
        batch = set_aside(self._folder.path(entry.place), why, self.event_columns)
        return StreamBatch(PARTITION, self._finish(entry), batch.events, batch.rejected)

    def _finish(self, entry: Entry) -> Ranges:
        """Stand behind the file; the offsets up to there."""
        first, self._at = self._at, (entry.number + 1) * STRIDE
        self._finished.add(entry)
        self._at_end = False
        return {PARTITION: (first, self._at)}

    # ---- the file at hand ----

    def _open(self, entry: Entry, offset: int) -> Reading:
        with self._unchanged(entry):
            if not entry.size_bytes and entry.place.lower().endswith(".gz"):  # a writer may be about to begin
                raise InputError("a gzip file has no content", detail=f"file {entry.place}")
            source = FileSource(
                [self._folder.path(entry.place)],
                dialect=self._dialect,
                columns=self._columns,
                extras=self._extras,
                batch_bytes=entry.batch_bytes,
                batch_records=entry.batch_records,
                max_future_ms=self._max_future_ms,
                now_ms=entry.now_ms,
            )
            return Reading(entry, source, offset)

    def _print_of(self, entry: Entry) -> str | None:
        with self._unchanged(entry):
            return print_of(self._folder.path(entry.place))

    def _next_batch(self, reading: Reading) -> StreamBatch | None:
        """None when what was read on held no record."""
        with self._unchanged(reading.entry):
            step = reading.next()
        if step is None:
            return None
        batch, last = step
        if last:
            self._stop_reading()
            ranges = self._finish(reading.entry)
        else:
            first, self._at = self._at, reading.entry.number * STRIDE + reading.offset
            ranges = {PARTITION: (first, self._at)}
        return StreamBatch(PARTITION, ranges, batch.events, batch.rejected, batch.lost)

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.close()
            self._reading = None

    @contextmanager
    def _unchanged(self, entry: Entry) -> Iterator[None]:
        """What is read of a file that is changed meanwhile could not be read again, and fails as such."""
        self._check_same(entry)
        try:
            yield
        except InputError:
            self._check_same(entry)
            raise
        self._check_same(entry)

    def _check_same(self, entry: Entry) -> None:
        now = self._folder.seen(entry.place)
        if now is None or not now.is_as(entry):
            raise changed(self._folder.path(entry.place), entry, now)
