"""Where a stream stands, on disk: plans before an epoch, a checkpoint of what changed after it (docs/adr/0009).

    base-<epoch>.ckpt              the whole state after the epoch
    delta-<epoch>.ckpt             what the epoch changed
    deltas-<first>-<last>.ckpt     what these epochs changed together
    plan-*, plans-*                what epochs will do, or did (checkpoint_plans.py)

The newest chain of a base and the deltas behind it is the state; the plans behind its end are what may have been begun.
Each delta names the state it builds on, so files of another course of events never join a chain. When the deltas weigh
too much, base and deltas are merged into a new base as files, by a thread that touches nothing else. The base before
the newest one stays, with all that came after it: its deltas become one file, where they are many.
"""

import os
import re
import threading
from collections.abc import Container, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from sessionize.engine.stream.checkpoint_files import TMP, DurableFolder, FileOperations
from sessionize.engine.stream.checkpoint_format import (
    INSTEAD_OF,
    CheckpointFile,
    DamagedError,
    Plan,
    checkpoint_bytes,
    read_checkpoint,
)
from sessionize.engine.stream.checkpoint_plans import PlanFiles, begun_epoch, last_planned
from sessionize.errors import SessionizeError, StateError, UnavailableError
from sessionize.kernel.changes import Changes, merge_changes
from sessionize.ports import StateFolder

__all__ = ["Checkpoints", "Plan", "RecoveredState"]

DELTAS_MAX = 200
DELTAS_BYTES_MIN = 16 << 20  # deltas lighter than this are never merged for their weight
PACKED_MIN = 8  # more deltas of the chain before the newest than this become one file
_NAME = re.compile(r"(base|delta|deltas-(\d+))-(\d+)\.ckpt(\.damaged)?")
_DAMAGED = ".damaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveredState:
    """Where to go on. epoch: the last one that is done, 0 when none is, and then header and state are None.

    header: the engine's, of that epoch. state: the whole state of every operator. plans: of the epochs after it that
    were begun; they must be repeated as they are, and given to write_plan again, which mends a damaged copy. damaged:
    what was found to be so, for the log.
    """

    epoch: int
    header: dict[str, Any] | None
    state: Changes | None
    plans: tuple[Plan, ...]
    damaged: tuple[str, ...]


@dataclass(slots=True)
class _Chain:
    """What the newest base and its deltas are.

    epoch, token: of the state at the end. base: its epoch, 0 for none. deltas: name and bytes of each behind it, by the
    epoch that it ends at.
    """

    epoch: int = 0
    token: str = ""
    base: int = 0
    base_bytes: int = 0
    deltas: dict[int, tuple[str, int]] = field(default_factory=dict)


