"""Warnings about input files that do not stop a run, logged by sessionize.input.files.

Commands and streams show them (app/streams/logs.py, cli/terminal/input_warnings.py); users of the library log them.
"""

import logging
import os
from collections.abc import Sequence

LOG = logging.getLogger("sessionize.input.files")
LOG.addHandler(logging.NullHandler())

OTHER_ENDING = "unknown file name ending"
NO_FILE = "pipes, sockets or devices"
UNKNOWN_ENTRY = "unknown format in an archive"
LINKED_FOLDER = "links to folders; name the folders themselves"
_NAMED_MAX = 5


class Counted:
    """Counts a repeated event, which is reported the first time and each time its count has doubled."""

    def __init__(self) -> None:
        self._count, self._next = 0, 1

    def add(self, count: int = 1) -> int | None:
        """Add to the count; returns the total if it is to be reported now, else None."""
        self._count += count
        if self._count < self._next:
            return None
        self._next = 2 * self._count
        return self._count


def skipped_files(paths: Sequence[str], why: str, *, count: int | None = None) -> str:
    """The message that files are not read: how many, the first few, and why. count: the total, if there are more."""
    return f"{_files(len(paths) if count is None else count)} not read ({why}): {_named(paths)}"


def empty(paths: Sequence[str], *, count: int | None = None) -> str:
    """The message that files are empty: how many, and the first few."""
    return f"{_files(len(paths) if count is None else count)} empty: {_named(paths)}"


def _files(count: int) -> str:
    return f"{count:,} {'file is' if count == 1 else 'files are'}"


def _named(paths: Sequence[str]) -> str:
    names = ", ".join(os.fspath(path) for path in paths[:_NAMED_MAX])
    return names if len(paths) <= _NAMED_MAX else f"{names} and others"
