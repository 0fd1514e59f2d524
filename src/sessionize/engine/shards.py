"""Events split by user into parts that fit the processor's caches and can be worked on side by side.

All of a user's events are in one part, and a part's users are numbered densely, so each part is a batch of its own for
the kernel. In which part a user falls decides nothing but the order of the rows.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sessionize.kernel.interner import dictionary_of
from sessionize.session import columns as col

ROWS_PER_SHARD = 1_000_000
WORKERS = 2

Part = TypeVar("Part")
Result = TypeVar("Result")


class Shards:
    """Tables of events, cut by user into len(shards) parts."""

    def __init__(self, tables: Sequence[pa.Table], *, rows_per_shard: int = ROWS_PER_SHARD) -> None:
        rows: int = sum(t.num_rows for t in tables)
        self._bits = (rows // rows_per_shard).bit_length()
        # codes of the users, the part each row is in, and the other columns, table by table
        self._pieces: list[tuple[npt.NDArray[np.int32], npt.NDArray[Any], pa.Table]] = []
        self._names = pa.array([], pa.string())
        if not tables:
            return
        # one dictionary for each text column here, so that no part has to merge them again
        whole = _unified(tables)
        codes, self._names = dictionary_of(whole[col.USER])
        rest = whole.drop_columns([col.USER])
        at = 0
        for table in tables:
            piece = rest.slice(at, table.num_rows).combine_chunks()
            users = codes[at : at + table.num_rows]
            # one byte a row where it will do: each part looks through all of it
            part = (users & np.int32(len(self) - 1)).astype(np.uint8 if self._bits <= 8 else np.uint32)
            self._pieces.append((users, part, piece))
            at += table.num_rows

    def __len__(self) -> int:
        return 1 << self._bits

    def part(self, number: int) -> pa.Table:
        """The events of the users of one part, in the order of the tables."""
        parts, codes_of_part = [], [np.zeros(0, np.int32)]
        for codes, part, table in self._pieces:
            at = np.flatnonzero(part == number)
            codes_of_part.append(codes[at] >> self._bits)
            parts.append(table if len(at) == table.num_rows else table.take(pa.array(at)))
        names = self._names.take(pa.array(np.arange(number, len(self._names), len(self))))
        users = pa.DictionaryArray.from_arrays(pa.array(np.concatenate(codes_of_part)), names)
        return pa.concat_tables(parts).append_column(col.USER, users) if parts else pa.table({col.USER: users})


def _unified(tables: Sequence[pa.Table]) -> pa.Table:
    """One table in which each text column has one dictionary; the two halves are merged side by side first."""
    half = len(tables) // 2
    parts = [pa.concat_tables(part) for part in (tables[:half], tables[half:]) if part]
    merged = in_order(pa.Table.unify_dictionaries, parts)
    return pa.concat_tables(merged).unify_dictionaries()


def in_order(work: Callable[[Part], Result], parts: Iterable[Part], *, workers: int = WORKERS) -> Iterator[Result]:
    """Results in the order of the parts, worked on side by side, never more than `workers` ahead of the reader."""
    waiting = iter(parts)
    with ThreadPoolExecutor(workers) as pool:
        running: list[Future[Result]] = [pool.submit(work, part) for part in islice(waiting, workers)]
        while running:
            done = running.pop(0).result()
            running += [pool.submit(work, part) for part in islice(waiting, 1)]
            yield done
