"""Strings to dense codes and back, so that everything behind it works on small integers.

Only the distinct values of a batch are looked up one by one; the rows follow by indexing. The first batch costs nothing
at all: its dictionary is taken over as it is, which is what a batch run (one push) lives on.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

CodeArray = npt.NDArray[np.int32]


def dictionary_of(column: pa.ChunkedArray | pa.Array) -> tuple[CodeArray, pa.Array]:
    """Dictionary-encode a text column: int32[n] codes (-1 for null) and the distinct values, strings without nulls."""
    chunked = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
    if chunked.length() == 0:
        return np.zeros(0, np.int32), pa.array([], pa.string())
    ours = not pa.types.is_dictionary(chunked.type)
    if ours:
        chunked = chunked.cast(pa.string()).dictionary_encode()
    values = chunked.chunk(0).dictionary
    if any(chunk.dictionary is not values and not chunk.dictionary.equals(values) for chunk in chunked.chunks[1:]):
        chunked = chunked.unify_dictionaries()
        values = chunked.chunk(0).dictionary
    parts = [_codes(chunk) for chunk in chunked.chunks]
    codes = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return (codes, values) if ours else _clean(codes, values.cast(pa.string()))


def _codes(chunk: pa.DictionaryArray) -> CodeArray:
    indices = chunk.indices if chunk.indices.null_count == 0 else pc.fill_null(chunk.indices, -1)
    codes: CodeArray = indices.to_numpy(zero_copy_only=False).astype(np.int32, copy=False)
    return codes


def _clean(codes: CodeArray, values: pa.Array) -> tuple[CodeArray, pa.Array]:
    """A foreign dictionary may hold nulls or the same value twice; ours must not."""
    if values.null_count == 0 and len(pc.unique(values)) == len(values):
        return codes, values
    encoded = values.dictionary_encode()
    table = np.append(_codes(encoded), np.int32(-1))
    return table[codes], encoded.dictionary


class Interner:
    """A growing set of strings, each with a code that stays the same until it is released.

    `encode` gives unknown strings the lowest free code. `release` frees codes for reuse.
    """

    __slots__ = ("_array", "_free", "_frozen", "_index", "_values")

    def __init__(self) -> None:
        self._frozen: pa.Array | None = None  # the first dictionary, as long as it is the only one
        self._values: list[str | None] = []
        self._array: pa.Array | None = None  # _values as Arrow, until they change
        self._index: dict[str, int] = {}
        self._free: list[int] = []

    def __len__(self) -> int:
        """Codes in use or released: every code is smaller."""
        return len(self._values) if self._frozen is None else len(self._frozen)

    @property
    def used(self) -> int:
        """Strings held now."""
        return len(self) - len(self._free)

    def encode(self, column: pa.ChunkedArray | pa.Array) -> CodeArray:
        """int32[n]: the code of each string, -1 for null."""
        codes, values = dictionary_of(column)
        if len(values) == 0:
            return codes
        if self._frozen is None and not self._values:
            self._frozen = values
            return codes
        table = self._intern(values.to_pylist())
        return np.append(table, np.int32(-1))[codes]

    def find(self, value: str) -> int | None:
        """The code of a string, None when it is not held."""
        self._thaw()
        return self._index.get(value)

    def values(self, codes: npt.NDArray[np.integer]) -> pa.Array:
        """The strings behind codes (null for -1), plain or dictionary-encoded, whichever is at hand."""
        whole = self._frozen if self._frozen is not None else self._array
        if whole is None and len(self._values) <= 2 * len(codes):
            whole = self._array = pa.array(self._values, pa.string())
        # a foreign reader may choke on a dictionary with nulls, which released codes leave behind
        if whole is not None and whole.null_count == 0:
            mask = codes < 0
            indices = pa.array(codes.astype(np.int32, copy=False), mask=mask if mask.any() else None)
            return pa.DictionaryArray.from_arrays(indices, whole)
        held = self._values
        return pa.array([held[c] if c >= 0 else None for c in codes.tolist()], pa.string())

    def release(self, codes: CodeArray) -> None:
        """Forget these strings; their codes may be given to others."""
        self._thaw()
        for code in codes.tolist():
            value = self._values[code]
            if value is not None:
                del self._index[value]
                self._values[code] = None
                self._free.append(code)
        self._array = None

    def compact(self, in_use: npt.NDArray[np.bool_]) -> CodeArray:
        """Keep only codes with in_use[code]; int32[len + 1]: old code -> new code (-1 for dropped, and at the end)."""
        self._thaw()
        table = np.full(len(self._values) + 1, -1, np.int32)
        kept = np.flatnonzero(in_use)
        table[kept] = np.arange(len(kept), dtype=np.int32)
        self._values = [self._values[c] for c in kept.tolist()]
        self._index = {value: code for code, value in enumerate(self._values) if value is not None}
        self._free = []
        self._array = None
        return table

    def _intern(self, values: list[str]) -> CodeArray:
        self._thaw()
        index, held, free = self._index, self._values, self._free
        found = list(map(index.get, values))
        unknown = [i for i, code in enumerate(found) if code is None]
        for i in unknown:
            value = values[i]
            if free:
                code = free.pop()
                held[code] = value
            else:
                code = len(held)
                held.append(value)
            index[value] = found[i] = code
        if unknown:
            self._array = None
        return np.array(found, np.int32)

    def _thaw(self) -> None:
        if self._frozen is not None:
            self._values = self._frozen.to_pylist()
            self._index = {value: code for code, value in enumerate(self._values) if value is not None}
            self._array, self._frozen = self._frozen, None
