"""Which codes (pages, event types) a session has seen: distinct, in the order of the first time, with counts.

Closed sessions get theirs from `distinct_codes` in one pass. Open sessions keep theirs in a Tally: an arena of rows in
which every batch appends one run per session, linked to the session's earlier run, so that a batch costs only what it
brings. Long chains of runs are merged, and the arena is rewritten when most of it is garbage.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
SlotArray = npt.NDArray[np.int32]

RUNS_MAX = 16
GARBAGE_ROWS_MIN = 1 << 20


@dataclass(frozen=True, slots=True)
class Codes:
    """Rows (owner, code, count), sorted by owner; within one owner in the order of first appearance."""

    owner: IntArray
    code: SlotArray
    count: IntArray

    def offsets(self, owners: int) -> npt.NDArray[np.int32]:
        """int32[owners + 1]: where each owner's rows begin."""
        return np.searchsorted(self.owner, np.arange(owners + 1)).astype(np.int32)

    def of(self, mask: npt.NDArray[np.bool_]) -> "Codes":
        """Only the rows of the mask."""
        return Codes(self.owner[mask], self.code[mask], self.count[mask])


def distinct_codes(owner: IntArray, code: SlotArray, count: IntArray | None) -> Codes:
    """Merge rows of equal (owner, code).

    owner int64[n] ascending; code int32[n] >= 0; count int64[n], None for one each. Errors: none, callers sort first.
    """
    n = len(owner)
    if n == 0:
        return Codes(owner, code, np.zeros(0, np.int64))
    code_bits = int(code.max()).bit_length()
    row_bits = (n - 1).bit_length()
    key = (owner.astype(np.uint64) << np.uint64(code_bits)) | code.astype(np.uint64)
    if int(owner[-1]).bit_length() + code_bits + row_bits <= 64:
        key = (key << np.uint64(row_bits)) | np.arange(n, dtype=np.uint64)
        key.sort()
        row = (key & np.uint64((1 << row_bits) - 1)).view(np.int64)
        key >>= np.uint64(row_bits)
    else:
        row = np.argsort(key, kind="stable")
        key = key[row]
    first = np.empty(n, bool)
    first[0] = True
    np.not_equal(key[1:], key[:-1], out=first[1:])
    group = np.flatnonzero(first)
    total = np.diff(np.append(group, n)) if count is None else np.add.reduceat(count[row], group)
    kept = row[group]
    # back into the order of the rows: totals ride along in an array as long as the input
    by_row = np.zeros(n, np.int64)
    by_row[kept] = total
    seen = by_row > 0
    return Codes(owner[seen], code[seen], by_row[seen])


def ranges(start: IntArray, length: IntArray) -> IntArray:
    """Concatenate start[i], start[i] + 1, … start[i] + length[i] - 1 for all i."""
    total = int(length.sum())
    ends = np.cumsum(length)
    within: IntArray = np.arange(total) + np.repeat(start - (ends - length), length)
    return within


