"""Ends a process (SIGKILL) at a point that has a name, or at a random moment; and starts one that is to be ended so.

The points are the steps that the engine tells before it begins them, the same steps while an epoch is repeated, and
every call with which checkpoints change the disk. Who dies says where, through a pipe.
"""

import faulthandler
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sessionize.engine.stream.checkpoint_files import FileOperations
from sessionize.engine.stream.checkpoints import Checkpoints

ANY_MOMENT = "any moment"
GIVEN_UP = "committed, for want of the point"
_WRITES = ("write iceberg", "write lake", "write sqlite", "write postgres")
_TOPICS = "write kafka"
_CALLS = ("create", "write", "fsync", "close", "rename", "sync_folder")
_STUCK_AFTER_S = 300
_MOMENTS_S = 1.0
_DELTAS_MAX = 3  # so that a new base is merged every few epochs
_EPOCHS_MAX = {"base": 10}  # how many epochs a point may take to come


def points(*, with_topics: bool) -> tuple[str, ...]:
    """Every point that has a name."""
    writes = (*_WRITES, _TOPICS) if with_topics else _WRITES
    steps = ("recover", "plan", "planned", *writes, "commit", "committed", "repeat")
    again = (*(f"repeat, {step}" for step in (*writes, "commit", "committed")),)
    disk = tuple(f"{kind} {call}" for kind in ("plan", "delta", "base") for call in _CALLS)
    return (*steps, *again, *disk)


class Killer:
    """Kills at a point, the n-th time that it comes, or after some seconds; and after some epochs in any case, because
    a run without a kill would use the records up.
    """

    def __init__(self, point: str, *, countdown: int = 1, after_s: float = 0.0) -> None:
        self.point, self._countdown, self._after_s = point, countdown, after_s
        self._epochs_left = next((n for kind, n in _EPOCHS_MAX.items() if point.startswith(kind)), 2) + countdown
        self._repeating = False
        self._pipe = -1

    @classmethod
    def somewhere(cls, chance: random.Random, *, with_topics: bool) -> "Killer":
        """At a random moment as often as at a random point."""
        if chance.random() < 0.5:
            return cls(ANY_MOMENT, after_s=chance.uniform(0.0, _MOMENTS_S))
        return cls(chance.choice(points(with_topics=with_topics)), countdown=chance.randint(1, 2))

    @property
    def needs_plan(self) -> bool:
        """Whether the point only comes where an epoch is planned and not committed."""
        return self.point.startswith("repeat")

    def step(self, step: str) -> None:
        """The engine is about to do this."""
        self._seen(step)
        if step == "repeat":
            self._repeating = True
        elif self._repeating:
            self._seen(f"repeat, {step}")
        if step == "committed":
            self._repeating = False
            self._epochs_left -= 1
            if self._epochs_left == 0:
                self._die(GIVEN_UP)

    def arm(self, pipe: int) -> None:
        """In the process that is to die: from now on."""
        self._pipe = pipe
        if self.point == ANY_MOMENT:
            timer = threading.Timer(self._after_s, self._die, (ANY_MOMENT,))
            timer.daemon = True
            timer.start()
        _watch_disk(self._disk)

    def _disk(self, what: str, torn: Callable[[], object]) -> None:
        if what == self.point and self._countdown == 1:
            torn()
        self._seen(what)

    def _seen(self, what: str) -> None:
        if what == self.point:
            self._countdown -= 1
            if self._countdown == 0:
                self._die(what)

    def _die(self, where: str) -> None:
        os.write(self._pipe, where.encode())
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()  # nothing of this thread runs on before the signal is there


@dataclass(frozen=True, slots=True)
class Running:
    """A process that was started, and what it tells."""

    child: int
    told: int

    def wait(self) -> tuple[int, str]:
        """Until it ends: its exit status, negative for a signal, and where it was killed."""
        with os.fdopen(self.told, "rb") as told:
            status = os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])
            return status, told.read().decode()


def start(what: Callable[[Callable[[str], None]], int], kill: Killer | None) -> Running:
    """Do it in a process of its own. One that is stuck says where, and ends with 1.

    what: is given what to call at each step; its result becomes the exit status.
    """
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(out)
            faulthandler.dump_traceback_later(_STUCK_AFTER_S, exit=True)
            (Checkpoints.__init__.__kwdefaults__ or {})["deltas_max"] = _DELTAS_MAX
            if kill is not None:
                kill.arm(into)
            code = what(kill.step if kill is not None else lambda step: None)
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        finally:
            os._exit(code)
    os.close(into)
    return Running(child, out)


def _watch_disk(seen: Callable[[str, Callable[[], object]], None]) -> None:
    """Have every call told before it is done: "delta fsync"; and how half of it is done, for a write."""
    kinds: dict[int, str] = {}  # of open files
    last = threading.local()  # the folder is synced for what was renamed last, by this thread
    plain = {call: getattr(FileOperations, call) for call in _CALLS}

    def nothing() -> None:
        return None

    def kind_of(path: Path) -> str:
        return path.name.split("-")[0]

    def create(self: FileOperations, path: Path) -> int:
        seen(f"{kind_of(path)} create", nothing)
        descriptor: int = plain["create"](self, path)
        kinds[descriptor] = kind_of(path)
        return descriptor

    def write(self: FileOperations, descriptor: int, data: memoryview) -> int:
        seen(f"{kinds[descriptor]} write", lambda: plain["write"](self, descriptor, data[: len(data) // 2]))
        size: int = plain["write"](self, descriptor, data)
        return size

    def fsync(self: FileOperations, descriptor: int) -> None:
        seen(f"{kinds[descriptor]} fsync", nothing)
        plain["fsync"](self, descriptor)

    def close(self: FileOperations, descriptor: int) -> None:
        seen(f"{kinds[descriptor]} close", nothing)
        plain["close"](self, descriptor)

    def rename(self: FileOperations, source: Path, target: Path) -> None:
        last.kind = kind_of(target)
        seen(f"{last.kind} rename", nothing)
        plain["rename"](self, source, target)

    def sync_folder(self: FileOperations, folder: Path) -> None:
        seen(f"{getattr(last, 'kind', 'no')} sync_folder", nothing)
        plain["sync_folder"](self, folder)

    for call in (create, write, fsync, close, rename, sync_folder):
        setattr(FileOperations, call.__name__, call)
