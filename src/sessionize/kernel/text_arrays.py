"""Text columns as they are at hand, plain or dictionary-encoded: how large they are, written out, and in order."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

TEXT_BYTES_MAX = 2**31 - 2**20  # what an Arrow array has room for, less what else is beside it


def plain_text(array: pa.Array) -> pa.Array:
    """Decode a dictionary-encoded text column; others pass."""
    return array.dictionary_decode() if isinstance(array, pa.DictionaryArray) else array


def ranks(texts: pa.Array) -> npt.NDArray[np.int64]:
    """int64[n]: where each of these distinct texts, without nulls, comes in alphabetical order."""
    large = texts.dictionary.cast(pa.large_string()).take(texts.indices) if _is_coded(texts) else texts
    rank = np.empty(len(texts), np.int64)
    rank[pc.sort_indices(large).to_numpy()] = np.arange(len(texts))
    return rank


def most_text_bytes(array: pa.Array) -> int:
    """How large the texts in an array are at most when they are written out."""
    if _is_coded(array):
        return len(array) * int(pc.max(pc.binary_length(array.dictionary)).as_py() or 0)
    if isinstance(array, pa.MapArray):
        return most_text_bytes(array.keys)
    return most_text_bytes(array.values) if isinstance(array, pa.ListArray) else int(array.nbytes)


def _is_coded(array: pa.Array) -> bool:
    return isinstance(array, pa.DictionaryArray) and pa.types.is_string(array.dictionary.type)
