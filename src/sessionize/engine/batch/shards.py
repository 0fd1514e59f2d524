"""Events split by user into parts that fit the processor's caches and can be worked on side by side.

All of a user's events are in one part, and a part's users are numbered densely, so each part is a batch of its own for
the kernel. In which part a user falls decides nothing but the order of the rows.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sessionize.engine.batch.event_buffer import EventBuffer
from sessionize.session import columns as col

ROWS_PER_SHARD = 1_000_000
SHARDS_MAX = 1 << 16  # part numbers of at most 16 bits are sorted by radix
WORKERS = 2

Part = TypeVar("Part")
Result = TypeVar("Result")
# A table by part: its rows sorted by part, and where each part begins.
_Piece = tuple[pa.Table, npt.NDArray[np.int64]]


class Shards:
    """Held events, cut by user into len(shards) parts. What was held is taken over."""

    def __init__(self, held: EventBuffer, *, rows_per_shard: int = ROWS_PER_SHARD) -> None:
        self._bits = min((held.rows // rows_per_shard).bit_length(), SHARDS_MAX.bit_length() - 1)
        self._names = held.names()
        self._pieces: list[_Piece] = list(in_order(self._by_part, _unified(held)))

    def __len__(self) -> int:
        return 1 << self._bits

    def part(self, number: int) -> pa.Table:
        """The events of the users of one part, in the order of the tables."""
        parts = [table.slice(start[number], start[number + 1] - start[number]) for table, start in self._pieces]
        if not parts:
            return pa.table({col.USER: pa.array([], pa.string())})
        events = pa.concat_tables(parts)
        codes = events[col.USER].to_numpy() >> self._bits
        names = self._names.take(pa.array(np.arange(number, len(self._names), len(self))))
        users = pa.DictionaryArray.from_arrays(pa.array(codes), names)
        return events.set_column(events.schema.get_field_index(col.USER), col.USER, users)

    def _by_part(self, table: pa.Table) -> _Piece:
        """The rows of a table sorted by part, those of a part in the order they came."""
        if len(self) == 1:
            return table, np.array([0, table.num_rows])
        part = table[col.USER].to_numpy() & np.int32(len(self) - 1)
        # radix sort: linear in the rows
        order = part.astype(np.uint8 if len(self) <= 256 else np.uint16).argsort(kind="stable")
        start = np.append(0, np.cumsum(np.bincount(part, minlength=len(self))))
        return pa.table([_taken(c, order) for c in table.columns], schema=table.schema), start


def _taken(column: pa.ChunkedArray, order: npt.NDArray[np.int64]) -> pa.ChunkedArray | pa.Array:
    """The rows of a column in this order; numbers go through numpy, which is quicker."""
    if column.null_count == 0 and (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return pa.array(column.to_numpy().take(order), column.type)
    return column.take(pa.array(order))


def _unified(held: EventBuffer) -> Iterable[pa.Table]:
    """The tables, with one dictionary for each text column here, so that no part has to merge them again."""
    if not held.has_dictionaries:
        return held.release()
    tables = list(held.release())
    whole = pa.concat_tables(tables).unify_dictionaries()
    ends: list[Any] = np.cumsum([t.num_rows for t in tables]).tolist()
    return [whole.slice(end - t.num_rows, t.num_rows) for end, t in zip(ends, tables, strict=True)]


def in_order(work: Callable[[Part], Result], parts: Iterable[Part], *, workers: int = WORKERS) -> Iterator[Result]:
    """Results in the order of the parts, worked on side by side, never more than `workers` ahead of the reader."""
    waiting = iter(parts)
    with ThreadPoolExecutor(workers) as pool:
        running: list[Future[Result]] = [pool.submit(work, part) for part in islice(waiting, workers)]
        while running:
            done = running.pop(0).result()
            running += [pool.submit(work, part) for part in islice(waiting, 1)]
            yield done
