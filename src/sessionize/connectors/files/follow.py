"""A directory (or patterns) that is followed for new files, each read exactly once. Fits ports.StreamSource.

A file has to be complete when it appears, best by renaming it into place; one that still grows is left to settle. Names
have to be new: a finished file that grows or is replaced is not read again (`replaced` tells, and the log). A file
that cannot be read as what its name says, such as Parquet without a footer, waits while others are read, and becomes
one rejected record when nobody has touched it for broken_after_s. Damage inside a file is rejected where it is.
There is one partition; a place is a path below the root, its offset the records read, FINISHED when it is done.
"""

import glob
import logging
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sessionize.connectors.files.follow_book import Book, Entry
from sessionize.connectors.files.follow_reading import Reading, changed
from sessionize.connectors.files.source import FileSource
from sessionize.connectors.files.source_paths import format_of
from sessionize.connectors.files.unreadable import set_aside, why_unreadable
from sessionize.errors import InputError, UnavailableError
from sessionize.formats.dialects import Dialect
from sessionize.ports import Positions, Ranges, StreamBatch

FINISHED = 1 << 62
PARTITION = "files"
_BATCH_BYTES = 4 << 20
_LOOK_EVERY_S = 0.1
_LOG = logging.getLogger("sessionize.input.files")
_TEMPORARY = (".tmp", ".temp", ".part", ".partial", ".crdownload", ".swp", "~")


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file at a look, and since when (time.monotonic) it looks like that; changed: it once looked different."""

    size_bytes: int
    mtime_ns: int
    since_s: float
    changed: bool = False


class DirectorySource:
    """Follows files in the order of (modification time, name). Not for several threads.

    paths: directories, with all below them, or patterns such as logs/*.ndjson.gz. book: a file of this source's own,
    kept beside the checkpoints. settle_s: how long a file must have been left alone; broken_after_s: one that cannot be
    read. max_future_ms: events later than the moment their file was taken up plus this are rejected. until_now: read
    only files that are there now. Errors: InputError for a directory that does not exist.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        dialect: Dialect,
        book: Path,
        columns: frozenset[str] | None = None,
        extras: bool = False,
        max_future_ms: int | None = None,
        until_now: bool = False,
        settle_s: float = 1.0,
        broken_after_s: float = 60.0,
        batch_bytes: int = _BATCH_BYTES,
    ) -> None:
        self._patterns = [os.path.abspath(path) for path in paths]
        fixed = [_fixed_part(pattern) for pattern in self._patterns]
        for folder in fixed:
            if not os.path.isdir(folder):
                raise InputError(
                    "a directory to follow does not exist",
                    detail=f"directory {folder}",
                    hint="make it, or check its name",
                )
        self._root = os.path.commonpath(fixed)
        self._dialect = dialect
        self._columns = columns
        self._extras = extras
        self._max_future_ms = max_future_ms
        self._settle_s, self._broken_after_s = settle_s, broken_after_s
        self._doubtful: set[str] = set()  # could not be read, and may still be about to be written
        self._batch_bytes = batch_bytes
        self._book = Book(book)
        self._positions: dict[str, int] = {}
        self._looks: dict[str, _Seen] = {}
        self._waiting: deque[tuple[str, _Seen | None]] = deque()
        self._reading: Reading | None = None
        self._at_end = False
        self._links_out: set[str] = set()
        self.replaced: frozenset[str] = frozenset()
        self._only = frozenset(self._look()) if until_now else None

    @property
    def event_columns(self) -> frozenset[str]:
        """The canonical columns that every batch of events has."""
        return frozenset(self._dialect.columns_for(self._columns))

    @property
    def user_name(self) -> str:
        """What the input calls the user."""
        return self._dialect.user_name

    def partitions(self) -> frozenset[str]:
        """Files are read one after the other, so there is one."""
        return frozenset({PARTITION})

    def seek(self, positions: Positions) -> None:
        """Go on from these offsets; a file that is not named is read from its first record on."""
        self._stop_reading()
        self._positions = dict(positions)
        self._waiting.clear()
        self._at_end = False

    def poll(self, *, timeout_s: float, now_ms: int) -> list[StreamBatch]:
        """The next batch of the file at hand, or of the next file; waits for one at most timeout_s.

        Errors: InputError when a file that was begun is gone or changed; UnavailableError when a file or a directory
        cannot be reached. After an error the file at hand is taken up again where it was, before any other.
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
            entry = self._next_file(now_ms)
            if entry is not None:
                aside = self._take_up(entry)
                if aside is not None:
                    return [aside]
                continue
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return []
            # looking through very many files takes a while, and must not be all that is done
            time.sleep(min(max(_LOOK_EVERY_S, 4 * (time.monotonic() - began_s)), left_s))
        self._at_end = False
        return [self._next_batch(self._reading)]

    def read(self, ranges: Ranges, *, now_ms: int) -> Iterator[StreamBatch]:
        """Exactly these records again, file by file in the order of the book. now_ms is in the book, per file."""
        self._stop_reading()
        self._waiting.clear()
        order = {place: number for number, place in enumerate(self._book.entries)}
        for place in sorted(ranges, key=lambda name: (order.get(name, len(order)), name)):
            first, end = ranges[place]
            entry = self._book.entries.get(place)
            if entry is None:
                raise _not_in_the_book(place)
            self._stop_reading()
            if entry.unreadable is not None:
                yield self._aside(entry, entry.unreadable)
                continue
            self._positions[place] = first
            reading = self._reading = self._open(entry, first)
            while self._positions[place] < end:
                batch = self._next_batch(reading)
                if batch.ranges[place][1] > end:
                    raise changed(place, f"it has a batch up to record {batch.ranges[place][1]:,}, not {end:,}")
                yield batch

    def read_to_end(self) -> frozenset[str]:
        """The partition, when the last poll found nothing more, not even a file that has to settle."""
        return self.partitions() if self._at_end else frozenset()

    def behind(self) -> int | None:
        """Nobody knows how many records a file has before it is read."""
        return None

    def close(self) -> None:
        """Release the file at hand."""
        self._stop_reading()

    def _next_file(self, now_ms: int) -> Entry | None:
        """A file that was begun, or else the oldest new one that has settled; None when there is none now."""
        if not self._waiting:
            self._waiting = deque(self._find())
        while self._waiting:
            place, seen = self._waiting.popleft()
            if seen is None:
                return self._book.entries[place]
            entry = Entry(
                place=place,
                size_bytes=seen.size_bytes,
                mtime_ns=seen.mtime_ns,
                now_ms=now_ms,
                batch_bytes=self._batch_bytes,
            )
            # it may have waited for long; one that is gone or different now is found again by the next look
            if self._is_same(entry, self._seen(place)):
                self._book.add(entry)
                self._doubtful.discard(place)
                return entry
        return None

    def _find(self) -> list[tuple[str, _Seen | None]]:
        """Files to read, in order: those in the book that are not finished, with None, then new ones that settled."""
        there, known = self._look(), self._book.entries
        begun: list[tuple[str, _Seen | None]] = []
        replaced, waiting = set(), set()
        for place, entry in known.items():
            at, same = self._positions.get(place, 0), self._is_same(entry, there.get(place))
            if (
                at == 0
                and same
                and place in self._doubtful
                and not self._has_settled(there[place], self._broken_after_s)
            ):
                waiting.add(place)
            elif 0 < at < FINISHED or (at == 0 and same):
                begun.append((place, None))
            elif at == FINISHED and place in there and not same:
                replaced.add(place)
        for place, at in self._positions.items():
            if 0 < at < FINISHED and place not in known:
                raise _not_in_the_book(place)
        for place in replaced - self.replaced:
            _LOG.warning("%s changed after it was read, and is not read again: names have to be new", place)
        self.replaced = frozenset(replaced)
        taken = waiting.union(place for place, _ in begun)
        new = {p: seen for p, seen in there.items() if p not in taken and self._positions.get(p, 0) == 0}
        if self._only is not None:
            new = {place: seen for place, seen in new.items() if place in self._only}
        self._at_end = not new and not taken
        settled = [place for place, seen in new.items() if self._has_settled(seen, self._settle_s)]
        return begun + [(place, new[place]) for place in sorted(settled, key=lambda p: (new[p].mtime_ns, p))]

    def _look(self) -> dict[str, _Seen]:
        """All files that are data, as they are now."""
        looks: dict[str, _Seen] = {}
        for path in self._files():
            place = os.path.relpath(path, self._root)
            seen, before = self._seen(place), self._looks.get(place)
            if seen is None:
                continue
            if before is None:
                looks[place] = seen
            elif (before.size_bytes, before.mtime_ns) == (seen.size_bytes, seen.mtime_ns):
                looks[place] = before
            else:
                looks[place] = replace(seen, changed=True)
        self._looks = looks
        return looks

    def _seen(self, place: str) -> _Seen | None:
        try:
            stat = os.stat(os.path.join(self._root, place))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnavailableError("a file cannot be reached", detail=str(error)) from error
        return _Seen(stat.st_size, stat.st_mtime_ns, time.monotonic())

    def _files(self) -> Iterator[str]:
        for pattern in self._patterns:
            found = _below(pattern) if os.path.isdir(pattern) else iter(glob.glob(pattern, recursive=True))
            for path in found:
                inside = Path(os.path.relpath(path, _fixed_part(pattern))).parts
                if any(name.startswith((".", "_")) for name in inside) or path.lower().endswith(_TEMPORARY):
                    continue
                if format_of(path) is not None and os.path.isfile(path) and not self._leads_out(path, pattern):
                    yield path

    def _leads_out(self, path: str, pattern: str) -> bool:
        """Whether it is a link to somewhere else: who may write here must not thereby read what we may read."""
        if path == pattern or not os.path.islink(path):
            return False
        root = os.path.realpath(_fixed_part(pattern))
        if os.path.commonpath([root, os.path.realpath(path)]) == root:
            return False
        if path not in self._links_out:
            self._links_out.add(path)
            _LOG.warning("%s is a link to a file outside of the followed folder, and is not read", path)
        return True

    @staticmethod
    def _has_settled(seen: _Seen, for_s: float) -> bool:
        """Whether it is old enough, or was watched for long enough: clocks of file servers may differ from ours, and
        a file that changed under our eyes may well carry an old time.
        """
        old = not seen.changed and time.time() - seen.mtime_ns / 1e9 >= for_s
        return old or time.monotonic() - seen.since_s >= for_s

    @staticmethod
    def _is_same(entry: Entry, seen: _Seen | None) -> bool:
        return seen is not None and (entry.size_bytes, entry.mtime_ns) == (seen.size_bytes, seen.mtime_ns)

    def _take_up(self, entry: Entry) -> StreamBatch | None:
        """Begin a file. None when its batches follow, or when it may still become readable; otherwise its one batch."""
        place, why = entry.place, entry.unreadable
        if why is None:
            at = self._positions.get(place, 0)
            try:
                self._reading = self._open(entry, at)
                return None
            except InputError as error:
                if at or not self._is_same(entry, self._seen(place)):
                    raise
                why = why_unreadable(os.path.join(self._root, place), error)
            if not self._has_settled(self._looks[place], self._broken_after_s):
                self._doubtful.add(place)
                return None
            self._book.add(replace(entry, unreadable=why))
            _LOG.warning("%s cannot be read and is set aside: %s", place, why)
        return self._aside(entry, why)

    def _aside(self, entry: Entry, why: str) -> StreamBatch:
        """The whole of a file that cannot be read."""
        self._positions[entry.place], self._at_end = FINISHED, False
        batch = set_aside(os.path.join(self._root, entry.place), why, self.event_columns)
        return StreamBatch(PARTITION, {entry.place: (0, FINISHED)}, batch.events, batch.rejected)

    def _open(self, entry: Entry, offset: int) -> "Reading":
        self._check_same(entry)
        path = os.path.join(self._root, entry.place)
        source = FileSource(
            [path],
            dialect=self._dialect,
            columns=self._columns,
            extras=self._extras,
            processes=1,
            batch_bytes=entry.batch_bytes,
            max_future_ms=self._max_future_ms,
            now_ms=entry.now_ms,
        )
        return Reading(entry, source, offset)

    def _next_batch(self, reading: "Reading") -> StreamBatch:
        place = reading.entry.place
        first = reading.offset
        batch, last = reading.next()
        # what was read of a file that was changed meanwhile could not be read again
        self._check_same(reading.entry)
        after = FINISHED if last else reading.offset
        self._positions[place] = after
        if last:
            self._stop_reading()
        return StreamBatch(PARTITION, {place: (first, after)}, batch.events, batch.rejected)

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.close()
            self._reading = None

    def _check_same(self, entry: Entry) -> None:
        seen = self._seen(entry.place)
        if seen is None:
            raise InputError(
                "a file is gone that has not been read to its end",
                detail=f"file {os.path.join(self._root, entry.place)}",
                hint="put it back; files may be removed once they are finished",
            )
        if not self._is_same(entry, seen):
            raise changed(entry.place, f"it had {entry.size_bytes:,} bytes and has {seen.size_bytes:,}")


def _fixed_part(pattern: str) -> str:
    """The directory above the first name with a wildcard."""
    if not glob.has_magic(pattern):
        return pattern if os.path.isdir(pattern) or not os.path.exists(pattern) else os.path.dirname(pattern)
    parts = Path(pattern).parts
    fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return os.path.join(*parts[:fixed])


def _below(directory: str) -> Iterator[str]:
    for folder, folders, names in os.walk(directory, onerror=_gone):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        for name in names:
            yield os.path.join(folder, name)


def _gone(error: OSError) -> None:
    raise UnavailableError(
        "a followed directory cannot be read", detail=f"{error.filename}: {error.strerror}"
    ) from error


def _not_in_the_book(place: str) -> InputError:
    return InputError(
        "a file that was begun is not in the book of followed files",
        detail=f"file {place}",
        hint="the book and the checkpoints belong together; restore both",
    )
