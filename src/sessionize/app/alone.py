"""A lock in the home, so that a command that rewrites tables runs once at a time."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from sessionize.errors import OutputError, UnavailableError


@contextlib.contextmanager
def alone(home: Path, name: str, what: str, *, local: bool = True) -> Iterator[None]:
    """Hold `<home>/<name>.lock`; it goes with the process, however that ends.

    local: the tables are registered in the home; otherwise by a server, and the home is made for the lock.
    Errors: UnavailableError when held; OutputError when the home cannot be made.
    """
    if local and not (home / "catalog.db").exists():
        yield  # there is nothing to protect, and whoever opens the tables says so
        return
    path = home / f"{name}.lock"
    try:
        home.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise OutputError(
            f"a {what} cannot be locked", detail=f"{path}: {error.strerror}", hint="check the home and who may write it"
        ) from error
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UnavailableError(
                f"another {what} is running", detail=f"{path} is held", hint="wait until it is done"
            ) from error
        yield
