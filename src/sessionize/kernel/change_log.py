"""The accounts of what changed since a checkpoint: which events were pushed, and which users' state was written."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.kernel.interner import Interner
from sessionize.kernel.pending import Rows, join_rows
from sessionize.kernel.text_arrays import plain_text

SERIAL = "serial"  # the column that numbers tracked events in the order they were pushed, -1 for those of before


class PushLog:
    """The events that were pushed since the last call of `clear`. Grows with them until then."""

    __slots__ = ("_drained", "_pushed", "first_serial", "next_serial")

    def __init__(self) -> None:
        self._pushed: list[Rows] = []
        self._drained = False
        self.first_serial = self.next_serial = 0

    def pushed(self, rows: Rows, keep: npt.NDArray[np.bool_], late: npt.NDArray[np.bool_] | None) -> Rows:
        """Note events that begin to wait; returns them with their serial numbers.

        keep bool[n]: which rows of what was pushed these are; late: which of the others are no part of the count.
        """
        if late is None or not late.any():
            at, accepted = np.flatnonzero(keep), len(keep)
        else:
            at, accepted = (np.cumsum(~late) - 1)[keep], len(late) - int(np.count_nonzero(late))
        rows = rows.with_columns({SERIAL: self.next_serial + at})
        self.next_serial += accepted
        if len(rows):
            self._pushed.append(rows)
        return rows

    def drained(self) -> None:
        """Note that nothing waits any more, whatever the watermark."""
        self._drained = True
        self._pushed = []

    def recode(self, name: str, table: npt.NDArray[np.int32]) -> None:
        """Replace every code of a column by table[code]."""
        self._pushed = [rows.with_columns({name: table[rows[name]]}) for rows in self._pushed]

    def waiting(self, watermark_ms: int | None) -> Rows | None:
        """The events noted by `pushed` that are not settled, in the order they were pushed."""
        parts = []
        for rows in self._pushed:
            waits = None if watermark_ms is None else rows["time"] >= watermark_ms
            if waits is None or waits.all():
                parts.append(rows)
            elif waits.any():
                parts.append(rows.take(np.flatnonzero(waits)))
        return join_rows(parts) if parts else None

    def clear(self) -> bool:
        """Whether everything was settled in between; and begin anew."""
        drained, self._pushed, self._drained = self._drained, [], False
        self.first_serial = self.next_serial
        return drained


class SlotLog:
    """The users whose state was written since the last call of `clear`. Grows with what happens until then."""

    __slots__ = ("_removed", "_slots")

    def __init__(self) -> None:
        self._slots: list[npt.NDArray[np.int32]] = []  # slots whose state was written, with repetitions
        self._removed: list[pa.Array] = []  # names of such slots that were given back

    def touched(self, slots: npt.NDArray[np.int32]) -> None:
        """Note that the state of these slots was written or released."""
        if len(slots):
            self._slots.append(slots)

    def before_release(self, idle: npt.NDArray[np.bool_], users: Interner) -> None:
        """The names of these slots are about to be given back. idle: bool by slot."""
        slots = self._distinct()
        freed = idle[slots]
        if freed.any():
            self._removed.append(plain_text(users.values(slots[freed])))
            self._slots = [slots[~freed]]

    def clear(self) -> tuple[npt.NDArray[np.int32], pa.Array]:
        """(slots touched, names given back), and begin anew."""
        slots = self._distinct()
        removed = pc.unique(pa.concat_arrays([pa.array([], pa.string()), *self._removed]))
        self._slots, self._removed = [], []
        return slots, removed

    def _distinct(self) -> npt.NDArray[np.int32]:
        """Ascending. By a flag for each slot there may be, which is many times cheaper than hashing or sorting."""
        slots = np.concatenate([np.zeros(0, np.int32), *self._slots])
        seen = np.zeros(int(slots.max(initial=-1)) + 1, bool)
        seen[slots] = True
        return np.flatnonzero(seen).astype(np.int32)
