"""File access of tables: pyiceberg's access through Arrow, with durable writes to local disks.

A catalog must never name a file that a power failure can still lose, so every local file and its folder are synced on
close. Object stores guarantee this themselves.

The location of a local file is `file://` and its unchanged path, as Iceberg's other readers expect; it is never decoded
as a URL, where `%20`, `?` and `#` have another meaning.
"""

import io
import os
from pathlib import Path

from pyiceberg.io import FileIO, OutputStream
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO
from pyiceberg.typedef import EMPTY_DICT, Properties

from sessionize.durable import sync_file, sync_folder

_BUFFER_BYTES = 1 << 18
_LOCAL = "file:///"


class DurableFileIO(PyArrowFileIO):
    """Arrow's file systems; local files are synced on close. Set in pyiceberg as `py-io-impl`."""

    @staticmethod
    def parse_location(location: str, properties: Properties = EMPTY_DICT) -> tuple[str, str, str]:
        """Scheme, host and path of a location; the path of a local file stays unchanged."""
        if location.startswith(_LOCAL):
            return "file", "", location.removeprefix("file://")
        return PyArrowFileIO.parse_location(location, properties)

    def new_output(self, location: str) -> PyArrowFile:
        """A file to write, at a path or a URL."""
        scheme, netloc, path = self.parse_location(location, self.properties)
        filesystem = self.fs_by_scheme(scheme, netloc)
        if scheme == "file":
            return _DurableFile(location, path, filesystem)
        return PyArrowFile(location, path, filesystem)


def split_location(location: str, properties: Properties) -> tuple[str, str, str]:
    """Scheme, host and path of a table's file, as in DurableFileIO."""
    return DurableFileIO.parse_location(location, properties)


def local_location(path: Path) -> str:
    """The location of a path on this machine."""
    return f"file://{path.absolute()}"


def open_data_file(files: FileIO, location: str) -> OutputStream:
    """Arrow's own stream to a new data file, without Python in between; sync_data_file makes it durable."""
    if not isinstance(files, DurableFileIO):
        return files.new_output(location).create(overwrite=True)
    scheme, netloc, path = files.parse_location(location, files.properties)
    return PyArrowFile(location, path, files.fs_by_scheme(scheme, netloc)).create(overwrite=True)


def sync_data_file(files: FileIO, location: str) -> None:
    """Sync a closed local data file to the disk. Errors: OSError."""
    scheme, _, path = split_location(location, files.properties)
    if scheme != "file":
        return
    sync_file(path)
    sync_folder(os.path.dirname(path))


class _DurableFile(PyArrowFile):
    def create(self, overwrite: bool = False) -> OutputStream:
        """A stream to a new file. Errors: FileExistsError, OSError."""
        try:
            raw = _SyncedFile(self._path, "wb" if overwrite else "xb")
        except FileNotFoundError:
            _make_folder(Path(self._path).parent)
            raw = _SyncedFile(self._path, "wb" if overwrite else "xb")
        return io.BufferedWriter(raw, _BUFFER_BYTES)


class _SyncedFile(io.FileIO):
    """A file that is synced to the disk on close."""

    def close(self) -> None:
        if self.closed:
            return
        try:
            os.fsync(self.fileno())
            sync_folder(os.path.dirname(os.fsdecode(self.name)))
        finally:
            super().close()


def _make_folder(path: Path) -> None:
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)
