"""Runs a command as a whole process and says what it cost, with all its descendants: wall, CPU, peak memory.

CPU is what the kernel charges to every process of the tree, also to one that outlives its parent (this
process adopts and reaps those). Peak memory is the larger of the biggest process's own peak and the tree's
sum, sampled. This module and whoever runs it stay small: a child's peak never reads lower than its parent's
size at the fork.
"""

import contextlib
import ctypes
import os
import resource
import select
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

SAMPLE_S = 0.05
ORPHANS_WAIT_S = 5.0
TAIL_BYTES = 4000
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True)
class Run:
    """One run. `stopped`: why it was killed, if it was; `said`: the end of what it wrote."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    exit_code: int
    stopped: str | None
    said: str

    @property
    def failure(self) -> str | None:
        """What to print instead of figures, None when it ended well."""
        if self.stopped is not None:
            return f"STOPPED: {self.stopped}"
        return f"FAILED: exit code {self.exit_code}" if self.exit_code else None

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a run is killed: protects the machine from an engine that takes all its memory."""

    wall_s_max: float = 1800.0
    tree_bytes_max: int = int(0.85 * os.sysconf("SC_PHYS_PAGES")) * PAGE_BYTES


def run(command: Sequence[str], limits: Limits, env: Mapping[str, str] | None = None) -> Run:
    """Run `command` to its end. The caller has no other children: all are waited for here.

    Errors: OSError when the program can't be started.
    """
    _adopt_orphans()
    with tempfile.TemporaryFile() as said:
        before = _cpu_of_children()
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=env,
        )
        peak, stopped = _watch(process.pid, began, limits)
        wall = time.perf_counter() - began
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        _reap_orphans()
        cpu = _cpu_of_children() - before
        said.seek(max(0, said.seek(0, os.SEEK_END) - TAIL_BYTES))
        text = said.read().decode(errors="replace")
    peak_mb = max(peak, usage.ru_maxrss * 1024) / 1e6
    return Run(round(wall, 4), round(cpu, 3), round(peak_mb, 1), process.returncode, stopped, text)


def rounds(things: Sequence[T], count: int) -> Iterator[Sequence[T]]:
    """All things once, then all again, in the orders of a Williams square: each round is led by another thing, and
    each thing follows another one. What a run leaves behind (memory to be reclaimed, dirty pages) hits all alike.
    """
    size = len(things)
    zigzag = [(step + 1) // 2 if step % 2 else size - step // 2 for step in range(size)]  # 0 1 -1 2 -2 ...
    for turn in range(count):
        yield [things[(place + turn) % size] for place in zigzag]


def warm(path: Path) -> None:
    """Read a file into the page cache, so that every engine finds it there."""
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 24):
            pass


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and range of some measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))


def _watch(pid: int, began: float, limits: Limits) -> tuple[int, str | None]:
    """Samples the tree until its root ends: its largest resident size, and why it was killed, if it was."""
    peak, stopped = 0, None
    root = os.pidfd_open(pid)
    try:
        while not select.select([root], [], [], SAMPLE_S)[0]:
            tree = descendants(pid)
            size = sum(tree.values())
            peak = max(peak, size)
            if size > limits.tree_bytes_max:
                stopped = f"more than {limits.tree_bytes_max / 1e9:.0f} GB of memory"
            elif time.perf_counter() - began > limits.wall_s_max:
                stopped = f"longer than {limits.wall_s_max:.0f} s"
            if stopped is not None:
                _kill(tree)
    finally:
        os.close(root)
    return peak, stopped


def descendants(root: int) -> dict[int, int]:
    """Resident bytes by process id: `root` and all below it."""
    children: dict[int, list[int]] = {}
    size: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                fields = Path("/proc", entry, "stat").read_text(errors="replace").rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(entry))
                size[int(entry)] = int(fields[21]) * PAGE_BYTES
    tree: dict[int, int] = {}
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        tree[pid] = size.get(pid, 0)
        waiting.extend(children.get(pid, ()))
    return tree


def _kill(tree: Mapping[int, int]) -> None:
    for pid in tree:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _adopt_orphans() -> None:
    """Descendants whose parent ends become children of this process, not of init: their CPU counts."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _reap_orphans() -> None:
    """Waits for what the run left behind; kills what is still there after a while."""
    deadline = time.perf_counter() + ORPHANS_WAIT_S
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid:
            continue
        if time.perf_counter() > deadline:
            left = descendants(os.getpid())
            del left[os.getpid()]
            _kill(left)
        time.sleep(0.01)


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
