"""In which rows two columns differ, lists and maps among them, without a Python object for each value."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Bools = npt.NDArray[np.bool_]


def column_differs(one: Any, other: Any) -> Bools | None:
    """bool[n]: where the values differ; null equals null. None where one cannot be read as the type of the other."""
    try:
        one = one.cast(other.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        return None
    return _differ(_array(one), _array(other))


def _array(column: Any) -> pa.Array:
    joined = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return joined.chunk(0) if isinstance(joined, pa.ChunkedArray) and joined.num_chunks else joined


def _differ(one: pa.Array, other: pa.Array) -> Bools:
    missing = plain_mask(pc.is_null(one)), plain_mask(pc.is_null(other))
    found: Bools = missing[0] != missing[1]
    both = np.flatnonzero(~(missing[0] | missing[1]))
    mine, theirs = one.take(pa.array(both)), other.take(pa.array(both))
    if not pa.types.is_list(one.type) and not pa.types.is_map(one.type):
        found[both] = plain_mask(pc.not_equal(mine, theirs))
        return found
    length = np.diff(mine.offsets.to_numpy())
    same = length == np.diff(theirs.offsets.to_numpy())
    found[both] = ~same
    rows = both[same]
    mine, theirs = mine.take(pa.array(np.flatnonzero(same))), theirs.take(pa.array(np.flatnonzero(same)))
    owner = np.repeat(np.arange(len(rows)), length[same])
    values = [(mine.keys, theirs.keys), (mine.items, theirs.items)] if pa.types.is_map(one.type) else [
        (mine.values, theirs.values)
    ]  # fmt: skip
    for left, right in values:
        found[rows[owner[_differ(left, right)]]] = True
    return found


def plain_mask(mask: Any) -> Bools:
    """An Arrow column of booleans without nulls, as numpy's."""
    made: Bools = np.asarray(mask).astype(bool)
    return made
