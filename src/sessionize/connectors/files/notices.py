"""What somebody should know about the files that are read, and that stops nothing: warnings of sessionize.input.files.

Commands and streams show them (app/streams/logs.py, cli/input_warnings.py); a library's user sets up logging.
"""

import logging
import os
from collections.abc import Sequence

LOG = logging.getLogger("sessionize.input.files")
LOG.addHandler(logging.NullHandler())

OTHER_ENDING = "their names end in none of the known ways"
NO_FILE = "they are pipes, sockets or devices"
LINKED_FOLDER = "they are links to folders; name those themselves"
_NAMED_MAX = 5


class Counted:
    """Something that may go on happening for ever: reported the first time, and whenever it has doubled since."""

    def __init__(self) -> None:
        self._count, self._next = 0, 1

    def add(self, count: int = 1) -> int | None:
        """Count more of it; how many there were when it is time to report, None when it is not."""
        self._count += count
        if self._count < self._next:
            return None
        self._next = 2 * self._count
        return self._count


def passed_over(paths: Sequence[str], why: str, *, count: int | None = None) -> str:
    """How many files are not read, which (the first few), and why. count: when there are more than these."""
    return f"{_files(len(paths) if count is None else count)} not read ({why}): {_named(paths)}"


def empty(paths: Sequence[str], *, count: int | None = None) -> str:
    """How many files have no content, and which (the first few)."""
    return f"{_files(len(paths) if count is None else count)} empty: {_named(paths)}"


def _files(count: int) -> str:
    return f"{count:,} {'file is' if count == 1 else 'files are'}"


def _named(paths: Sequence[str]) -> str:
    names = ", ".join(os.fspath(path) for path in paths[:_NAMED_MAX])
    return names if len(paths) <= _NAMED_MAX else f"{names} and others"
