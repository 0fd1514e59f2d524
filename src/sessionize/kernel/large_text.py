"""Text columns that may have no room in one Arrow array, as payload and event ids: their parts, and rows of them."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.kernel.text_arrays import TEXT_BYTES_MAX


def with_room(array: pa.Array) -> list[pa.Array]:
    """The array in parts, each of which has room in an Arrow array when it is written out as plain text."""
    if len(array) <= 1 or _text_bytes(array) <= TEXT_BYTES_MAX:
        return [array]
    half = len(array) // 2
    # copies: a slice keeps its offsets, which are too large for string however short the slice is
    halves = (array.take(pa.array(np.arange(*span))) for span in ((0, half), (half, len(array))))
    return [part for each in halves for part in with_room(each)]


def rows_of(column: pa.Array | pa.ChunkedArray, at: npt.NDArray[np.integer[Any]]) -> pa.Array | pa.ChunkedArray:
    """The column's rows at these places, none of them twice, in the same type; text in as many chunks as it takes."""
    taken = _taken(column, at)
    if taken.type == column.type:
        return taken
    chunks = taken.chunks if isinstance(taken, pa.ChunkedArray) else [taken]
    return pa.chunked_array([part.cast(column.type) for chunk in chunks for part in with_room(chunk)], column.type)


def one_array_of(column: pa.Array | pa.ChunkedArray, at: npt.NDArray[np.integer[Any]]) -> pa.Array:
    """The column's rows at these places in one array: of large_string where text may have no room in string."""
    taken = _taken(column, at)
    return taken.combine_chunks() if isinstance(taken, pa.ChunkedArray) else taken


def _taken(column: pa.Array | pa.ChunkedArray, at: npt.NDArray[np.integer[Any]]) -> pa.Array | pa.ChunkedArray:
    """take() may join the chunks of a column, so what has no room in one array becomes large_string before."""
    large = pa.types.is_string(column.type) and column.nbytes > TEXT_BYTES_MAX
    return (column.cast(pa.large_string()) if large else column).take(pa.array(at))


def _text_bytes(array: pa.Array) -> int:
    """How large the array is at most when its dictionary is written out."""
    if isinstance(array, pa.DictionaryArray) and _is_text(array.dictionary.type):
        return len(array) * int(pc.max(pc.binary_length(array.dictionary)).as_py() or 0)
    return int(array.nbytes)


def _is_text(kind: pa.DataType) -> bool:
    is_text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(each(kind) for each in is_text)
