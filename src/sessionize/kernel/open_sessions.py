"""What is known of the users whose sessions are still open: a struct of arrays, indexed by a dense user slot.

Reading and writing one user's state is O(1) and whole batches of users are read and written at once. A slot lives from
the user's first settled event until the silence after the last one proves that nothing can continue the session; where
chains are numbered (Policy.numbers_sessions) the numbers stay for ever.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

SlotArray = npt.NDArray[np.int32]

# column -> dtype. live: the silence after `last` may still be ended by an on-time event. count 0 with live: the session
# was closed by an end rule (`ended_by`, a reason code) and only the boundary is remembered. anchor: time of the chain's
# first event. repeat: see session/ids.py. amount, amount_high: revenue in millionths (kernel/sums.py). entry, exit:
# page codes, -1 for none. reach: the last moment that needs no new session, only where events have gaps of their own.
STATE_TYPES: dict[str, type[np.generic]] = {
    "live": np.bool_,
    "last": np.int64,
    "start": np.int64,
    "anchor": np.int64,
    "count": np.int64,
    "chain": np.int32,
    "piece": np.int32,
    "number": np.int32,
    "repeat": np.int32,
    "start_reason": np.int16,
    "ended_by": np.int16,
    "amount": np.int64,
    "amount_high": np.int64,
    "converted": np.bool_,
    "entry": np.int32,
    "exit": np.int32,
    "reach": np.int64,
}
SPLIT = "split "  # before a field of split_on_change: the column of the codes of its last value in the run, -1 for none


_NOTHING = {"entry": -1, "exit": -1}  # what an unused slot holds; 0 for all others but the values of fields


class OpenSessions:
    """State of all users by slot; grows by a half, never shrinks.

    further: columns beside those of STATE_TYPES. coded: those of them that hold codes, -1 for none.
    """

    __slots__ = ("_blank", "_columns", "_nothing", "types")

    def __init__(
        self, capacity: int = 0, *, further: Mapping[str, type[np.generic]] | None = None, coded: Sequence[str] = ()
    ) -> None:
        self.types: dict[str, type[np.generic]] = {**STATE_TYPES, **(further or {})}
        self._nothing = {**_NOTHING, **dict.fromkeys(coded, -1)}
        # columns that are zero throughout, as many are in most runs, are one zero seen many times
        self._blank = {name for name in self.types if name not in self._nothing}
        self._columns = {name: self._unused(name, capacity) for name in self.types}

    def like_this(self, capacity: int) -> "OpenSessions":
        """An empty one with the same columns."""
        further = {name: kind for name, kind in self.types.items() if name not in STATE_TYPES}
        return OpenSessions(capacity, further=further, coded=[name for name in self._nothing if name in further])

    def _unused(self, name: str, capacity: int) -> npt.NDArray[Any]:
        if name in self._blank:
            return np.broadcast_to(np.zeros(1, self.types[name]), (capacity,))
        return np.full(capacity, self._nothing.get(name, 0), self.types[name])

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """A column by slot, to be read: `put` writes."""
        return self._columns[name]

    @property
    def capacity(self) -> int:
        """Slots there is room for."""
        return len(self._columns["live"])

    def reserve(self, capacity: int) -> None:
        """Make room for at least `capacity` slots."""
        have = self.capacity
        if capacity <= have:
            return
        room = max(capacity, have + have // 2)
        for name, old in self._columns.items():
            new = self._unused(name, room)
            if name not in self._blank:
                new[:have] = old
            self._columns[name] = new

    def take(self, slots: SlotArray) -> dict[str, npt.NDArray[Any]]:
        """The columns of these slots, in their order."""
        return {
            name: np.zeros(len(slots), column.dtype) if name in self._blank else column[slots]
            for name, column in self._columns.items()
        }

    def put(self, slots: SlotArray, values: dict[str, npt.NDArray[Any]]) -> None:
        """Overwrite the named columns of these slots; each slot at most once."""
        for name, value in values.items():
            if name in self._blank:
                if not value.any():
                    continue
                self._blank.discard(name)
                self._columns[name] = self._unused(name, self.capacity)
            self._columns[name][slots] = value

    def live_slots(self) -> SlotArray:
        """Slots whose last event may still be followed within the gap, ascending."""
        return np.flatnonzero(self._columns["live"]).astype(np.int32)

    def silent_slots(self, at_ms: int, longest_silence_ms: int | None) -> SlotArray:
        """Live slots that no event can continue any more: every one at or after this moment would split.

        longest_silence_ms: after any event; None where each has its own (`reach`).
        """
        if longest_silence_ms is None:
            over = self._columns["reach"] < at_ms
        else:
            # the sum is on the Python side: moment - silence can't overflow there, column arithmetic could
            over = self._columns["last"] < at_ms - longest_silence_ms
        return np.flatnonzero(self._columns["live"] & over).astype(np.int32)

    def free(self, slots: SlotArray, *, keep_numbers: bool) -> None:
        """Forget these slots; with keep_numbers the chain and session numbers stay."""
        for name, column in self._columns.items():
            if name not in self._blank and not (keep_numbers and name in ("chain", "number")):
                column[slots] = self._nothing.get(name, 0)
