"""Rule 1: the order of events, and which of them are duplicates.

Rows are sorted by (slot, time) as packed integers, over a hundred million a second; only rows of one user with the same
time ("ties") are compared further, by event id and then by the rest of the event, so that the result never depends on
the order of arrival. Duplicates are ties with the same id; the first in that order counts.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

IntArray = npt.NDArray[np.int64]
SlotArray = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Ordered:
    """slot int32[n], time int64[n] sorted by both; order int64[n]: the row each came from, None when not asked for."""

    slot: SlotArray
    time: IntArray
    order: IntArray | None

    def keep(self, mask: npt.NDArray[np.bool_]) -> "Ordered":
        """Only the rows of the mask."""
        return Ordered(self.slot[mask], self.time[mask], None if self.order is None else self.order[mask])


def sort_rows(slot: SlotArray, time: IntArray, *, with_order: bool) -> Ordered:
    """Sort by (slot, time), rows of equal key in the order they came.

    slot int32[n] >= 0; time int64[n]. Keys are packed into 64 bits with the row number when that fits, without it when
    not, and sorted as two columns as a last resort (a time span of centuries).
    """
    n = len(slot)
    if n == 0:
        return Ordered(slot, time, np.zeros(0, np.int64) if with_order else None)
    low = int(time.min())
    time_bits = (int(time.max()) - low).bit_length()
    slot_bits = int(slot.max()).bit_length()
    row_bits = (n - 1).bit_length() if with_order else 0
    if slot_bits + time_bits + row_bits <= 64:
        key = _pack(slot, time, low, time_bits)
        if with_order:
            key <<= np.uint64(row_bits)
            key |= np.arange(n, dtype=np.uint64)
        key.sort()
        order = None
        if with_order:
            order = (key & np.uint64((1 << row_bits) - 1)).view(np.int64)
            key >>= np.uint64(row_bits)
        return _unpack(key, low, time_bits, order)
    if slot_bits + time_bits <= 64:
        key = _pack(slot, time, low, time_bits)
        by_key = np.argsort(key, kind="stable")
        return _unpack(key[by_key], low, time_bits, by_key)
    by_column = np.lexsort((time, slot))
    return Ordered(slot[by_column], time[by_column], by_column)


def _pack(slot: SlotArray, time: IntArray, low: int, time_bits: int) -> npt.NDArray[np.uint64]:
    key = slot.astype(np.uint64)
    key <<= np.uint64(time_bits)
    key |= (time - low).view(np.uint64)
    return key


def _unpack(key: npt.NDArray[np.uint64], low: int, time_bits: int, order: IntArray | None) -> Ordered:
    slot = (key >> np.uint64(time_bits)).astype(np.int32)
    key &= np.uint64((1 << time_bits) - 1)
    time = key.view(np.int64)
    time += low
    return Ordered(slot, time, order)


def tied_rows(rows: Ordered) -> npt.NDArray[np.int64]:
    """Positions of all rows that share user and time with a neighbour, ascending."""
    same = (rows.time[1:] == rows.time[:-1]) & (rows.slot[1:] == rows.slot[:-1])
    if not same.any():
        return np.zeros(0, np.int64)
    tied = np.zeros(len(rows.time), bool)
    tied[1:] = same
    tied[:-1] |= same
    return np.flatnonzero(tied)


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Rows that do not count: order int64[k], the row each came from; twin int64[k], where the one is that counts."""

    order: IntArray
    twin: IntArray


def resolve_ties(rows: Ordered, tied: IntArray, compare: dict[str, pa.Array]) -> tuple[Ordered, Duplicates | None]:
    """Put tied rows into their final order and take duplicates out.

    tied: positions from tied_rows. compare: the columns that decide, most important first, one value per tied row; "id"
    is the event id (null: never a duplicate). Nulls come first. Returns the rows that count, and the duplicates.
    """
    assert rows.order is not None
    time, slot = rows.time[tied], rows.slot[tied]
    group = np.cumsum(np.append(True, (time[1:] != time[:-1]) | (slot[1:] != slot[:-1])))
    table = pa.table({"group": group, **compare})
    keys = [(name, "ascending", "at_start") for name in table.column_names]
    by_content = pc.sort_indices(table, sort_keys=keys).to_numpy()
    order = rows.order.copy()
    order[tied] = rows.order[tied[by_content]]
    rows = Ordered(rows.slot, rows.time, order)
    if "id" not in compare:
        return rows, None
    ids = compare["id"].take(pa.array(by_content))
    group = group[by_content]
    again = pc.fill_null(pc.equal(ids[1:], ids[:-1]), False).to_numpy(zero_copy_only=False).astype(bool)
    again &= group[1:] == group[:-1]
    if not again.any():
        return rows, None
    keep = np.ones(len(order), bool)
    keep[tied[1:][again]] = False
    # the row that counts is the nearest one kept before it: as many kept rows lie up to it as its position + 1
    twin = np.cumsum(keep)[~keep] - 1
    return rows.keep(keep), Duplicates(order[~keep], twin)


def in_front(
    rows: Ordered, duplicates: Duplicates | None, slots: SlotArray, times: IntArray
) -> tuple[Ordered, Duplicates | None, IntArray]:
    """Put one row in front of each of these slots' rows: all rows, the duplicates, and where the new ones are.

    slots: ascending, distinct, each with rows. times: of the new rows, before those of the slot. In the order that
    comes back the new rows are 0 to len(slots) - 1, in the order of slots, and the others come behind them.
    """
    new, n = len(slots), len(rows.slot)
    at = np.searchsorted(rows.slot, slots) + np.arange(new)
    is_old = np.ones(n + new, bool)
    is_old[at] = False
    slot, time = np.empty(n + new, np.int32), np.empty(n + new, np.int64)
    slot[is_old], slot[at] = rows.slot, slots
    time[is_old], time[at] = rows.time, times
    order = None
    if rows.order is not None:
        order = np.empty(n + new, np.int64)
        order[is_old], order[at] = rows.order + new, np.arange(new)
    if duplicates is not None:
        duplicates = Duplicates(duplicates.order + new, np.flatnonzero(is_old)[duplicates.twin])
    return Ordered(slot, time, order), duplicates, at
