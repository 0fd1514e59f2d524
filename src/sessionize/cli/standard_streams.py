"""stdout and stderr of the commands: a report that cannot be written is dropped and counted, a result is an error.

Reports go to stderr: logs, progress, totals, errors. A disk that is full, a reader that ended or, in a stream, a reader
that has stopped reading must not decide whether the work goes on. Results go to stdout: a reader who asked for them has
to know when they are incomplete.
"""

import io
import os
import select
import sys
import threading
from typing import Any

from sessionize.errors import OutputError

_AT_ONCE_BYTES = 4096  # what a pipe that is ready takes without blocking (PIPE_BUF)


def install() -> None:
    """Put both in place of the process's own stdout and stderr, also where they were closed when it started."""
    # A closed descriptor would be given to the next file that is opened, and reports would go into that file. stdout is
    # opened for reading only: a result that is written there fails, as it should.
    for descriptor, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)
    errors = sys.stderr
    closed = errors is None
    sys.stderr = Reports(2, encoding="utf-8" if closed else errors.encoding, closed=closed)
    results: Any = sys.stdout
    raw = io.BufferedWriter(io.FileIO(1, "w", closefd=False)) if results is None else results.detach()
    encoding = "utf-8" if results is None else results.encoding
    # what the encoding cannot express is written as \uXXXX, which JSON reads back
    sys.stdout = Results(raw, encoding=encoding, errors="backslashreplace", line_buffering=raw.isatty())


def dropped_lines() -> int:
    """How many lines of reports could not be written so far."""
    return sys.stderr.dropped if isinstance(sys.stderr, Reports) else 0


def never_wait_longer_than(seconds: float) -> None:
    """Drop reports when stderr takes nothing for so long; until it does again they are dropped at once."""
    if isinstance(sys.stderr, Reports):
        sys.stderr.wait_max_s = seconds


class Reports(io.TextIOBase):
    """Text for a file descriptor, written line by line; what cannot be written is dropped.

    dropped: how many lines were. wait_max_s: how long to wait for a reader that takes nothing, None for ever. closed:
    the descriptor leads nowhere, so all is dropped.
    """

    errors = "backslashreplace"

    def __init__(self, descriptor: int, *, encoding: str, closed: bool = False) -> None:
        self.dropped = 0
        self.wait_max_s: float | None = None
        self._descriptor, self._encoding, self._nowhere = descriptor, encoding, closed
        self._waiting = ""
        self._torn = self._stuck = False
        self._lock = threading.RLock()  # threads report too; a signal's handler may, in the midst of it

    @property
    def encoding(self) -> str:  # type: ignore[override]  # the base class has a mutable attribute
        """How text becomes bytes."""
        return self._encoding

    def write(self, text: str) -> int:
        """Take text, which goes out with the end of its line, or with a flush."""
        with self._lock:
            self._waiting += text
            if "\n" in text or "\r" in text:
                self.flush()
        return len(text)

    def flush(self) -> None:
        """Write what waits, or drop it."""
        with self._lock:
            text, self._waiting = self._waiting, ""
            if not text:
                return
            data = text.encode(self._encoding, self.errors)
            if self._nowhere:
                self._count(data)
                return
            if self._torn:  # a part of a line is out: the next one begins on a line of its own
                data = b"\n" + data
            done = self._written(data)
            if done:
                self._torn = data[done - 1] != ord("\n") if done < len(data) else False
            if done < len(data):
                self._count(data[done:])

    def isatty(self) -> bool:
        """Whether somebody looks on."""
        return not self._nowhere and os.isatty(self._descriptor)

    def fileno(self) -> int:
        """The file descriptor."""
        return self._descriptor

    def writable(self) -> bool:
        """It is for writing."""
        return True

    def _written(self, data: bytes) -> int:
        """How many of the bytes could be written."""
        done = 0
        while done < len(data):
            try:
                if self.wait_max_s is not None and not self._ready(self.wait_max_s):
                    break
                done += os.write(self._descriptor, data[done : done + _AT_ONCE_BYTES])
            except BlockingIOError:  # somebody else made it a descriptor that never waits
                if not self._ready(self.wait_max_s):
                    break
            except OSError:
                break
        return done

    def _ready(self, wait_max_s: float | None) -> bool:
        """Whether it takes something within the time, or at once after it took nothing for that long."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        wait_s = 0.0 if self._stuck and wait_max_s is not None else wait_max_s
        self._stuck = not poll.poll(None if wait_s is None else wait_s * 1000)
        return not self._stuck

    def _count(self, data: bytes) -> None:
        self.dropped += max(1, data.count(b"\n"))


class Results(io.TextIOWrapper):
    """stdout, where an error says that it was the result which could not be written; a closed pipe stays what it is."""

    def write(self, text: str) -> int:
        """As the base class. Errors: OutputError; BrokenPipeError when nobody reads on."""
        try:
            return super().write(text)
        except OSError as error:
            raise _unwritten(error) from error

    def flush(self) -> None:
        """As the base class. Errors: OutputError; BrokenPipeError when nobody reads on."""
        try:
            super().flush()
        except OSError as error:
            raise _unwritten(error) from error


def _unwritten(error: OSError) -> Exception:
    if isinstance(error, BrokenPipeError):
        return error
    return OutputError(
        "the result cannot be written to stdout",
        detail=error.strerror or str(error),
        hint="what was committed stays; free disk space for stdout, or redirect it elsewhere",
    )
