"""Events that have arrived but are not settled yet: chunks of columns, each sorted by time once the watermark moves.

A chunk gives up a prefix whenever the watermark moves, found by binary search and handed out as a view, so an event is
copied once on its way in and once on its way out, however often the watermark moves. Bounded input that is taken out
whole is not sorted here at all.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """Events as columns of equal length: "slot" int32 and "time" int64 always, the others as the layout asks.

    kind, page int32 codes (-1 for none); amount int64 millionths; converts bool; starts, ends int16 reason codes.
    ids: event ids, a string array of the same length, None when the events have none.
    """

    columns: dict[str, Array]
    ids: pa.Array | pa.ChunkedArray | None

    def __len__(self) -> int:
        return len(self.columns["slot"])

    def __getitem__(self, name: str) -> Array:
        return self.columns[name]

    def slice(self, start: int, stop: int) -> "Rows":
        """Rows start:stop, without copying."""
        ids = None if self.ids is None else self.ids.slice(start, stop - start)
        return Rows({name: column[start:stop] for name, column in self.columns.items()}, ids)

    def take(self, order: npt.NDArray[np.integer]) -> "Rows":
        """Rows in this order."""
        ids = None if self.ids is None else self.ids.take(pa.array(order))
        return Rows({name: column[order] for name, column in self.columns.items()}, ids)


def join_rows(parts: list[Rows]) -> Rows:
    """One after the other; all parts have the same columns."""
    if len(parts) == 1:
        return parts[0]
    columns = {name: np.concatenate([p[name] for p in parts]) for name in parts[0].columns}
    ids = None
    if any(p.ids is not None for p in parts):
        chunks: list[pa.Array] = []
        for p in parts:
            piece = pa.nulls(len(p), pa.string()) if p.ids is None else p.ids
            chunks += piece.chunks if isinstance(piece, pa.ChunkedArray) else [piece]
        ids = pa.chunked_array(chunks, pa.string())
    return Rows(columns, ids)


class Pending:
    """The buffer of unsettled events."""

    __slots__ = ("_chunks", "_sorted")

    def __init__(self) -> None:
        self._chunks: list[Rows] = []
        self._sorted = 0  # so many of the first chunks are sorted by time

    def __len__(self) -> int:
        return sum(len(chunk) for chunk in self._chunks)

    def add(self, rows: Rows) -> None:
        """Take in a batch, in any order."""
        if len(rows):
            self._chunks.append(rows)

    def take_all(self) -> Rows | None:
        """Hand out everything."""
        chunks, self._chunks, self._sorted = self._chunks, [], 0
        return join_rows(chunks) if chunks else None

    def take_before(self, watermark_ms: int) -> Rows | None:
        """Hand out the events below the watermark."""
        parts, kept = [], []
        for at in range(self._sorted, len(self._chunks)):
            self._chunks[at] = _by_time(self._chunks[at])
        for chunk in self._chunks:
            time = chunk["time"]
            if time[0] >= watermark_ms:
                kept.append(chunk)
                continue
            stop = len(time) if time[-1] < watermark_ms else int(np.searchsorted(time, watermark_ms))
            parts.append(chunk.slice(0, stop))
            if stop < len(time):
                kept.append(chunk.slice(stop, len(time)))
        self._chunks, self._sorted = kept, len(kept)
        return join_rows(parts) if parts else None

    def of_slots(self, slots: npt.NDArray[np.integer] | None) -> Rows | None:
        """A copy of these slots' events (None: of all); nothing is removed."""
        if slots is None:
            return join_rows(self._chunks) if self._chunks else None
        parts = []
        for chunk in self._chunks:
            at = np.flatnonzero(np.isin(chunk["slot"], slots))
            if len(at):
                parts.append(chunk.take(at))
        return join_rows(parts) if parts else None

    def in_use(self, name: str, size: int) -> npt.NDArray[np.bool_]:
        """bool[size]: which slots or codes of this column are waiting."""
        in_use = np.zeros(size + 1, bool)
        for chunk in self._chunks:
            in_use[chunk[name]] = True  # -1 marks the extra place at the end
        return in_use[:size]

    def recode(self, name: str, table: npt.NDArray[np.int32]) -> None:
        """Replace every code of a column by table[code]; -1 stays (table ends with it)."""
        self._chunks = [Rows({**c.columns, name: table[c[name]]}, c.ids) for c in self._chunks]


def _by_time(rows: Rows) -> Rows:
    time = rows["time"]
    return rows.take(np.argsort(time, kind="stable")) if np.any(time[1:] < time[:-1]) else rows
