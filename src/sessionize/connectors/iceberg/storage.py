"""Files of a table: pyiceberg's file access through Arrow, but what is written to a local disk stays there.

A catalog must never name a file that a power cut can still take: every local file, and the folder that lists it, is
synced when it is closed. Object stores promise as much by themselves.
"""

import contextlib
import io
import os
from pathlib import Path

from pyiceberg.io import OutputStream
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

_BUFFER_BYTES = 1 << 18


class DurableFileIO(PyArrowFileIO):
    """Arrow's file systems; local files are synced on close. Named to pyiceberg as `py-io-impl`."""

    def new_output(self, location: str) -> PyArrowFile:
        """A file to be written, at a path or a URL."""
        scheme, netloc, path = self.parse_location(location, self.properties)
        filesystem = self.fs_by_scheme(scheme, netloc)
        if scheme == "file":
            return _DurableFile(location, path, filesystem)
        return PyArrowFile(location, path, filesystem)


class _DurableFile(PyArrowFile):
    def create(self, overwrite: bool = False) -> OutputStream:
        """A stream into a new file. Errors: FileExistsError, OSError."""
        try:
            raw = _SyncedFile(self._path, "wb" if overwrite else "xb")
        except FileNotFoundError:
            _make_folder(Path(self._path).parent)
            raw = _SyncedFile(self._path, "wb" if overwrite else "xb")
        return io.BufferedWriter(raw, _BUFFER_BYTES)


class _SyncedFile(io.FileIO):
    """Closing it also makes sure that the disk has it."""

    def close(self) -> None:
        if self.closed:
            return
        try:
            os.fsync(self.fileno())
            sync_folder(os.path.dirname(os.fsdecode(self.name)))  # type: ignore[arg-type]  # always opened by a path
        finally:
            super().close()


def sync_folder(path: str | Path) -> None:
    """Make new, renamed and removed names in a folder durable; file systems that can't are left alone."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_folder(path: Path) -> None:
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)
