"""Duplicates at another time (rule 1 with duplicates = "id"): which ids came lately, and which events repeat one.

Events are judged in the order of rule 1, so the one before is either in the same step or remembered. An id is
remembered by the text of its user and itself, not by the user's number, which another user may be given meanwhile.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.kernel.interner import BLOCK_ROWS, Interner
from sessionize.kernel.large_text import one_array_of
from sessionize.kernel.ordering import Duplicates, IntArray
from sessionize.kernel.text_arrays import plain_text

if TYPE_CHECKING:
    from sessionize.kernel.reorder import SettledRows

IDS_MIN = 1 << 12  # ids are forgotten no earlier than this
_NEVER = np.iinfo(np.int64).min
_ROWS_PER_CHUNK = 1 << 16  # of a dumped table, whose text has to have room in an Arrow array


class RecentIds:
    """The time of the last event of each id of a user, as long as another event may repeat it.

    within_ms: how long that is. tracks: note what changes. until_ms: ids before it are forgotten; None for none.
    """

    def __init__(self, within_ms: int, *, tracks: bool) -> None:
        self.within_ms = within_ms
        self.until_ms: int | None = None
        self._tracks = tracks
        self._keys = Interner()
        self._last = np.empty(0, np.int64)  # by code
        self._changed: list[npt.NDArray[np.int32]] = []  # codes since the last delta, with repetitions
        self._limit = IDS_MIN

    def __len__(self) -> int:
        """How many ids are held."""
        return self._keys.used

    def without_repeated(self, settled: "SettledRows", users: Interner, *, remember: bool) -> "SettledRows":
        """Settled events without those that repeat an id: they are duplicates now, as far as a twin is among the rows.

        users: whose codes the slots are. remember: these events have happened; otherwise nothing changes.
        """
        found = _events_with_ids(settled, users)
        if found is None:
            return settled
        at, keys = found
        if remember:
            code = known = self._keys.encode(keys)
            self._last = np.append(self._last, np.full(len(self._keys) - len(self._last), _NEVER, np.int64))
        else:
            code, known = Interner().encode(keys), self._keys.find_many(keys)
        by_key = np.argsort(code, kind="stable")
        at, code, known = at[by_key], code[by_key], known[by_key]
        time = settled.ordered.time[at]
        opens = np.append(True, code[1:] != code[:-1])
        before = np.append(_NEVER, time[:-1])
        held = known[opens]
        before[opens] = np.where(held >= 0, np.append(self._last, _NEVER)[held], _NEVER)
        # only after an end of input that was none can an event come behind a later one
        near = np.abs(time - np.where(before == _NEVER, time, before)) <= self.within_ms
        again = near & (before != _NEVER)
        if remember:
            closes = np.append(opens[1:], True)
            self._last[code[closes]] = np.maximum(self._last[code[closes]], time[closes])
            if self._tracks:
                self._changed.append(code[closes])
        return _without(settled, at, opens, again) if again.any() else settled

    def forget(self, watermark_ms: int) -> None:
        """Forget ids that no event at or after the watermark can repeat; costs O(1) an id in the long run."""
        self.until_ms = watermark_ms - self.within_ms
        if len(self) > self._limit:
            old = np.flatnonzero((self._last != _NEVER) & (self._last < self.until_ms)).astype(np.int32)
            self._keys.release(old)
            self._last[old] = _NEVER
            self._limit = max(IDS_MIN, 2 * len(self))

    def rows(self) -> pa.Table:
        """All ids, a row each: `key`, which names user and id, and the `time` of the last event."""
        return self._table(np.arange(len(self._last), dtype=np.int32))

    def changes(self, *, whole: bool) -> pa.Table:
        """The rows that changed since the last call, or all; and begin anew."""
        changed, self._changed = self._changed, []
        return self.rows() if whole else self._table(np.unique(np.concatenate([np.empty(0, np.int32), *changed])))

    def load(self, rows: pa.Table) -> None:
        """Take dumped rows over; the latest of a key counts."""
        if rows.num_rows:
            code = self._keys.encode(rows["key"])
            self._last = np.append(self._last, np.full(len(self._keys) - len(self._last), _NEVER, np.int64))
            np.maximum.at(self._last, code, rows["time"].to_numpy())

    def _table(self, codes: npt.NDArray[np.int32]) -> pa.Table:
        last = self._last[codes]
        codes = codes[(last != _NEVER) & (last >= (_NEVER if self.until_ms is None else self.until_ms))]
        texts = [
            plain_text(self._keys.values(codes[start : start + _ROWS_PER_CHUNK])).cast(pa.string())
            for start in range(0, len(codes), _ROWS_PER_CHUNK)
        ]
        return pa.table({"key": pa.chunked_array(texts, pa.string()), "time": self._last[codes]})


def _events_with_ids(settled: "SettledRows", users: Interner) -> tuple[IntArray, pa.ChunkedArray] | None:
    """Where events with an id are in order, and the text that is the same for those of one user and id; None if
    there are none.
    """
    ids, ordered = settled.rows.ids, settled.ordered
    if ids is None or ids.null_count == len(ids):
        return None
    assert ordered.order is not None  # rows with ids are sorted with their order
    at = np.arange(len(ordered.slot))
    if ids.null_count:
        valid = pc.is_valid(ids)
        at = np.flatnonzero(np.asarray(valid)[ordered.order])
    if not len(at):
        return None
    parts = []
    for start in range(0, len(at), BLOCK_ROWS):
        here = at[start : start + BLOCK_ROWS]
        texts = one_array_of(ids, ordered.order[here]).cast(pa.large_string())
        parts.append(_keys(plain_text(users.values(ordered.slot[here])).cast(pa.large_string()), texts))
    return at, pa.chunked_array(parts, pa.large_string())


def _keys(users: pa.Array, ids: pa.Array) -> pa.Array:
    """The user's length before both, so no two pairs give the same text."""
    size = pc.binary_length(users).cast(pa.large_string())
    return pc.binary_join_element_wise(size, users, ids, pa.scalar(":", pa.large_string()))


def _without(
    settled: "SettledRows", at: IntArray, opens: npt.NDArray[np.bool_], again: npt.NDArray[np.bool_]
) -> "SettledRows":
    """at: events by key, in order; opens: the first of each key; again: which repeat the one before."""
    ordered, row = settled.ordered, np.arange(len(at))
    assert ordered.order is not None
    first = np.maximum.accumulate(np.where(opens, row, 0))
    twin = np.maximum.accumulate(np.where(again, -1, row))
    twin_at = np.where(twin >= first, at[twin], -1)[again]
    twin_of = np.arange(len(ordered.slot))  # by place: where the event is that counts, -1 where that was before
    twin_of[at[again]] = twin_at
    keep = np.ones(len(ordered.slot), bool)
    keep[at[again]] = False
    place = np.cumsum(keep) - 1
    duplicates = [Duplicates(ordered.order[at[again]], twin_at)]
    if (ties := settled.duplicates) is not None:
        duplicates.append(Duplicates(ties.order, twin_of[ties.twin]))
    return replace(settled, ordered=ordered.keep(keep), duplicates=_joined(duplicates, place))


def _joined(parts: Sequence[Duplicates], place: IntArray) -> Duplicates | None:
    """All with a twin; place: where each row is that counts, by where it was."""
    order, twin = (np.concatenate([getattr(part, name) for part in parts]) for name in ("order", "twin"))
    has_twin = twin >= 0
    return Duplicates(order[has_twin], place[twin[has_twin]]) if has_twin.any() else None
