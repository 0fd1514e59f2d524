"""Events that have arrived but are not settled yet: chunks of columns, split when the watermark moves.

A chunk of which most is settled is split in two, and what stays is copied: at least a half goes each time, so that is
soon over. A chunk that mostly stays is sorted by time once; from then on it gives up a prefix, found by binary search
and handed out as a view, however often the watermark moves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sessionize.kernel.large_text import rows_of

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """Events as columns of equal length: "slot" int32 and "time" int64 always, the others as the layout asks.

    kind, page int32 codes (-1 for none); amount int64 millionths; converts bool; starts, ends int16 reason codes.
    ids: event ids, a string array of the same length, None when the events have none. payload: further columns that
    operators ask for, Arrow arrays of the same length by name.
    """

    columns: dict[str, Array]
    ids: pa.Array | pa.ChunkedArray | None
    payload: Mapping[str, pa.Array | pa.ChunkedArray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.columns["slot"])

    def __getitem__(self, name: str) -> Array:
        return self.columns[name]

    def slice(self, start: int, stop: int) -> "Rows":
        """Rows start:stop, without copying."""
        return Rows(
            {name: column[start:stop] for name, column in self.columns.items()},
            None if self.ids is None else self.ids.slice(start, stop - start),
            {name: column.slice(start, stop - start) for name, column in self.payload.items()},
        )

    def take(self, order: npt.NDArray[np.integer]) -> "Rows":
        """Rows in this order."""
        return Rows(
            {name: column[order] for name, column in self.columns.items()},
            None if self.ids is None else rows_of(self.ids, order),
            {name: rows_of(column, order) for name, column in self.payload.items()},
        )

    def with_columns(self, columns: dict[str, Array]) -> "Rows":
        """The same events with these columns in place of theirs of the same name, or beside them."""
        return replace(self, columns={**self.columns, **columns})

    def without(self, name: str) -> "Rows":
        """The same events without a column."""
        return replace(self, columns={other: column for other, column in self.columns.items() if other != name})


def join_rows(parts: list[Rows]) -> Rows:
    """One after the other; all parts have the same columns."""
    if len(parts) == 1:
        return parts[0]
    columns = {name: np.concatenate([p[name] for p in parts]) for name in parts[0].columns}
    ids = None
    if any(p.ids is not None for p in parts):
        ids = _one_column([pa.nulls(len(p), pa.string()) if p.ids is None else p.ids for p in parts], pa.string())
    payload = {name: _one_column([p.payload[name] for p in parts], c.type) for name, c in parts[0].payload.items()}
    return Rows(columns, ids, payload)


def _one_column(pieces: list[pa.Array | pa.ChunkedArray], kind: pa.DataType) -> pa.ChunkedArray:
    chunks: list[pa.Array] = []
    for piece in pieces:
        chunks += piece.chunks if isinstance(piece, pa.ChunkedArray) else [piece]
    return pa.chunked_array(chunks, kind)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """At least one row. first_ms, last_ms: their earliest and latest time; in_order: they are sorted by time."""

    rows: Rows
    first_ms: int
    last_ms: int
    in_order: bool

    @staticmethod
    def of(rows: Rows) -> "_Chunk":
        time = rows["time"]
        return _Chunk(rows, int(time.min()), int(time.max()), in_order=False)

    def split(self, watermark_ms: int) -> "tuple[Rows | None, _Chunk | None]":
        """The rows below the watermark, and the others."""
        if self.first_ms >= watermark_ms:
            return None, self
        if self.last_ms < watermark_ms:
            return self.rows, None
        n, time = len(self.rows), self.rows["time"]
        if self.in_order:
            stop = int(np.searchsorted(time, watermark_ms))
            return self.rows.slice(0, stop), _Chunk(self.rows.slice(stop, n), int(time[stop]), self.last_ms, True)
        settled = time < watermark_ms
        if 2 * int(np.count_nonzero(settled)) >= n:
            return self.rows.take(np.flatnonzero(settled)), _Chunk.of(self.rows.take(np.flatnonzero(~settled)))
        in_order = self.rows.take(time_order(time, self.first_ms, self.last_ms))
        return _Chunk(in_order, self.first_ms, self.last_ms, in_order=True).split(watermark_ms)


def time_order(time: npt.NDArray[np.int64], first_ms: int, last_ms: int) -> npt.NDArray[np.integer]:
    """Where the rows are in order of time; first_ms, last_ms: the earliest and latest."""
    row_bits = len(time).bit_length()
    if (last_ms - first_ms).bit_length() + row_bits > 64:
        return np.argsort(time, kind="stable")
    key = (time - first_ms).view(np.uint64) << np.uint64(row_bits)
    key |= np.arange(len(time), dtype=np.uint64)
    key.sort()
    key &= np.uint64((1 << row_bits) - 1)
    return key.view(np.int64)


class Pending:
    """The buffer of unsettled events."""

    __slots__ = ("_chunks",)

    def __init__(self) -> None:
        self._chunks: list[_Chunk] = []

    def __len__(self) -> int:
        return sum(len(chunk.rows) for chunk in self._chunks)

    def add(self, rows: Rows) -> None:
        """Take in a batch, in any order."""
        if len(rows):
            self._chunks.append(_Chunk.of(rows))

    def take_all(self) -> Rows | None:
        """Hand out everything."""
        chunks, self._chunks = self._chunks, []
        return join_rows([c.rows for c in chunks]) if chunks else None

    def take_before(self, watermark_ms: int) -> Rows | None:
        """Hand out the events below the watermark."""
        parts, kept = [], []
        for chunk in self._chunks:
            settled, rest = chunk.split(watermark_ms)
            if settled is not None:
                parts.append(settled)
            if rest is not None:
                kept.append(rest)
        self._chunks = kept
        return join_rows(parts) if parts else None

    def of_slots(self, slots: npt.NDArray[np.integer] | None) -> Rows | None:
        """A copy of these slots' events (None: of all); nothing is removed."""
        if slots is None:
            return join_rows([c.rows for c in self._chunks]) if self._chunks else None
        parts = []
        for chunk in self._chunks:
            at = np.flatnonzero(np.isin(chunk.rows["slot"], slots))
            if len(at):
                parts.append(chunk.rows.take(at))
        return join_rows(parts) if parts else None

    def has(self, name: str) -> bool:
        """Whether waiting events have this column."""
        return any(name in chunk.rows.columns for chunk in self._chunks)

    def in_use(self, name: str, size: int) -> npt.NDArray[np.bool_]:
        """bool[size]: which slots or codes of this column are waiting."""
        in_use = np.zeros(size + 1, bool)
        for chunk in self._chunks:
            in_use[chunk.rows[name]] = True  # -1 marks the extra place at the end
        return in_use[:size]

    def recode(self, name: str, table: npt.NDArray[np.int32]) -> None:
        """Replace every code of a column by table[code]; -1 stays (table ends with it).

        The rows that were handed in stay as they are: the change log holds the same ones.
        """
        self._chunks = [
            replace(chunk, rows=chunk.rows.with_columns({name: table[chunk.rows[name]]})) for chunk in self._chunks
        ]
