"""Which codes (pages, event types) a session has seen: distinct, in the order of the first time, with counts.

Closed sessions get theirs from `distinct_codes` in one pass. Open sessions keep theirs in a Tally: an arena of rows in
which every batch appends one run per session, linked to the session's earlier run, so that a batch costs only what it
brings. Rows are merged late: where a chain of runs is long, and where the arena, mostly garbage, is rewritten.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sessionize.kernel.string_table import grown

IntArray = npt.NDArray[np.int64]
SlotArray = npt.NDArray[np.int32]

RUNS_MAX = 16
GARBAGE_ROWS_MIN = 1 << 20
MERGED_ROWS_MIN = 32
NARROW_ROWS_MAX = (1 << 31) - 1
COUNT_MAX = 65_535  # a row of the arena can count no more; a larger count takes several rows


@dataclass(frozen=True, slots=True)
class Codes:
    """Rows (owner, code, count), sorted by owner; within one owner in the order of first appearance."""

    owner: IntArray
    code: SlotArray
    count: IntArray

    def offsets(self, owners: int) -> npt.NDArray[np.int32]:
        """int32[owners + 1]: where each owner's rows begin."""
        return np.searchsorted(self.owner, np.arange(owners + 1)).astype(np.int32)

    def part(self, start: int, stop: int) -> "Codes":
        """The rows of these owners, who are counted from 0 on."""
        first, last = np.searchsorted(self.owner, (start, stop))
        return Codes(self.owner[first:last] - start, self.code[first:last], self.count[first:last])

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


class DistinctCounts:
    """The codes of open sessions, by user slot. limit: how many of a session are kept, the first ones; None for all."""

    __slots__ = (
        "_code",
        "_count",
        "_depth",
        "_head",
        "_rows",
        "_rows_before",
        "_run_prev",
        "_run_start",
        "_runs",
        "limit",
    )

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self._head = np.zeros(0, np.int32)  # by slot: its newest run, -1 for none
        self._depth = np.zeros(0, np.uint8)  # by slot: how many runs are linked
        self._reset()

    def _reset(self) -> None:
        self._code, self._count = np.empty(0, np.int32), np.empty(0, np.uint16)
        self._run_start, self._run_prev = (
            np.zeros(1, np.int64),
            np.empty(0, np.int32),
        )  # a run ends where the next starts
        self._rows = self._runs = 0
        self._rows_before = 0  # after the last rewrite

    def reserve(self, slots: int) -> None:
        """Make room for slots < `slots`."""
        have = len(self._head)
        if slots > have:
            self._head = grown(self._head, have, np.full(slots - have, -1, np.int32))
            self._depth = grown(self._depth, have, np.zeros(slots - have, np.uint8))

    def append(self, slots: SlotArray, rows: Codes) -> None:
        """Add a run to each slot; rows.owner indexes slots. A slot may stand only once in slots.

        rows: in the order they were seen; a code may come several times.
        """
        if self.limit is not None:
            rows = self._kept(distinct_codes(rows.owner, rows.code, rows.count))
        self._add(slots, rows)
        deep = slots[self._depth[slots] > RUNS_MAX]
        if len(deep):
            merged = self.take(deep)
            self.drop(deep)
            self._add(deep, merged)
        if self._rows > 2 * self._rows_before + GARBAGE_ROWS_MIN:
            self._rewrite()

    def _add(self, slots: SlotArray, rows: Codes) -> None:
        owner, code, count = rows.owner, rows.code, rows.count
        if len(count) and int(count.max()) > COUNT_MAX:
            times = (count - 1) // COUNT_MAX + 1
            last = np.cumsum(times) - 1
            rest = count - (times - 1) * COUNT_MAX
            owner, code, count = np.repeat(owner, times), np.repeat(code, times), np.full(last[-1] + 1, COUNT_MAX)
            count[last] = rest
        length = np.bincount(owner, minlength=len(slots))
        has = length > 0
        slots, length = slots[has], length[has]
        self._code = grown(self._code, self._rows, code)
        self._count = grown(self._count, self._rows, count.astype(np.uint16, copy=False))
        run = np.arange(self._runs, self._runs + len(slots), dtype=np.int32)
        if self._rows + len(code) > NARROW_ROWS_MAX:
            self._run_start = self._run_start.astype(np.int64, copy=False)
        self._run_start = grown(self._run_start, self._runs + 1, self._rows + np.cumsum(length))
        self._run_prev = grown(self._run_prev, self._runs, self._head[slots])
        self._head[slots] = run
        self._depth[slots] += 1
        self._rows += len(code)
        self._runs += len(slots)

    def take(self, slots: SlotArray) -> Codes:
        """The codes of these slots (owner: position in slots); nothing is removed."""
        rows = self.rows(slots)
        return self._kept(distinct_codes(rows.owner, rows.code, rows.count))

    def _kept(self, rows: Codes) -> Codes:
        return rows if self.limit is None else bounded(rows, self.limit)

    def rows(self, slots: SlotArray) -> Codes:
        """As take, but a code may come several times."""
        owner, row = self._rows_of(slots)
        return Codes(owner, self._code[row], self._count[row].astype(np.int64))

    def drop(self, slots: SlotArray) -> None:
        """Forget these slots' codes."""
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
        owner, run = owners[0], runs[0]
        if len(owners) > 1:
            # of one owner an older run has the smaller number
            key = (np.concatenate(owners) << 32) | np.concatenate(runs)
            key.sort()
            owner, run = key >> 32, key & 0xFFFFFFFF
        start = self._run_start[run].astype(np.int64, copy=False)
        length = self._run_start[run + 1] - start
        return np.repeat(owner, length), ranges(start, length)

    def _rewrite(self) -> None:
        """Leave the garbage behind and one run a slot; slots of many rows are merged."""
        slots = np.flatnonzero(self._head >= 0).astype(np.int32)
        rows = self.rows(slots)
        long = np.bincount(rows.owner, minlength=len(slots)) > MERGED_ROWS_MIN
        if long.any():
            of_long = long[rows.owner]
            merged = self._kept(distinct_codes(rows.owner[of_long], rows.code[of_long], rows.count[of_long]))
            rows = joined(rows.of(~of_long), merged)
        self._head[slots] = -1
        self._depth[slots] = 0
        self._reset()
        self._add(slots, rows)
        self._rows_before = self._rows


def bounded(rows: Codes, limit: int) -> Codes:
    """The first `limit` rows of each owner."""
    owners = np.flatnonzero(np.append(True, rows.owner[1:] != rows.owner[:-1])) if len(rows.owner) else rows.owner
    place = np.arange(len(rows.owner)) - np.repeat(owners, np.diff(owners, append=len(rows.owner)))
    return rows if not (place >= limit).any() else rows.of(place < limit)


def joined(first: Codes, second: Codes) -> Codes:
    """The rows of both, of one owner those of the first in front."""
    owner = np.concatenate((first.owner, second.owner))
    order = stable_order(owner)
    code, count = np.concatenate((first.code, second.code)), np.concatenate((first.count, second.count))
    return Codes(owner[order], code[order], count[order])


def stable_order(key: IntArray) -> IntArray:
    """What sorts keys >= 0 stably; packed with the row number they sort many times faster than by argsort."""
    row_bits = len(key).bit_length()
    if not len(key) or int(key.max()).bit_length() + row_bits > 63:
        return np.argsort(key, kind="stable")
    packed = (key << row_bits) | np.arange(len(key))
    packed.sort()
    packed &= (1 << row_bits) - 1
    return packed
