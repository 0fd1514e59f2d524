"""Runs `sessionize ARGUMENTS` in processes that are forked from one that has everything imported.

A command is a process of its own, with its arguments, folder, environment, standard streams, signals and exit code.
Only its imports are there already, which take most of a short command's time. Tests about imports and start-up start a
new interpreter instead.
"""

import contextlib
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import sessionize
from sessionize.cli import main

_TIMEOUT_S = 120.0
_PIPE_BYTES = 1 << 16
# What commands import by themselves, beside the modules of the package.
_HEAVY = ("duckdb", "pyarrow.compute", "pyarrow.csv", "pyarrow.dataset", "pyarrow.parquet", "pyiceberg.catalog.sql")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended. out, err: what it wrote."""

    code: int
    out: bytes
    err: bytes


class ForkedCommands:
    """Starts commands, one at a time; close it, or use it in a with statement."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )

    def run(
        self, arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str], stdin: bytes = b""
    ) -> Ended:
        """Run it to its end. Errors: TimeoutError after two minutes; the command is killed."""
        with self._lock, _scratch() as (given, out, err):
            given.write_bytes(stdin)
            asked = {
                "arguments": list(arguments),
                "folder": str(folder),
                "environment": dict(environment),
                "streams": [str(given), str(out), str(err)],
            }
            code = self._ask(asked)
            return Ended(code, out.read_bytes(), err.read_bytes())

    def close(self) -> None:
        """End the server and what it runs."""
        if self._server.poll() is None:
            os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait()
        for pipe in (self._server.stdin, self._server.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def __enter__(self) -> "ForkedCommands":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _ask(self, asked: dict[str, Any]) -> int:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(asked).encode() + b"\n")
        self._server.stdin.flush()
        late = threading.Timer(_TIMEOUT_S, self._kill)
        late.start()
        try:
            answer = self._server.stdout.readline()
        finally:
            late.cancel()
        if not answer:
            raise TimeoutError(f"sessionize {' '.join(asked['arguments'])} did not end, or took the server along")
        return int(answer)

    def _kill(self) -> None:
        """End the server and the command that does not end."""
        os.killpg(self._server.pid, signal.SIGKILL)


@contextlib.contextmanager
def _scratch() -> Iterator[tuple[Path, Path, Path]]:
    """Three files for the standard streams, outside the folder that a command looks into."""
    with tempfile.TemporaryDirectory(prefix="streams-") as made:
        yield Path(made, "in"), Path(made, "out"), Path(made, "err")


def _serve() -> None:
    """Answer requests: one line of JSON each, answered by the exit code."""
    for name in _HEAVY:
        importlib.import_module(name)
    for module in pkgutil.walk_packages(sessionize.__path__, "sessionize."):
        if not module.name.startswith("sessionize.testing") and not module.name.endswith("__main__"):
            with contextlib.suppress(ModuleNotFoundError):  # an extra that is not installed
                importlib.import_module(module.name)
    answers = os.fdopen(os.dup(1), "wb")
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            answers.close()
            _become(asked)
        answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n".encode())
        answers.flush()


def _become(asked: dict[str, Any]) -> None:
    """Never returns."""
    given, out, err = asked["streams"]
    _pipe_in(Path(given).read_bytes())
    for number, path in ((1, out), (2, err)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    # The streams of this interpreter belong to the server; their encoding and buffering are those of a new one.
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115 (open as long as the process)
        for number, mode, errors in ((0, "r", "strict"), (1, "w", "strict"), (2, "w", "backslashreplace"))
    )
    sys.argv = ["sessionize", *asked["arguments"]]
    main()


def _pipe_in(data: bytes) -> None:
    """Make a pipe with these bytes the standard input."""
    out, into = os.pipe()
    os.dup2(out, 0)
    os.close(out)

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(into, "wb") as pipe:
            pipe.write(data)

    if len(data) <= _PIPE_BYTES:
        write()
    else:
        threading.Thread(target=write, daemon=True).start()


if __name__ == "__main__":
    _serve()
