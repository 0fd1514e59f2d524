"""The book of a followed directory: which files were taken up, in which order, and what they were then.

Positions are numbers only, so what a repetition needs beside them is kept here: the order of the files, how to tell
whether a file is still the same, and the present its events were judged by. One JSON object a line, synced before the
file's first record is handed out; a torn last line means that nothing of its file ever was.
"""

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from sessionize.durable import sync_folder
from sessionize.errors import StateError, UnavailableError


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file as it was when it was taken up.

    batch_bytes: how it was cut into batches. now_ms: what was the present. unreadable: why the whole of it was
    set aside, None when it was not.
    """

    place: str
    size_bytes: int
    mtime_ns: int
    now_ms: int
    batch_bytes: int
    unreadable: str | None = None


class Book:
    """Entries in the order in which files were taken up; a file taken up again counts from its last entry."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.entries: dict[str, Entry] = {}
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        data = path.read_bytes() if path.exists() else b""
        whole = data.rfind(b"\n") + 1
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                entry = Entry(**json.loads(line))
            except (ValueError, TypeError) as error:
                raise StateError(
                    "the book of followed files is damaged",
                    detail=f"{path}, line {number}: {error}",
                    hint="put it back from a copy; without it a repetition could not be exact",
                ) from error
            self._put(entry)
        if whole < len(data):
            os.truncate(path, whole)

    def add(self, entry: Entry) -> None:
        """Take up a file, durably. Errors: UnavailableError when the disk refuses; the book is as it was then."""
        size = None
        try:
            with open(self._path, "ab", buffering=0) as file:
                size = file.tell()
                line = json.dumps(asdict(entry)).encode() + b"\n"
                while line:
                    line = line[file.write(line) or 0 :]
                os.fsync(file.fileno())
            if len(self.entries) == 0:
                sync_folder(self._path.parent)
        except OSError as error:
            if size is not None:  # half a line would spoil the next one
                with contextlib.suppress(OSError):
                    os.truncate(self._path, size)
            raise UnavailableError(
                "the book of followed files cannot be written now",
                detail=f"{self._path}: {error.strerror or error}",
                hint="make room or mend the disk: nothing was lost",
            ) from error
        self._put(entry)

    def _put(self, entry: Entry) -> None:
        self.entries.pop(entry.place, None)
        self.entries[entry.place] = entry
