"""The book of a followed directory: which files were taken up, in which order, and what they were then.

A position is one number, so what a repetition needs beside it is kept here: the order of the files, how to tell whether
a file is still the same, and the present its events were judged by. One line for each file, with a checksum, synced
before the file's first record is handed out; a torn last line means that nothing of its file ever was.

Places are paths below a root, which the book notes: with the first file, and in a line of its own when it changes.
"""

import contextlib
import json
import os
import zlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sessionize.durable import is_transient, sync_folder
from sessionize.errors import OutputError, SessionizeError, StateError, UnavailableError

_CHECKSUM_DIGITS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file as it was when it was taken up.

    number: how many files come before it. place: its path below the root, with .. where it lies elsewhere. batch_bytes,
    batch_records: how it is cut into batches. now_ms: what was the present. unreadable: why the whole of it was set
    aside, None when it was not. inode, fingerprint: which file it was and what it held, None in books of before.
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
    """Entries in the order in which files were taken up; one with a number that is there takes its place, and what came
    after that was never read for good. root: what the places are relative to, None where no root is noted yet.

    Errors: StateError for a damaged book; UnavailableError when the disk is full or fails, OutputError when it refuses
    for a reason that stays.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.entries: list[Entry] = []
        self.root: str | None = None
        self._present_root: str | None = None
        try:
            path.parent.parent.mkdir(parents=True, exist_ok=True)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            data = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise self._refused("read", error) from error
        whole = data.rfind(b"\n") + 1
        for number, line in enumerate(data[:whole].split(b"\n")[:-1], 1):
            try:
                self._hear(line)
            except (KeyError, TypeError, ValueError) as error:
                raise self._damaged(number, str(error)) from error
        if whole < len(data):
            if _is_whole(data[whole:-1]):  # its line feed alone is not what was written
                raise self._damaged(len(self.entries) + 1, "it does not end like a line")
            try:
                os.truncate(path, whole)
            except OSError as error:
                raise self._refused("written", error) from error

    def add(self, entry: Entry) -> None:
        """Take up a file, durably. After an error (those of the class) the book is as it was."""
        noted = {} if self._present_root == self.root else {"root": self._present_root}
        self._append(noted | asdict(entry))
        self.root = self._present_root
        self._put(entry)

    def go_on_below(self, root: str, *, moved: bool = False) -> None:
        """Places are relative to this root from here on; durably, as soon as there are any.

        Those that are known go on to mean the same files; moved: the same places below the new root, to where the
        files have been moved. A book that has noted no root yet adopts it. Errors: those of the class.
        """
        if self.entries and root != self.root:
            self._append({"root": root, "moved": moved})
            self._change_root(root, moved=moved)
        self._present_root = root

    def _change_root(self, root: str, *, moved: bool) -> None:
        if self.root is not None and self.root != root and not moved:
            before = self.root
            self.entries = [
                replace(each, place=os.path.relpath(os.path.join(before, each.place), root)) for each in self.entries
            ]
        self.root = self._present_root = root

    def _hear(self, line: bytes) -> None:
        said = _said(line)
        if "number" not in said:
            self._change_root(said["root"], moved=said["moved"])
            return
        if "root" in said:
            self.root = self._present_root = said.pop("root")
        self._put(Entry(**said))

    def _append(self, said: dict[str, object]) -> None:
        size = None
        try:
            with open(self._path, "ab", buffering=0) as file:
                size = file.tell()
                line = _written(said)
                while line:
                    line = line[file.write(line) or 0 :]
                os.fsync(file.fileno())
            if size == 0:
                sync_folder(self._path.parent)
        except OSError as error:
            if size is not None:  # half a line would spoil the next one
                with contextlib.suppress(OSError):
                    os.truncate(self._path, size)
            raise self._refused("written", error) from error

    def _put(self, entry: Entry) -> None:
        if entry.number > len(self.entries):
            raise ValueError(f"file {entry.number} follows file {len(self.entries) - 1}")
        self.entries[entry.number :] = [entry]

    def _refused(self, done: str, error: OSError) -> SessionizeError:
        return (UnavailableError if is_transient(error) else OutputError)(
            f"the book of followed files cannot be {done}",
            detail=f"{self._path}: {error.strerror or error}",
            hint="make room, mend the disk, or see to the folder's rights: nothing was lost",
        )

    def _damaged(self, line: int, why: str) -> StateError:
        return StateError(
            "the book of followed files is damaged",
            detail=f"{self._path}, line {line}: {why}",
            hint="put it back from a copy; without it a repetition could not be exact",
        )


def _written(said: dict[str, object]) -> bytes:
    text = json.dumps(said).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _is_whole(line: bytes) -> bool:
    return line[:_CHECKSUM_DIGITS] == b"%08x" % zlib.crc32(line[_CHECKSUM_DIGITS + 1 :])


def _said(line: bytes) -> dict[str, Any]:
    if not _is_whole(line) or line[_CHECKSUM_DIGITS : _CHECKSUM_DIGITS + 1] != b" ":
        raise ValueError("the checksum does not match")
    said: dict[str, Any] = json.loads(line[_CHECKSUM_DIGITS + 1 :])
    return said
