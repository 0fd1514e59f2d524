"""Decodes pieces of work in several processes and returns the results in order.

A worker is a fresh interpreter, so it copies no threads or locks of this process and works from any module. It gets
work through a pipe, puts each result in unnamed shared memory, and ends with the pipe, so it never outlives its
parent. If a worker fails, this process repeats its work and raises the error itself.
"""

import json
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
from sessionize.connectors.files.source_worker import COUNTS, MESSAGE, DecoderSpec
from sessionize.formats.validation import Decoded

_AHEAD = 2  # pieces of work queued per worker, so that it never waits
_START = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from sessionize.connectors.files.source_worker import main; main()"
)


def in_order(work: Sequence[Work], spec: DecoderSpec, *, processes: int) -> Iterator[tuple[Work, Done]]:
    """Decode all work; processes includes this one. At most a few results wait at any time."""
    decoder = spec.decoder()
    if processes < 2 or not workers_possible():
        for piece in work:
            yield piece, decode(piece, decoder)
        return
    with _Pool(spec, processes - 1) as team:
        done: dict[int, Done | None] = {}
        assigned = 1  # this process takes the first piece while the workers start
        for current, piece in enumerate(work):
            last = min(len(work), current + 2 * _AHEAD * processes)
            if current == 0:
                assigned = team.hand_out(work, assigned, last)
                done[0] = decode(piece, decoder)
            while current not in done:
                done |= team.results(wait=False)
                assigned = team.hand_out(work, assigned, last)
                if current in done:
                    break
                if assigned < last:
                    mine, assigned = assigned, assigned + 1
                    done[mine] = decode(work[mine], decoder)
                else:
                    done |= team.results(wait=True)
            result = done.pop(current)
            yield piece, result if result is not None else decode(piece, decoder)


def workers_possible() -> bool:
    """Whether the platform can pass open files to a child, and the interpreter's path is known."""
    return os.name == "posix" and bool(sys.executable)


@dataclass(slots=True)
class _Worker:
    process: subprocess.Popen[bytes]
    slots: list[IO[bytes]]
    assigned: list[int] = field(default_factory=list)  # oldest first; piece n is in slot n % _AHEAD
    finished: int = 0


class _Pool:
    """The workers. Leaving the `with` block ends them at once."""

    def __init__(self, spec: DecoderSpec, count: int) -> None:
        self._spec = spec
        self._count = count
        self._workers: list[_Worker] = []

    def __enter__(self) -> "_Pool":
        try:
            for _ in range(self._count):
                self._workers.append(_start(self._spec))
        except OSError:  # no more processes or memory: continue with fewer workers
            pass
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            _end(worker)
        self._workers = []

    def hand_out(self, work: Sequence[Work], assigned: int, last: int) -> int:
        """Give every worker enough work; returns the number of the first piece not handed out."""
        for _ in range(_AHEAD):
            for worker in self._workers:
                if assigned < last and len(worker.assigned) < _AHEAD:
                    slot = (worker.finished + len(worker.assigned)) % _AHEAD
                    try:
                        _send(worker.process, (slot, work[assigned]))
                    except OSError:
                        continue  # it has died; results() detects that
                    worker.assigned.append(assigned)
                    assigned += 1
        return assigned

    def results(self, *, wait: bool) -> dict[int, Done | None]:
        """The results since the last call; None for the work of a worker that died."""
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
                done |= dict.fromkeys(worker.assigned)
                self._workers.remove(worker)
                _end(worker)
            else:
                done[worker.assigned.pop(0)] = _result(worker, message)
                worker.finished += 1
        return done


def _start(spec: DecoderSpec) -> _Worker:
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
        _send(process, (fds, spec))
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
    rejected = _table(fd, events_bytes, rejected_bytes)
    nulled, local_times = json.loads(rejected.schema.metadata[COUNTS])
    return Done(
        Decoded(events, rejected.replace_schema_metadata(None), nulled=nulled, local_times=local_times), line_count
    )


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
    """Kill the worker; it has no state to save."""
    worker.process.kill()
    worker.process.wait()
    for stream in (worker.process.stdin, worker.process.stdout, *worker.slots):
        try:
            if stream is not None:
                stream.close()
        except OSError:  # unsent work
            pass
