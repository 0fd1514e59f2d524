"""Opens a file wherever it lies: on this machine, in an object store, on a web server."""

from typing import Any

from sessionize.connectors.local_paths import is_address
from sessionize.errors import SessionizeError

# What Arrow's file systems say of a request that failed; all else is about the content.
_OF_TRANSPORT = ("AWS Error", "google::cloud", "GcsFileSystem", "Azure", "curl")


def open_bytes(path: str, *, random: bool = False) -> Any:
    """The file for reading, without a buffer. random: here and there, not from the start on.

    Errors: OSError of a local file; ConfigError, InputError, UnavailableError of an address.
    """
    if not is_address(path):
        return open(path, "rb", buffering=0)
    from sessionize.connectors.object_stores import open_file
    from sessionize.connectors.remote_addresses import address_of

    return open_file(address_of(path), random=random)


def transport_failure(path: str, error: Exception) -> SessionizeError | None:
    """The error for a request to a store that failed; None where the content is at fault, or the file is local."""
    if not is_address(path) or not any(mark in str(error) for mark in _OF_TRANSPORT):
        return None
    from sessionize.connectors.remote_errors import read_failure

    return read_failure(path, error)
