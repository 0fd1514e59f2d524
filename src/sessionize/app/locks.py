"""Locks in the home, so that a command that rewrites tables runs once at a time, or while no engine does."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from sessionize.engine.stream.checkpoint_files import DurableFolder, FileOperations
from sessionize.errors import BusyError, OutputError, StateError


@contextlib.contextmanager
def exclusive(home: Path, name: str, what: str, *, local: bool = True) -> Iterator[None]:
    """Hold `<home>/<name>.lock`; it goes with the process, however that ends.

    local: the tables are registered in the home; otherwise by a server, and the home is made for the lock.
    Errors: BusyError when held; OutputError when the home cannot be made.
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
            f"a {what} cannot be locked", detail=f"{path}: {error.strerror}", hint="check the home and its permissions"
        ) from error
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(
                f"another {what} is running", detail=f"{path} is held", hint="wait until it is done"
            ) from error
        yield


class Turn:
    """Whose turn it is: of the processes of a home the first one that asks, until it gives the turn back.

    Then it is the turn of whoever asks next. The lock goes with the process, however that ends.
    """

    def __init__(self, home: Path, name: str) -> None:
        self._path = home / f"{name}.lock"
        self._held: IO[bytes] | None = None

    def is_mine(self) -> bool:
        """Whether it is this process's, asking for it if it is nobody's. Errors: OSError."""
        if self._held is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = open(self._path, "ab")  # noqa: SIM115 - held until it is given back
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                return False
            self._held = file
        return True

    def take(self) -> None:
        """Wait until it is this process's. Errors: OutputError when the home cannot be written."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._held = open(self._path, "ab")  # noqa: SIM115 - held until it is given back
            fcntl.flock(self._held, fcntl.LOCK_EX)
        except OSError as error:
            raise OutputError(
                "a home cannot be locked",
                detail=f"{self._path}: {error.strerror}",
                hint="check the home and its permissions",
            ) from error

    def give_back(self) -> None:
        """Let another process have it; nothing when it is not held."""
        if self._held is not None:
            self._held.close()
            self._held = None


@contextlib.contextmanager
def in_turn(home: Path, name: str) -> Iterator[None]:
    """Wait for the turn, and have it for this block. Errors: those of Turn.take."""
    turn = Turn(home, name)
    turn.take()
    try:
        yield
    finally:
        turn.give_back()


@contextlib.contextmanager
def engines_stopped(home: Path, what: str) -> Iterator[None]:
    """Hold the state of every writer of this home, so that no engine runs on it, and none goes on meanwhile.

    Errors: StateError when one runs.
    """
    with contextlib.ExitStack() as held:
        for lock in sorted(home.glob("state/*/lock")):
            try:
                folder = DurableFolder(lock.parent, FileOperations())
            except StateError as error:
                raise StateError(
                    f"{what} treats every session as closed, but an engine runs",
                    detail=error.detail,
                    hint="drain it first (run --once), or remove the option: final sessions are reconciled beside a "
                    "running engine",
                ) from error
            held.callback(folder.close)
        yield
