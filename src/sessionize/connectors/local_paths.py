"""Paths on this machine. An address in place of one is refused, as a folder `s3:` would be made of it."""

import os
import re

from sessionize.connectors.shown_settings import address_shown
from sessionize.errors import ConfigError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # s3://bucket, and s3:/bucket, which pathlib makes of it
HINT = (
    "write a path of this machine; addresses are inputs, the output of batch and label, and where Iceberg tables lie"
    " (output.catalog.warehouse)"
)
FILE_HINT = "write the path alone, without file://"


def is_address(path: "str | os.PathLike[str]") -> bool:
    """Whether it names a place elsewhere (s3://, gs://, https://, file://), and not a path."""
    return _ADDRESS.match(os.fspath(path)) is not None


def hint_for(path: "str | os.PathLike[str]") -> str:
    """What to write in place of an address."""
    return FILE_HINT if os.fspath(path).lower().startswith("file:") else HINT


def check_local(path: "str | os.PathLike[str]", *, name: str) -> None:
    """name: the option or key that the path was given for. Errors: ConfigError for an address."""
    if is_address(path):
        raise ConfigError(
            f"{name} takes a local path, not an address",
            detail=address_shown(os.fspath(path)),
            hint=hint_for(path),
        )
