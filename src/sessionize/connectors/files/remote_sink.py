"""Writes rows to one file in an object store: as a file here first, which is copied when it is whole.

Nobody sees it before, and a run that fails leaves nothing. It takes as much disk space as the file.
"""

import shutil
import tempfile
from pathlib import Path

import pyarrow as pa

from sessionize.connectors.files.sink import FileSink
from sessionize.connectors.object_stores import check_writable, upload
from sessionize.connectors.remote_addresses import address_of, check_address


class RemoteFileSink:
    """One output file at an address (ports.Sink); its ending selects the format."""

    def __init__(self, text: str, schema: pa.Schema | None = None) -> None:
        """Errors: ConfigError for an unknown ending; OutputError, UnavailableError for a bucket that is not there."""
        check_address(text, name="the output", writes=True)
        self._address = address_of(text)
        check_writable(self._address)
        self._folder = Path(tempfile.mkdtemp(prefix="sessionize-"))
        self._path = self._folder / (self._address.path.rpartition("/")[2] or "none")
        try:
            self._file = FileSink(self._path, schema)
        except BaseException:
            self.abort()
            raise

    def write(self, rows: pa.Table) -> None:
        """Add rows."""
        self._file.write(rows)

    def commit(self) -> None:
        """Close the file and copy it. Errors: OutputError, UnavailableError."""
        self._file.commit()
        upload(self._path, self._address)
        shutil.rmtree(self._folder, ignore_errors=True)

    def abort(self) -> None:
        """Remove the file here."""
        if hasattr(self, "_file"):
            self._file.abort()
        shutil.rmtree(self._folder, ignore_errors=True)