class Checkpoints:
    """The store of one writer in a folder of its own, of a disk or of another kind (ports.StateFolder). Not for several
    threads.

    deltas_max, deltas_bytes_min: a new base is merged when there are more deltas than the one, or when they weigh more
    than the other and than the base. Errors of all methods: StateError for a folder that is in use, damaged beyond
    recovery or another writer's; UnavailableError (the same call may succeed later) or OutputError when the disk
    refuses, and then everything that was there stays valid.
    """

    def __init__(
        self,
        folder: Path | str | StateFolder,
        *,
        writer: str,
        files: FileOperations | None = None,
        deltas_max: int = DELTAS_MAX,
        deltas_bytes_min: int = DELTAS_BYTES_MIN,
        merge_in_background: bool = True,
    ) -> None:
        self._writer = writer
        self._deltas_max, self._deltas_bytes_min = deltas_max, deltas_bytes_min
        self._in_background = merge_in_background
        self._folder: StateFolder
        if isinstance(folder, Path | str):
            self._folder = DurableFolder(Path(folder), files or FileOperations())
        else:
            self._folder = folder
        self._plans = PlanFiles(self._folder)
        self._chain: _Chain | None = None  # None until recovered
        self._guard = threading.Lock()  # of _chain, which a merge shortens
        self._merging: threading.Thread | None = None
        self._merge_again_at = 0  # after a merge has failed: so many deltas
        self.merge_error: SessionizeError | None = None  # why the last merge failed, for the log; it is tried again
        self._unforeseen: StateError | None = None  # what ended a merge and should not have; it ends the run
        self._damaged: dict[str, None] = {}  # what recover() has found, also in a call that failed after it

    # ---- writing ----

    def write_plan(self, plan: Plan) -> None:
        """Fix what the next epoch will do; durable when this returns. The same plan may be given again, and one that
        says whose place it takes (extra: INSTEAD_OF).

        Errors: StateError for an epoch that is not the next one, or that has another plan already.
        """
        chain = self._known_chain()
        if plan.epoch != chain.epoch + 1:
            raise StateError("an epoch is planned out of turn", detail=f"epoch {plan.epoch} after {chain.epoch}")
        there = self._plans.found(plan.epoch, [])
        if there is not None and there.digest not in (plan.digest, plan.extra.get(INSTEAD_OF)):
            raise StateError(
                "an epoch has another plan already",
                detail=f"epoch {plan.epoch}: {there.digest} is planned, {plan.digest} was given",
                hint="repeat the plans that recover() returns before planning anew",
            )
        self._plans.put(plan)

    def commit(self, epoch: int, header: Mapping[str, Any], changes: Changes) -> None:
        """Make an epoch done; when this returns nothing takes it back. After an error the same call may be repeated.

        epoch: the one after the last. header: JSON-able (positions, latest times, totals). changes: since the commit
        before, or since the beginning. Errors: also StateError when a merge beside it ended as nobody foresaw.
        """
        if self._unforeseen is not None:
            raise self._unforeseen
        chain = self._known_chain()
        if epoch != chain.epoch + 1:
            raise StateError("an epoch is committed out of turn", detail=f"epoch {epoch} after {chain.epoch}")
        first = chain.base == 0
        stored = CheckpointFile(
            writer=self._writer,
            epoch=epoch,
            token=os.urandom(8).hex(),
            after="" if first else chain.token,
            header=dict(header),
            changes=merge_changes([changes], whole=True) if first else changes,
        )
        name = f"{'base' if first else 'delta'}-{epoch}.ckpt"
        size = self._folder.put({name: checkpoint_bytes(stored)})
        with self._guard:
            chain.epoch, chain.token = epoch, stored.token
            if first:
                chain.base, chain.base_bytes = epoch, size
            else:
                chain.deltas[epoch] = (name, size)
        with suppress(SessionizeError):  # the epoch is done, and the next one tries again
            self._plans.retire(epoch)
        self._merge_when_heavy(chain)

    def wait(self) -> None:
        """Until a merge that is under way is over."""
        if self._merging is not None:
            self._merging.join()
            self._merging = None

    def close(self) -> None:
        """Finish a merge that is under way and let others have the folder."""
        self.wait()
        self._folder.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- a new base ----

    def _merge_when_heavy(self, chain: _Chain) -> None:
        if self._merging is not None and not self._merging.is_alive():
            self.wait()
        with self._guard:
            deltas = dict(sorted(chain.deltas.items()))
        weight = sum(size for _, size in deltas.values())
        heavy = weight > max(chain.base_bytes, self._deltas_bytes_min) or len(deltas) > self._deltas_max
        if not heavy or self._merging is not None or len(deltas) < self._merge_again_at:
            return
        names = [f"base-{chain.base}.ckpt", *(name for name, _ in deltas.values())]
        if not self._in_background:
            self._merge(chain, names, max(deltas))
            return
        work = (chain, names, max(deltas))
        self._merging = threading.Thread(target=self._merge_beside, args=work, name="checkpoint-merge")
        self._merging.start()

    def _merge_beside(self, chain: _Chain, names: list[str], epoch: int) -> None:
        try:
            self._merge(chain, names, epoch)
        except BaseException as error:  # nothing catches it in this thread: the next commit raises it
            unforeseen = StateError(
                "checkpoints cannot be merged",
                detail=f"{self._folder.place}: {type(error).__name__}: {error}",
                hint="this is a mistake in the program, please report it; nothing was lost, and the next run goes on",
            )
            unforeseen.__cause__ = error
            self._unforeseen = self.merge_error = unforeseen

    def _merge(self, chain: _Chain, names: list[str], epoch: int) -> None:
        """Base and deltas, from their files, into the base of an epoch; then remove what is no longer needed."""
        previous = chain.base
        try:
            parts = [self._read(name) for name in names]
            for before, part in pairwise(parts):
                if part.after != before.token:
                    raise DamagedError(f"epoch {part.epoch} does not build on epoch {before.epoch}")
            packed = self._packed(parts) if len(parts) - 1 > PACKED_MIN else None
            changes = [part.changes for part in (parts if packed is None else (parts[0], packed))]
            last = replace(parts[-1], after="", changes=merge_changes(changes, whole=True))
            del parts, changes
            size = self._folder.put({f"base-{epoch}.ckpt": checkpoint_bytes(last)})
            with self._guard:
                chain.base, chain.base_bytes = epoch, size
                chain.deltas = {at: delta for at, delta in chain.deltas.items() if at > epoch}
            self._merge_again_at, self.merge_error = 0, None
            if packed is not None:
                self._folder.put({f"deltas-{previous + 1}-{epoch}.ckpt": checkpoint_bytes(packed)})
                self._folder.remove(names[1:])
            self._remove_before(previous)
        except (SessionizeError, DamagedError, MemoryError, pa.ArrowException) as error:
            self._merge_again_at = len(chain.deltas) + 20
            self.merge_error = (
                error
                if isinstance(error, SessionizeError)
                else StateError("checkpoints could not be merged", detail=str(error) or type(error).__name__)
            )

    @staticmethod
    def _packed(parts: list[CheckpointFile]) -> CheckpointFile:
        """The deltas behind a base as one, which costs little beside merging them into it."""
        return replace(parts[-1], after=parts[0].token, changes=merge_changes([part.changes for part in parts[1:]]))

    def _remove_before(self, base: int) -> None:
        """All that only bases older than this one need."""
        old = []
        for name in self._folder.names():
            match = _NAME.fullmatch(name)
            last = int(match[3]) if match else last_planned(name)
            if last is not None and (last < base or (last == base and name != f"base-{base}.ckpt")):
                old.append(name)
        self._folder.remove(old)
        self._folder.sync()

    # ---- reading ----

    def recover(self, only: Container[str] | None = None) -> RecoveredState | None:
        """Find where to go on; None in a folder where nothing was ever begun. Call it before anything else.

        only: of which operators the state is needed, None for all; of others it has the name (merge_changes).
        Errors: StateError when files are damaged or missing so that nothing whole is left, saying which, or when their
        changes do not fit together. After UnavailableError the same call may be repeated.
        """
        self.wait()
        names = self._folder.names()
        self._folder.remove(name for name in names if name.endswith(TMP) and _is_ours(name.removesuffix(TMP)))
        there = {match[0]: int(match[3]) for name in names if (match := _NAME.fullmatch(name)) and not match[4]}
        there |= {name: planned for name in names if (planned := begun_epoch(name)) is not None}
        self._plans.look(names)
        damaged, aside = list[str](), list[str]()
        found = self._newest_chain(set(there), damaged, aside)
        parts = [part for _, part in found]
        chain = _Chain()
        if parts:
            deltas = {part.epoch: (name, part.size_bytes) for name, part in found[1:]}
            chain = _Chain(parts[-1].epoch, parts[-1].token, parts[0].epoch, parts[0].size_bytes, deltas)
        newest = max(there.values(), default=0)
        plans = self._begun(chain.epoch, newest, damaged)
        self._damaged |= dict.fromkeys(damaged)
        for name in aside if parts else ():
            self._folder.move_aside(name, name + _DAMAGED)
        self._chain = chain
        if not there:
            return None
        state = merge_changes([part.changes for part in parts], whole=True, only=only) if parts else None
        return RecoveredState(
            epoch=chain.epoch,
            header=parts[-1].header if parts else None,
            state=state,
            plans=tuple(plans),
            damaged=tuple(self._damaged),
        )

    def _known_chain(self) -> _Chain:
        if self._chain is None:
            self.recover(only=())
        assert self._chain is not None
        return self._chain

    def _newest_chain(self, there: set[str], damaged: list[str], aside: list[str]) -> list[tuple[str, CheckpointFile]]:
        """The newest base that verifies and the deltas behind it, as far as they verify and follow each other."""
        bases = sorted(int(match[3]) for name in there if (match := _NAME.fullmatch(name)) and match[1] == "base")
        for epoch in reversed(bases):
            chain: list[tuple[str, CheckpointFile]] = []
            names = [f"base-{epoch}.ckpt"]
            while names:
                part = self._first_that_follows(names, chain, damaged, aside)
                if part is None:
                    break
                chain.append(part)
                names = _behind(part[1].epoch, there)
            if chain:
                return chain
        return []

    def _first_that_follows(
        self, names: list[str], chain: list[tuple[str, CheckpointFile]], damaged: list[str], aside: list[str]
    ) -> tuple[str, CheckpointFile] | None:
        for name in names:
            try:
                part = self._read(name)
                if chain and part.after != chain[-1][1].token:
                    raise DamagedError("it does not build on the state before it")
                return name, part
            except DamagedError as error:
                damaged.append(f"{name}: {error}")
                aside.append(name)
        return None

    def _read(self, name: str) -> CheckpointFile:
        stored = read_checkpoint(self._bytes(name))
        if stored.writer != self._writer:
            raise StateError(
                "the checkpoints belong to another writer",
                detail=f"{self._folder.place}/{name} is of {stored.writer!r}, this is {self._writer!r}",
                hint="give each writer a folder of its own",
            )
        if f"-{stored.epoch}." not in name:
            raise DamagedError(f"it holds epoch {stored.epoch}")
        return stored

    def _bytes(self, name: str) -> bytes:
        try:
            return self._folder.read(name)
        except UnavailableError as error:  # a sector that cannot be read is as good as a damaged one
            raise DamagedError(error.detail) from error

    def _begun(self, epoch: int, newest: int, damaged: list[str]) -> list[Plan]:
        """The plans of the epochs after this one. Errors: StateError when one that was begun cannot be repeated."""
        plans = []
        for at in range(epoch + 1, newest + 1):
            plan = self._plans.found(at, damaged)
            if plan is None:
                raise StateError(
                    "the checkpoints are damaged beyond recovery",
                    detail=f"{self._folder.place}: epoch {at} is neither whole as a checkpoint nor as a plan; "
                    + ("; ".join(damaged) or "its files are missing"),
                    hint="put the files back from a copy, or begin with an empty folder, another writer name and "
                    "tables that do not hold this writer's epochs",
                )
            plans.append(plan)
        return plans


def _behind(epoch: int, there: set[str]) -> list[str]:
    """What may follow the state of an epoch, the best first: several deltas in one file, or a single one."""
    packed = [name for name in there if (match := _NAME.fullmatch(name)) and match[2] == str(epoch + 1)]
    return [name for name in (*sorted(packed), f"delta-{epoch + 1}.ckpt") if name in there]


def _is_ours(name: str) -> bool:
    return _NAME.fullmatch(name) is not None or last_planned(name) is not None
