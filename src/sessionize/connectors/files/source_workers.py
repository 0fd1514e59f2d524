"""Decodes pieces of work in several processes and gives the results back in order.

A worker is a fresh interpreter, so neither threads nor locks of this process are copied into it, and it works from
any module. It gets its work through a pipe, leaves each result in shared memory that no name leads to, and ends when
the pipe does: no parent leaves it behind, however it dies. If a worker fails, this process does its work, and meets
the error itself.
"""

import os
import pickle
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO

import pyarrow as pa

from sessionize.connectors.files.source_ranges import Done, Work, decode
from sessionize.connectors.files.source_worker import MESSAGE, Recipe
from sessionize.formats.validation import Decoded

_AHEAD = 2  # pieces of work that a worker has, so that it never waits
_START = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from sessionize.connectors.files.source_worker import main; main()"
)


def in_order(work: Sequence[Work], recipe: Recipe, *, processes: int) -> Iterator[tuple[Work, Done]]:
    """Decode all of it; processes counts this one too. At most a few results wait at any time."""
    decoder = recipe.decoder()
    if processes < 2 or not workers_possible():
        for piece in work:
            yield piece, decode(piece, decoder)
        return
    with _Team(recipe, processes - 1) as team:
        done: dict[int, Done | None] = {}
        given = 1  # the first piece is ours: the workers are still starting
        for current, piece in enumerate(work):
            last = min(len(work), current + 2 * _AHEAD * processes)
            if current == 0:
                given = team.hand_out(work, given, last)
                done[0] = decode(piece, decoder)
            while current not in done:
                done |= team.results(wait=False)
                given = team.hand_out(work, given, last)
                if current in done:
                    break
                if given < last:
                    mine, given = given, given + 1
                    done[mine] = decode(work[mine], decoder)
                else:
                    done |= team.results(wait=True)
            result = done.pop(current)
            yield piece, result if result is not None else decode(piece, decoder)


def workers_possible() -> bool:
    """Whether this platform can hand open files to a child, and we know which interpreter to start."""
    return os.name == "posix" and bool(sys.executable)


@dataclass(slots=True)
class _Worker:
    process: subprocess.Popen[bytes]
    slots: list[IO[bytes]]
    given: list[int] = field(default_factory=list)  # oldest first; number n of all lies in slot n % _AHEAD
    finished: int = 0


class _Team:
    """The workers. Leaving the `with` block ends them at once."""

    def __init__(self, recipe: Recipe, count: int) -> None:
        self._recipe = recipe
        self._count = count
        self._workers: list[_Worker] = []

    def __enter__(self) -> "_Team":
        try:
            for _ in range(self._count):
                self._workers.append(_start(self._recipe))
        except OSError:  # no more processes or memory to be had: do with what there is
            pass
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            _end(worker)
        self._workers = []

    def hand_out(self, work: Sequence[Work], given: int, last: int) -> int:
        """Give every worker enough to do; returns the number of the first piece that nobody has."""
        for _ in range(_AHEAD):
            for worker in self._workers:
                if given < last and len(worker.given) < _AHEAD:
                    slot = (worker.finished + len(worker.given)) % _AHEAD
                    try:
                        _send(worker.process, (slot, work[given]))
                    except OSError:
                        continue  # it has died; results() will notice
                    worker.given.append(given)
                    given += 1
        return given

    def results(self, *, wait: bool) -> dict[int, Done | None]:
        """What has been finished since the last call; None for work that a worker took with it when it died."""
        poll = select.poll()
        by_fd = {}
        for worker in self._workers:
            assert worker.process.stdout is not None
            by_fd[worker.process.stdout.fileno()] = worker
            poll.register(worker.process.stdout, select.POLLIN)
        done: dict[int, Done | None] = {}
        for fd, _ in poll.poll(None if wait else 0):
            worker = by_fd[fd]
            message = os.read(fd, MESSAGE.size)
            if len(message) < MESSAGE.size:
                done |= dict.fromkeys(worker.given)
                self._workers.remove(worker)
                _end(worker)
            else:
                done[worker.given.pop(0)] = _result(worker, message)
                worker.finished += 1
        return done


def _start(recipe: Recipe) -> _Worker:
    slots = [_unnamed_memory() for _ in range(_AHEAD)]
    fds = [slot.fileno() for slot in slots]
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=fds,
            process_group=0,  # an interrupt from the terminal is for the parent, which then ends its workers
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
    except BaseException:
        for slot in slots:
            slot.close()
        raise
    worker = _Worker(process, slots)
    try:
        _send(process, list(sys.path))
        _send(process, (fds, recipe))
    except BaseException:
        _end(worker)
        raise
    return worker


def _send(process: subprocess.Popen[bytes], message: object) -> None:
    assert process.stdin is not None
    process.stdin.write(pickle.dumps(message))
    process.stdin.flush()


def _result(worker: _Worker, message: bytes) -> Done:
    events_bytes, rejected_bytes, line_count = MESSAGE.unpack(message)
    fd = worker.slots[worker.finished % _AHEAD].fileno()
    events = _table(fd, 0, events_bytes)
    return Done(Decoded(events, _table(fd, events_bytes, rejected_bytes)), line_count)


def _table(fd: int, at: int, size_bytes: int) -> pa.Table:
    data = bytearray(size_bytes)
    view = memoryview(data)
    while view:
        read = os.preadv(fd, [view], at)
        at, view = at + read, view[read:]
    return pa.ipc.open_stream(pa.py_buffer(data)).read_all()


def _unnamed_memory() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("sessionize"), "r+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _end(worker: _Worker) -> None:
    """It has nothing to lose, so it is not asked."""
    worker.process.kill()
    worker.process.wait()
    for stream in (worker.process.stdin, worker.process.stdout, *worker.slots):
        try:
            if stream is not None:
                stream.close()
        except OSError:  # work that could not be sent any more
            pass
