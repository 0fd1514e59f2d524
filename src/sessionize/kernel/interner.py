"""Strings to dense codes and back, so that everything behind it works on small integers.

Texts finds the strings of a column all at once; here they get codes, which are used again once they are released. The
first batch costs nothing at all: its dictionary is taken over as it is, which is what a batch run (one push) lives on.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.kernel.texts import Texts, grown

ROWS_PER_NAME = 4  # columns with more rows for each string held are reduced to their distinct strings first
DICTIONARY_NAMES_MAX = 1 << 14
DEAD_NAMES_MIN = 1 << 10
DEAD_BYTES_MIN = 1 << 20

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

    `encode` gives unknown strings codes from 0 on, or codes that were released. texts: an empty list, for tests.
    """

    __slots__ = ("_codes", "_dead_bytes", "_free", "_frozen", "_names", "_places", "_texts", "_total")

    def __init__(self, texts: Texts | None = None) -> None:
        self._frozen: pa.Array | None = None  # the first dictionary, as long as it is the only one
        self._texts = Texts() if texts is None else texts
        self._total = 0  # codes ever given
        self._places = np.empty(0, np.int32)  # by code: its place in _texts, -1 for a free code
        self._codes = np.empty(0, np.int32)  # by place: its code, -1 for a released string
        self._free = np.empty(0, np.int32)
        self._dead_bytes = 0
        self._names: pa.Array | None = None  # all strings by code, until they change

    def __len__(self) -> int:
        """Codes in use or released: every code is smaller."""
        return self._total if self._frozen is None else len(self._frozen)

    @property
    def used(self) -> int:
        """Strings held now."""
        return len(self) - len(self._free)

    def encode(self, column: pa.ChunkedArray | pa.Array) -> CodeArray:
        """int32[n]: the code of each string, -1 for null."""
        # about to find mostly different strings, looking for equal ones first would be the dearer half of the work
        if self._total * ROWS_PER_NAME > len(column) and not pa.types.is_dictionary(column.type):
            strings = _large(column)
            if strings.null_count == 0:
                return self._intern(strings)
        codes, values = dictionary_of(column)
        if len(values) == 0:
            return codes
        if self._frozen is None and self._total == 0:
            self._frozen = values
            return codes
        self._thaw()
        return np.append(self._intern(_large(values)), np.int32(-1))[codes]

    def find(self, value: str) -> int | None:
        """The code of a string, None when it is not held."""
        code = int(self.find_many(pa.array([value], pa.string()))[0])
        return None if code < 0 else code

    def find_many(self, column: pa.Array) -> CodeArray:
        """int32[n]: the code of each string, -1 for one that is not held. column: no nulls."""
        self._thaw()
        places = self._texts.find(_large(column))
        known = places >= 0
        places[known] = self._codes[places[known]]
        return places

    def values(self, codes: npt.NDArray[np.integer]) -> pa.Array:
        """The strings behind codes (null for -1), plain or dictionary-encoded, whichever is at hand."""
        codes = codes.astype(np.int32, copy=False)
        mask = codes < 0
        names = self._frozen if self._frozen is not None else self._few_names()
        if names is not None:
            return pa.DictionaryArray.from_arrays(pa.array(codes, mask=mask if mask.any() else None), names)
        if mask.any():
            places = pa.array(self._places[np.where(mask, 0, codes)], mask=mask)
        else:
            places = pa.array(self._places[codes])
        taken = self._texts.array.take(places)
        if taken.nbytes > np.iinfo(np.int32).max:  # more text than an Arrow string array has room for
            few = taken.dictionary_encode()
            return pa.DictionaryArray.from_arrays(few.indices, few.dictionary.cast(pa.string()))
        return taken.cast(pa.string())

    def release(self, codes: CodeArray) -> None:
        """Forget these strings; their codes may be given to others."""
        self._thaw()
        held = np.zeros(self._total, bool)
        held[codes] = True
        held &= self._places[: self._total] >= 0
        codes = np.flatnonzero(held).astype(np.int32)
        places = self._places[codes]
        self._codes[places] = -1
        self._places[codes] = -1
        self._free = np.concatenate((self._free, codes))
        self._names = None
        self._dead_bytes += int(self._texts.sizes(places).sum())
        dead = len(self._texts) - self.used
        if dead > self.used + DEAD_NAMES_MIN or self._dead_bytes > self._texts.size_bytes / 2 + DEAD_BYTES_MIN:
            self._rewrite()

    def compact(self, in_use: npt.NDArray[np.bool_]) -> CodeArray:
        """Keep only codes with in_use[code]; int32[len + 1]: old code -> new code (-1 for dropped, and at the end)."""
        self._thaw()
        table = np.full(self._total + 1, -1, np.int32)
        kept = np.flatnonzero(in_use[: self._total] & (self._places[: self._total] >= 0))
        table[kept] = np.arange(len(kept), dtype=np.int32)
        self._take_over(self._texts.keeping(self._places[kept]))
        return table

    def _intern(self, strings: pa.LargeStringArray) -> CodeArray:
        places = self._texts.find(strings)
        unknown = np.flatnonzero(places < 0)
        if len(unknown):
            new = strings.take(pa.array(unknown)).dictionary_encode()
            at = self._texts.add(new.dictionary)
            self._codes = grown(self._codes, int(at[0]), np.full(len(at), -1, np.int32))
            places[unknown] = at[new.indices.to_numpy()]
        codes = self._codes[places]
        nameless = codes < 0
        if nameless.any():  # new, or released earlier and here again
            wanted = np.zeros(len(self._texts), bool)
            wanted[places[nameless]] = True
            self._give_codes(np.flatnonzero(wanted).astype(np.int32))
            codes = self._codes[places]
        return codes

    def _give_codes(self, places: CodeArray) -> None:
        again = min(len(places), len(self._free))
        fresh = np.arange(self._total, self._total + len(places) - again, dtype=np.int32)
        codes = np.concatenate((self._free[len(self._free) - again :], fresh))
        self._free = self._free[: len(self._free) - again]
        self._places = grown(self._places, self._total, np.full(len(fresh), -1, np.int32))
        self._total += len(fresh)
        self._places[codes] = places
        self._codes[places] = codes
        self._names = None

    def _few_names(self) -> pa.Array | None:
        """All strings by code as a dictionary, None where that would be long or have holes."""
        if self._total > DICTIONARY_NAMES_MAX or len(self._free):
            return None  # a foreign reader may choke on a dictionary with nulls
        if self._names is None:
            self._names = self._texts.array.take(pa.array(self._places[: self._total])).cast(pa.string())
        return self._names

    def _thaw(self) -> None:
        if self._frozen is not None:
            texts, frozen = self._texts, self._frozen
            self._frozen = None
            texts.add(_large(frozen))
            self._take_over(texts)

    def _rewrite(self) -> None:
        """Drop what released strings left behind; the codes stay."""
        codes = np.flatnonzero(self._places[: self._total] >= 0).astype(np.int32)
        self._texts = self._texts.keeping(self._places[codes])
        self._places[codes] = np.arange(len(codes), dtype=np.int32)
        self._codes, self._dead_bytes = codes, 0

    def _take_over(self, texts: Texts) -> None:
        """Codes by the places in texts."""
        self._texts, self._total, self._dead_bytes = texts, len(texts), 0
        self._places, self._codes = np.arange(len(texts), dtype=np.int32), np.arange(len(texts), dtype=np.int32)
        self._free, self._names = np.empty(0, np.int32), None


def _large(column: pa.ChunkedArray | pa.Array) -> pa.LargeStringArray:
    chunked = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
    chunks = chunked.cast(pa.large_string()).chunks
    return chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks or [pa.array([], pa.large_string())])
