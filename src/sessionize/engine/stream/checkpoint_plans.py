"""The plans of a checkpoint folder: those of the last epochs in two copies each, older ones together in few files.

    plan-<epoch>.a, plan-<epoch>.b    what the epoch will do, twice
    plans-<first>-<last>.log          plans of done epochs, which only a damaged checkpoint makes necessary again

A plan is retired when its epoch has been done for a while: it goes into the log of its epoch, and then its own files
are removed. A log is a small file that is replaced as a whole, a line with a checksum for each plan.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from itertools import groupby

from sessionize.engine.stream.checkpoint_format import (
    INSTEAD_OF,
    DamagedError,
    Plan,
    plan_bytes,
    plan_line,
    read_plan,
    read_plan_line,
)
from sessionize.errors import StateError, UnavailableError
from sessionize.ports import StateFolder

PLANS_MAX = 12  # plans of done epochs that have files of their own
_KEPT = 4  # so many of them keep these
_LOG_EPOCHS = 50
_NAME = re.compile(r"plan-(\d+)\.[ab]")
_LOG = re.compile(r"plans-(\d+)-(\d+)\.log")


class PlanFiles:
    """The plans in a folder. Call `look` before anything else. Errors of all methods: those of DurableFolder."""

    def __init__(self, folder: StateFolder) -> None:
        self._folder = folder
        self._there: set[str] = set()  # the names of plans; some that are not needed any more may be gone
        self._put: dict[int, Plan] = {}  # those with files of their own that were put here
        self._log: tuple[str, dict[int, bytes]] = ("", {})  # the one that was written last, and its lines

    def look(self, names: Iterable[str]) -> None:
        """See which plans there are among the names in the folder."""
        self._there = {name for name in names if last_planned(name) is not None}
        self._put, self._log = {}, ("", {})

    def put(self, plan: Plan) -> None:
        """Make a plan durable, in the place of any other of its epoch."""
        self._folder.put({name: plan_bytes(plan) for name in _copies(plan.epoch)})
        self._there.update(_copies(plan.epoch))
        self._put[plan.epoch] = plan

    def found(self, epoch: int, damaged: list[str]) -> Plan | None:
        """The plan of an epoch in whichever place it verifies; what is damaged is added to the list.

        Errors: also StateError for two copies that differ.
        """
        own = self._own(epoch, damaged)
        if own is not None or _log_of(epoch) not in self._there:
            return own
        line = self._lines(_log_of(epoch)).get(epoch)
        return None if line is None else read_plan_line(line)

    def retire(self, done: int) -> None:
        """After an epoch is done: plans that are not of the last epochs go into their log, when there are enough."""
        with_files = {epoch for name in self._there if (epoch := begun_epoch(name)) is not None}
        epochs = sorted(epoch for epoch in with_files if epoch <= done)
        if len(epochs) <= PLANS_MAX:
            return
        retired = epochs[:-_KEPT]
        for log, group in groupby(retired, key=_log_of):
            lines = self._lines(log)
            for epoch in group:
                plan = self._put.get(epoch) or self._own(epoch, [])
                if plan is not None:
                    lines[epoch] = plan_line(plan)
            self._folder.put({log: [memoryview(lines[epoch]) for epoch in sorted(lines)]})
            self._there.add(log)
            self._log = (log, lines)
        for epoch in retired:
            self._folder.remove(_copies(epoch))
            self._there.difference_update(_copies(epoch))
            self._put.pop(epoch, None)

    def _lines(self, log: str) -> dict[int, bytes]:
        """The lines of a log that verify, by epoch; whoever needs one that does not finds it missing."""
        if self._log[0] == log:
            return dict(self._log[1])
        lines = dict[int, bytes]()
        if log in self._there:
            with suppress(DamagedError):
                for line in _bytes(self._folder, log).splitlines(keepends=True):
                    with suppress(DamagedError):
                        lines[read_plan_line(line).epoch] = line
        return lines

    def _own(self, epoch: int, damaged: list[str]) -> Plan | None:
        plans = []
        for name in _copies(epoch):
            if name not in self._there or not self._folder.has(name):
                continue
            try:
                plan = read_plan(_bytes(self._folder, name))
                if plan.epoch != epoch:
                    raise DamagedError(f"it holds epoch {plan.epoch}")
                plans.append(plan)
            except DamagedError as error:
                damaged.append(f"{name}: {error}")
        digests = {plan.digest for plan in plans}
        if len(digests) > 1:  # killed while one took the place of the other
            plans = [plan for plan in plans if plan.extra.get(INSTEAD_OF) in digests] or plans
        if len({plan.digest for plan in plans}) > 1:
            raise StateError(
                "the two copies of a plan differ",
                detail=f"{self._folder.place}: {' and '.join(_copies(epoch))}",
                hint="were files of another run copied here?",
            )
        return plans[0] if plans else None


def begun_epoch(name: str) -> int | None:
    """The epoch of a plan's own file; None for any other name."""
    match = _NAME.fullmatch(name)
    return None if match is None else int(match[1])


def last_planned(name: str) -> int | None:
    """The last epoch of which a file may have the plan; None for a name that is no plan's."""
    match = _LOG.fullmatch(name)
    return begun_epoch(name) if match is None else int(match[2])


def _copies(epoch: int) -> tuple[str, str]:
    return f"plan-{epoch}.a", f"plan-{epoch}.b"


def _log_of(epoch: int) -> str:
    first = (epoch - 1) // _LOG_EPOCHS * _LOG_EPOCHS + 1
    return f"plans-{first}-{first + _LOG_EPOCHS - 1}.log"


def _bytes(folder: StateFolder, name: str) -> bytes:
    try:
        return folder.read(name)
    except UnavailableError as error:  # a sector that cannot be read is as good as a damaged one
        raise DamagedError(error.detail) from error