class Tally:
    """The codes of open sessions, by user slot."""

    __slots__ = (
        "_code",
        "_count",
        "_depth",
        "_head",
        "_live",
        "_rows",
        "_run_length",
        "_run_prev",
        "_run_start",
        "_runs",
    )

    def __init__(self) -> None:
        self._head = np.zeros(0, np.int64)  # by slot: its newest run, -1 for none
        self._depth = np.zeros(0, np.int32)  # by slot: how many runs are linked
        self._reset(0, 0)

    def _reset(self, rows: int, runs: int) -> None:
        self._code, self._count = np.empty(rows, np.int32), np.empty(rows, np.int32)
        self._run_start, self._run_prev = np.empty(runs, np.int64), np.empty(runs, np.int64)
        self._run_length = np.empty(runs, np.int32)
        self._rows = self._runs = self._live = 0

    def reserve(self, slots: int) -> None:
        """Make room for slots < `slots`."""
        have = len(self._head)
        if slots > have:
            room = max(slots, 2 * have)
            self._head = np.concatenate((self._head, np.full(room - have, -1, np.int64)))
            self._depth = np.concatenate((self._depth, np.zeros(room - have, np.int32)))

    def append(self, slots: SlotArray, rows: Codes) -> None:
        """Add a run to each slot; rows.owner indexes slots. A slot may stand only once in slots."""
        length = np.bincount(rows.owner, minlength=len(slots))
        has = length > 0
        slots, length = slots[has], length[has]
        self._code = _grown(self._code, self._rows, rows.code)
        self._count = _grown(self._count, self._rows, rows.count)
        start = self._rows + np.cumsum(length) - length
        run = self._runs + np.arange(len(slots))
        self._run_start = _grown(self._run_start, self._runs, start)
        self._run_length = _grown(self._run_length, self._runs, length)
        self._run_prev = _grown(self._run_prev, self._runs, self._head[slots])
        self._head[slots] = run
        self._depth[slots] += 1
        self._rows += len(rows.code)
        self._runs += len(slots)
        self._live += len(rows.code)
        deep = slots[self._depth[slots] > RUNS_MAX]
        if len(deep):
            self._merge(deep)
        if self._rows > 2 * self._live + GARBAGE_ROWS_MIN:
            self._rewrite()

    def take(self, slots: SlotArray) -> Codes:
        """The codes of these slots (owner: position in slots); nothing is removed."""
        owner, row = self._rows_of(slots)
        return distinct_codes(owner, self._code[row], self._count[row].astype(np.int64))

    def drop(self, slots: SlotArray) -> None:
        """Forget these slots' codes."""
        if self._rows:
            _, row = self._rows_of(slots)
            self._live -= len(row)
        self._head[slots] = -1
        self._depth[slots] = 0

    def codes_in_use(self, size: int) -> npt.NDArray[np.bool_]:
        """bool[size]: which codes any slot holds."""
        in_use = np.zeros(size, bool)
        self._rewrite()
        in_use[self._code[: self._rows]] = True
        return in_use

    def recode(self, table: SlotArray) -> None:
        """Replace every code by table[code]."""
        self._code[: self._rows] = table[self._code[: self._rows]]

    def _rows_of(self, slots: SlotArray) -> tuple[IntArray, IntArray]:
        """(owner, arena row) of all rows of these slots, by owner, oldest first."""
        owners, runs = [], []
        owner = np.flatnonzero(self._head[slots] >= 0)
        run = self._head[slots[owner]]
        while len(owner):
            owners.append(owner)
            runs.append(run)
            run = self._run_prev[run]
            more = run >= 0
            owner, run = owner[more], run[more]
        if not owners:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        # newest run first so far: turned round, a stable sort by owner leaves the oldest first
        owner, run = np.concatenate(owners[::-1]), np.concatenate(runs[::-1])
        by_owner = np.argsort(owner, kind="stable")
        owner, run = owner[by_owner], run[by_owner]
        length = self._run_length[run].astype(np.int64)
        return np.repeat(owner, length), ranges(self._run_start[run], length)

    def _merge(self, slots: SlotArray) -> None:
        merged = self.take(slots)
        self.drop(slots)
        self.append(slots, merged)

    def _rewrite(self) -> None:
        slots = np.flatnonzero(self._head >= 0).astype(np.int32)
        merged = self.take(slots)
        self._head[slots] = -1
        self._depth[slots] = 0
        self._reset(len(merged.code), len(slots))
        self.append(slots, merged)


def _grown(array: npt.NDArray[Any], used: int, tail: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """array[:used] + tail, in place where there is room, doubled where not."""
    need = used + len(tail)
    if need > len(array):
        bigger = np.empty(max(need, 2 * len(array)), array.dtype)
        bigger[:used] = array[:used]
        array = bigger
    array[used:need] = tail
    return array
