"""Locks in the home, so that a command that rewrites tables runs once at a time, or while no engine does."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from sessionize.engine.checkpoint_files import DurableFolder, FileOperations
from sessionize.errors import OutputError, StateError, UnavailableError


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


@contextlib.contextmanager
def no_engine(home: Path, what: str) -> Iterator[None]:
    """Hold the state of every writer of this home, so that no engine runs on it, and none goes on meanwhile.

    Errors: StateError when one runs.
    """
    with contextlib.ExitStack() as held:
        for lock in sorted(home.glob("state/*/lock")):
            try:
                folder = DurableFolder(lock.parent, FileOperations())
            except StateError as error:
                raise StateError(
                    f"{what} takes no session for open, and an engine runs",
                    detail=error.detail,
                    hint="end it first, with its sessions (run --once), or leave the option out: what is final is "
                    "reconciled beside it",
                ) from error
            held.callback(folder.close)
        yield
