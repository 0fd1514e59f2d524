"""The file log of a followed directory: which files were started, in which order, and their state then.

A position is one number, so a repetition needs more, which is kept here: the order of the files, how to recognise
a changed file, and the time by which its events were validated. Each file has one line with a checksum, synced before
the file's first record is returned; a torn last line means that no record of its file was returned.

Places are paths relative to a root, which the log records: with the first file, and in a line of its own when it
changes.
"""

import contextlib
import json
import os
import zlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sessionize.durable import disk_error, sync_folder
from sessionize.errors import SessionizeError, StateError

_CHECKSUM_DIGITS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """A file as it was when reading started.

    number: the number of files before it. place: its path relative to the root, with .. if it is outside. batch_bytes,
    batch_records: the size of its batches. now_ms: the time when reading started. unreadable: why the whole file was
    rejected, None if it was not. inode, fingerprint: its identity and content, None in logs of earlier versions.
    """

    number: int
    place: str
    size_bytes: int
    mtime_ns: int
    now_ms: int
    batch_bytes: int
    batch_records: int
    unreadable: str | None = None
    inode: int | None = None
    fingerprint: str | None = None


class FileLog:
    """The files in reading order. An entry with an existing number replaces it and all later ones, whose records were
    never committed. root: what the places are relative to, None if no root is recorded yet.

    Errors: StateError for a damaged log; UnavailableError if the disk is full or fails, OutputError for a permanent
    disk error.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.entries: list[FileEntry] = []
        self.root: str | None = None
        self._current_root: str | None = None
        try:
            path.parent.parent.mkdir(parents=True, exist_ok=True)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            data = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise self._disk_error("read", error) from error
        whole = data.rfind(b"\n") + 1
        for number, line in enumerate(data[:whole].split(b"\n")[:-1], 1):
            try:
                self._apply(line)
            except (KeyError, TypeError, ValueError) as error:
                raise self._damaged(number, str(error)) from error
        if whole < len(data):
            if _is_whole(data[whole:-1]):  # only its line feed is damaged
                raise self._damaged(len(self.entries) + 1, "its line end is damaged")
            try:
                os.truncate(path, whole)
            except OSError as error:
                raise self._disk_error("written", error) from error

    def add(self, entry: FileEntry) -> None:
        """Append a file durably. After an error (those of the class) the log is unchanged."""
        root_change = {} if self._current_root == self.root else {"root": self._current_root}
        self._append(root_change | asdict(entry))
        self.root = self._current_root
        self._put(entry)

    def set_root(self, root: str, *, moved: bool = False) -> None:
        """Make all places relative to this root; recorded durably, with the first file if there is none yet.

        Known files stay the same files; moved: the files were moved, so they have the same places below the new root. A
        log without a root adopts it. Errors: those of the class.
        """
        if self.entries and root != self.root:
            self._append({"root": root, "moved": moved})
            self._change_root(root, moved=moved)
        self._current_root = root

    def _change_root(self, root: str, *, moved: bool) -> None:
        if self.root is not None and self.root != root and not moved:
            before = self.root
            self.entries = [
                replace(each, place=os.path.relpath(os.path.join(before, each.place), root)) for each in self.entries
            ]
        self.root = self._current_root = root

    def _apply(self, line: bytes) -> None:
        record = _parse(line)
        if "number" not in record:
            self._change_root(record["root"], moved=record["moved"])
            return
        if "root" in record:
            self.root = self._current_root = record.pop("root")
        self._put(FileEntry(**record))

    def _append(self, record: dict[str, object]) -> None:
        size = None
        try:
            with open(self._path, "ab", buffering=0) as file:
                size = file.tell()
                line = _encode(record)
                while line:
                    line = line[file.write(line) or 0 :]
                os.fsync(file.fileno())
            if size == 0:
                sync_folder(self._path.parent)
        except OSError as error:
            if size is not None:  # half a line would damage the next one
                with contextlib.suppress(OSError):
                    os.truncate(self._path, size)
            raise self._disk_error("written", error) from error

    def _put(self, entry: FileEntry) -> None:
        if entry.number > len(self.entries):
            raise ValueError(f"file {entry.number} follows file {len(self.entries) - 1}")
        self.entries[entry.number :] = [entry]

    def _disk_error(self, done: str, error: OSError) -> SessionizeError:
        return disk_error(
            f"the log of followed files cannot be {done}",
            self._path,
            error,
            hint="free disk space, fix the disk or the folder's permissions: nothing was lost",
        )

    def _damaged(self, line: int, why: str) -> StateError:
        return StateError(
            "the log of followed files is damaged",
            detail=f"{self._path}, line {line}: {why}",
            hint="restore it from a backup; without it a repetition would not be exact",
        )


def _encode(record: dict[str, object]) -> bytes:
    text = json.dumps(record).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _is_whole(line: bytes) -> bool:
    return line[:_CHECKSUM_DIGITS] == b"%08x" % zlib.crc32(line[_CHECKSUM_DIGITS + 1 :])


def _parse(line: bytes) -> dict[str, Any]:
    if not _is_whole(line) or line[_CHECKSUM_DIGITS : _CHECKSUM_DIGITS + 1] != b" ":
        raise ValueError("the checksum does not match")
    record: dict[str, Any] = json.loads(line[_CHECKSUM_DIGITS + 1 :])
    return record
