"""Measures rows with their dictionaries decoded, and splits them into pieces of bounded size.

Dictionary-encoded text is in memory once; decoded, a few megabytes may exceed the size of an array.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.session.limits import text_ends

PIECE_BYTES_MAX = 64 << 20

Sizes = npt.NDArray[np.int64]


def in_pieces(rows: pa.Table, *, bytes_max: int | None = None, rows_max: int | None = None) -> Iterator[pa.Table]:
    """The rows in pieces of about bytes_max each when decoded, at least one row each.

    bytes_max: None for PIECE_BYTES_MAX.
    """
    bytes_max = PIECE_BYTES_MAX if bytes_max is None else bytes_max
    step = max(1, rows.num_rows if rows_max is None else rows_max)
    for start in range(0, rows.num_rows, step):
        part = rows.slice(start, step)
        if _most(part) <= bytes_max:
            yield part
            continue
        piece = (np.cumsum(decoded_sizes(part)) - 1) // bytes_max
        ends = [*(np.flatnonzero(np.diff(piece)) + 1).tolist(), part.num_rows]
        for first, end in zip([0, *ends], ends, strict=False):
            yield part.slice(first, end - first)


def decoded_bytes(table: pa.Table) -> int:
    """The size of a table with its dictionaries decoded, where repeated values count each time."""
    size = 0
    for chunk in (chunk for column in table.columns for chunk in column.chunks):
        size += chunk.nbytes
        if pa.types.is_dictionary(chunk.type) and pa.types.is_string(chunk.type.value_type):
            lengths = pc.binary_length(chunk.dictionary)
            size += pc.sum(lengths.take(chunk.indices)).as_py() or 0
    return size


def decoded_sizes(rows: pa.Table) -> Sizes:
    """int64[n]: the approximate decoded size of each row."""
    sizes = np.zeros(rows.num_rows, np.int64)
    for column in rows.columns:
        at = 0
        for chunk in column.chunks:
            sizes[at : at + len(chunk)] += _sizes(chunk)
            at += len(chunk)
    return sizes


def _most(rows: pa.Table) -> int:
    """An upper bound of the rows' size: every encoded text as long as the longest one."""
    return int(rows.nbytes) + sum(_most_of(chunk) for column in rows.columns for chunk in column.chunks)


def _most_of(array: pa.Array) -> int:
    if isinstance(array, pa.DictionaryArray):
        return len(array) * int(_sizes(array.dictionary).max(initial=0))
    if isinstance(array, pa.ListArray | pa.MapArray | pa.LargeListArray):
        return _most_of(_inner(array))
    return sum(_most_of(array.field(i)) for i in range(array.type.num_fields)) if pa.types.is_struct(array.type) else 0


def _sizes(array: pa.Array) -> Sizes:
    """int64[n]: the decoded size of each value."""
    kind = array.type
    sizes: Sizes
    if isinstance(array, pa.DictionaryArray):
        code = pc.fill_null(array.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
        sizes = np.append(_sizes(array.dictionary), 0)[code]
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        sizes = np.diff(text_ends(array)).astype(np.int64)
    elif isinstance(array, pa.ListArray | pa.MapArray | pa.LargeListArray):
        ends = array.offsets.to_numpy().astype(np.int64)
        sizes = np.diff(np.append(0, np.cumsum(_sizes(_inner(array))))[ends - ends[0]]) + 8
    elif pa.types.is_struct(kind):
        sizes = np.sum([_sizes(field) for field in array.flatten()], axis=0, dtype=np.int64)
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        sizes = pc.fill_null(pc.binary_length(array).cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    else:
        sizes = np.full(len(array), array.nbytes // max(1, len(array)) + 1, np.int64)
    return sizes


def _inner(array: pa.Array) -> pa.Array:
    """The items of a list or map, only those of its own rows."""
    first, last = int(array.offsets[0].as_py()), int(array.offsets[-1].as_py())
    if isinstance(array, pa.MapArray):
        both = pa.StructArray.from_arrays([array.keys, array.items], ["k", "v"])
        return both.slice(first, last - first)
    return array.values.slice(first, last - first)
