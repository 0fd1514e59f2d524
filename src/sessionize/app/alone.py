"""A lock in the home, so that a command that rewrites tables runs once at a time."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from sessionize.errors import UnavailableError


@contextlib.contextmanager
def alone(home: Path, name: str, what: str) -> Iterator[None]:
    """Hold `<home>/<name>.lock`; it goes with the process, however that ends. Errors: UnavailableError when held."""
    if not (home / "catalog.db").exists():
        yield  # there is nothing to protect, and whoever opens the tables says so
        return
    path = home / f"{name}.lock"
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UnavailableError(
                f"another {what} is running", detail=f"{path} is held", hint="wait until it is done"
            ) from error
        yield
