"""Files that are either whole or not there: written beside, fsynced, renamed into place.

Every call that changes the disk goes through a FileOperations, so that a test can make any of them fail. What goes
wrong becomes an error of ours that names the file, the step and the reason.
"""

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from sessionize.durable import disk_errors, sync_folder
from sessionize.errors import SessionizeError, StateError

TMP = ".tmp"


class FileOperations:
    """The calls to the operating system that change the disk."""

    def create(self, path: Path) -> int:
        """Open a new file for writing."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    def write(self, descriptor: int, data: memoryview) -> int:
        """Write some of the data; says how much."""
        return os.write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        """Force a file to the disk."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """Close a file."""
        os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Put a file in the place of another, at once."""
        os.replace(source, target)

    def sync_folder(self, folder: Path) -> None:
        """Force the names in a folder to the disk."""
        sync_folder(folder)

    def remove(self, path: Path) -> None:
        """Remove a file; one that is not there is fine."""
        path.unlink(missing_ok=True)


class DurableFolder:
    """A StateFolder (ports/) on a disk, which one process at a time writes to.

    Errors: StateError when another process holds it. Of the methods: UnavailableError when the disk is full or failing,
    OutputError when it refuses for a reason that stays; what was there before is untouched.
    """

    def __init__(self, path: Path, files: FileOperations) -> None:
        self.path = path
        self._files = files
        self._guard = threading.Lock()
        self._at_work, self._closed = 0, False
        with _step(path, "making the folder"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(mode=0o700, exist_ok=True)  # users' data; nobody else needs to look at it
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._lock, 100, 0).decode(errors="replace")
            os.close(self._lock)
            raise StateError(
                "the checkpoint folder is in use by another process",
                detail=f"{path}, process {holder or 'unknown'}",
                hint="stop it first, or give this one a folder of its own",
            ) from error
        # who holds it is a mere courtesy to the reader of the error above: a full disk must not keep us from starting
        with contextlib.suppress(OSError):
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    @property
    def place(self) -> str:
        """The path."""
        return str(self.path)

    def names(self) -> list[str]:
        """The files that are there."""
        with _step(self.path, "listing the folder"):
            return sorted(entry.name for entry in os.scandir(self.path) if entry.is_file(follow_symlinks=False))

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.path / name).is_file()

    def read(self, name: str) -> bytes:
        """A whole file."""
        with _step(self.path / name, "reading"):
            return (self.path / name).read_bytes()

    def put(self, contents: Mapping[str, Sequence[memoryview]]) -> int:
        """Write files and put them in their places, in this order, durable when this returns; the bytes written.

        A file that is there already is replaced at once, never written over. Errors: StateError after close.
        """
        with self._open():
            return self._put(contents)

    def _put(self, contents: Mapping[str, Sequence[memoryview]]) -> int:
        size = 0
        try:
            for name, parts in contents.items():
                size += self._write(self.path / f"{name}{TMP}", parts)
            for name in contents:
                with _step(self.path / name, "renaming"):
                    self._files.rename(self.path / f"{name}{TMP}", self.path / name)
            self.sync()
        except SessionizeError:
            self._remove_quietly(f"{name}{TMP}" for name in contents)
            raise
        return size

    def _write(self, path: Path, parts: Sequence[memoryview]) -> int:
        size = 0
        with _step(path, "writing"):
            # a file of an earlier try goes: after a failed fsync nobody knows which of its pages are on the disk
            self._files.remove(path)
            descriptor = self._files.create(path)
            try:
                for part in parts:
                    at = 0
                    while at < len(part):
                        at += self._files.write(descriptor, part[at : at + (1 << 26)])
                    size += len(part)
                self._files.fsync(descriptor)
            finally:
                self._files.close(descriptor)
        return size

    def move_aside(self, name: str, target: str) -> None:
        """Rename a file."""
        with _step(self.path / name, "renaming"):
            self._files.rename(self.path / name, self.path / target)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that are gone already are fine."""
        for name in names:
            with _step(self.path / name, "removing"):
                self._files.remove(self.path / name)

    def _remove_quietly(self, names: Iterable[str]) -> None:
        with contextlib.suppress(SessionizeError):  # the error that led here says more, and the next try removes again
            self.remove(names)

    def sync(self) -> None:
        """Make renames and removals durable."""
        with _step(self.path, "syncing the folder"):
            self._files.sync_folder(self.path)

    def close(self) -> None:
        """Let others have the folder; when another thread is about to put files there, as soon as it is through."""
        with self._guard:
            self._closed = True
            self._let_go()

    @contextlib.contextmanager
    def _open(self) -> Iterator[None]:
        """A thread that a run has left behind must not write into what is another process's by now."""
        with self._guard:
            if self._closed:
                raise StateError("the checkpoint folder is closed", detail=str(self.path))
            self._at_work += 1
        try:
            yield
        finally:
            with self._guard:
                self._at_work -= 1
                self._let_go()

    def _let_go(self) -> None:
        if self._closed and not self._at_work and self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _step(path: Path, action: str) -> AbstractContextManager[None]:
    return disk_errors(
        f"a checkpoint file cannot be {'read' if action == 'reading' else 'written'}",
        f"{action} {path}",
        hint="make room or mend the disk: nothing was lost, the step can be repeated",
        permanent_hint="see to the folder's rights and limits; the checkpoints before this one are untouched",
    )
