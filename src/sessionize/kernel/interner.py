"""Strings to dense codes and back, so that everything behind it works on small integers.

FixedWidthStrings and, for long strings, StringTable find the strings of a column all at once; here they get codes,
which are used again once they are released. The first batch costs nothing at all: its dictionary is taken over as it
is, which is what a batch run (one push) lives on.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.kernel.fixed_width_strings import WORDS_MAX, FixedWidthStrings, groups, words_of
from sessionize.kernel.string_table import HASH_KEYS, KeyArray, PlaceArray, Rows, StringTable, grown, text_buffers

BLOCK_ROWS = 1 << 17  # coded at a time: what is needed on the way stays small
CHUNK_ROWS_MIN = 1 << 13  # on average; smaller ones are put together first
ROWS_PER_NAME = 4  # few names: columns with more rows for each one are reduced to their distinct strings first
DICTIONARY_NAMES_MAX = 1 << 14
DEAD_NAMES_MIN = 1 << 10
DEAD_BYTES_MIN = 1 << 20
_OF_ANY_LENGTH = WORDS_MAX + 1  # the shelf of strings that take more words, and of few ones

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
    codes = _joined([_codes(chunk) for chunk in chunked.chunks])
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


@dataclass(slots=True)
class _Shelf:
    """Strings of about one length. codes: by place, -1 for a released one. used: those with a code."""

    names: FixedWidthStrings | StringTable
    codes: CodeArray
    used: int = 0
    used_bytes: int = 0

    @property
    def is_half_empty(self) -> bool:
        """Whether most of it are released strings."""
        dead, dead_bytes = len(self.names) - self.used, self.names.size_bytes - self.used_bytes
        return dead > self.used + DEAD_NAMES_MIN or dead_bytes > self.used_bytes + 2 * DEAD_BYTES_MIN

    def count(self, places: PlaceArray, sign: int) -> None:
        """Take note of strings that get (1) or lose (-1) their codes."""
        self.used += sign * len(places)
        self.used_bytes += sign * int(self.names.sizes(places).sum())

    def tidy(self) -> None:
        """Drop the released strings."""
        held = np.flatnonzero(self.codes[: len(self.names)] >= 0).astype(np.int32)
        self.names, self.codes = self.names.keeping(held), self.codes[held]
        self.used, self.used_bytes = len(held), self.names.size_bytes


class Interner:
    """A growing set of strings, each with a code that stays the same until it is released.

    `encode` gives unknown strings codes from 0 on, or codes that were released. few: the same strings of many lengths
    come over and over (pages and event types, not users). keys: of the hash.
    """

    __slots__ = ("_few", "_free", "_frozen", "_keys", "_names", "_places", "_shelves", "_total", "_words")

    def __init__(self, *, few: bool = False, keys: KeyArray = HASH_KEYS) -> None:
        self._few, self._keys = few, keys
        self._frozen: pa.Array | None = None  # the first dictionary, as long as it is the only one
        self._shelves: dict[int, _Shelf] = {}  # by the words that a string takes
        self._total = 0  # codes ever given
        self._words = np.empty(0, np.int8)  # by code: its shelf
        self._places = np.empty(0, np.int32)  # by code: its place there, -1 for a free code
        self._free = np.empty(0, np.int32)
        self._names: pa.Array | None = None  # all strings by code, until they change

    def __len__(self) -> int:
        """Codes in use or released: every code is smaller."""
        return self._total if self._frozen is None else len(self._frozen)

    @property
    def used(self) -> int:
        """Strings held now."""
        return len(self) - len(self._free)

    @property
    def size_bytes(self) -> int:
        """Bytes of strings copied in: those held, and those released that are not dropped yet."""
        return sum(shelf.names.size_bytes for shelf in self._shelves.values())

    def encode(self, column: pa.ChunkedArray | pa.Array) -> CodeArray:
        """int32[n]: the code of each string, -1 for null."""
        # where most strings differ, looking for equal ones first would be the dearer half of the work
        distinct_first = self._few and self._total * ROWS_PER_NAME <= len(column)
        if not distinct_first and not pa.types.is_dictionary(column.type) and not column.null_count:
            self._thaw()
            return _joined([self._intern(strings) for strings in _plain(column)])
        codes, values = dictionary_of(column)
        if len(values) == 0:
            return codes
        if self._frozen is None and self._total == 0:
            self._frozen = values
            return codes
        self._thaw()
        return np.append(self._intern(values), np.int32(-1))[codes]

    def find(self, value: str) -> int | None:
        """The code of a string, None when it is not held."""
        code = int(self.find_many(pa.array([value], pa.string()))[0])
        return None if code < 0 else code

    def find_many(self, column: pa.ChunkedArray | pa.Array) -> CodeArray:
        """int32[n]: the code of each string, -1 for one that is not held. column: no nulls."""
        self._thaw()
        return _joined([self._find(strings) for strings in _plain(column)])

    def values(self, codes: npt.NDArray[np.integer]) -> pa.Array:
        """The strings behind codes (null for -1), plain or dictionary-encoded, whichever is at hand."""
        codes = codes.astype(np.int32, copy=False)
        mask = codes < 0
        names = self._frozen if self._frozen is not None else self._few_names()
        if names is not None:
            return pa.DictionaryArray.from_arrays(pa.array(codes, mask=mask if mask.any() else None), names)
        if mask.any():
            taken = self._strings(codes[~mask]).take(pa.array(np.cumsum(~mask) - 1, mask=mask))
        else:
            taken = self._strings(codes)
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
        for words, rows in groups(self._words[codes]):
            shelf, places = self._shelves[words], self._places[codes[rows]]
            shelf.codes[places] = -1
            shelf.count(places, -1)
            if shelf.is_half_empty:
                self._tidy(shelf)
        self._places[codes] = -1
        self._free = np.concatenate((self._free, codes))
        self._names = None

    def compact(self, in_use: npt.NDArray[np.bool_]) -> CodeArray:
        """Keep only codes with in_use[code]; int32[len + 1]: old code -> new code (-1 for dropped, and at the end)."""
        self._thaw()
        table = np.full(self._total + 1, -1, np.int32)
        kept = np.flatnonzero(in_use[: self._total] & (self._places[: self._total] >= 0))
        table[kept] = np.arange(len(kept), dtype=np.int32)
        self._words, self._places, self._total = self._words[kept], self._places[kept], len(kept)
        self._free, self._names = np.empty(0, np.int32), None
        for shelf in self._shelves.values():
            shelf.codes = table[shelf.codes[: len(shelf.names)]]
            self._tidy(shelf)
        return table

    def _find(self, strings: pa.StringArray | pa.LargeStringArray) -> CodeArray:
        codes = np.full(len(strings), -1, np.int32)
        for words, rows in self._by_words(strings):
            if words in self._shelves:
                shelf = self._shelves[words]
                places = shelf.names.find(strings, rows)
                known = places >= 0
                places[known] = shelf.codes[places[known]]
                codes[rows] = places
        return codes

    def _intern(self, strings: pa.StringArray | pa.LargeStringArray) -> CodeArray:
        codes = np.empty(len(strings), np.int32)
        for at in range(0, len(strings), BLOCK_ROWS):
            self._intern_block(strings.slice(at, BLOCK_ROWS), codes[at : at + BLOCK_ROWS])
        return codes

    def _intern_block(self, strings: pa.StringArray | pa.LargeStringArray, codes: CodeArray) -> None:
        """codes: written here."""
        for words, rows in self._by_words(strings):
            shelf, places, new = self._shelve(words, strings, rows)
            if len(new):
                self._give_codes(words, new)
            found = shelf.codes.take(places)
            nameless = found < 0
            if nameless.any():  # released earlier and here again
                self._give_codes(words, np.unique(places[nameless]))
                found = shelf.codes.take(places)
            codes[rows] = found

    def _shelve(
        self, words: int, strings: pa.StringArray | pa.LargeStringArray, rows: Rows
    ) -> tuple[_Shelf, PlaceArray, PlaceArray]:
        """The shelf of the strings in these rows, their places on it, and which are of new ones, that have no codes."""
        if words not in self._shelves:
            names = StringTable(self._keys) if words == _OF_ANY_LENGTH else FixedWidthStrings(words, self._keys)
            self._shelves[words] = _Shelf(names, np.empty(0, np.int32))
        shelf = self._shelves[words]
        before = len(shelf.names)
        places = shelf.names.encode(strings, rows)
        new = np.arange(before, len(shelf.names), dtype=np.int32)
        shelf.codes = grown(shelf.codes, before, np.full(len(new), -1, np.int32))
        return shelf, places, new

    def _give_codes(self, words: int, places: PlaceArray) -> None:
        """Free codes, then new ones, to strings that have none."""
        again = min(len(places), len(self._free))
        fresh = np.arange(self._total, self._total + len(places) - again, dtype=np.int32)
        codes = np.concatenate((self._free[len(self._free) - again :], fresh))
        self._free = self._free[: len(self._free) - again]
        self._places = grown(self._places, self._total, np.full(len(fresh), -1, np.int32))
        self._words = grown(self._words, self._total, np.full(len(fresh), words, np.int8))
        self._total += len(fresh)
        self._name(words, places, codes)

    def _name(self, words: int, places: PlaceArray, codes: CodeArray) -> None:
        """From now on the strings at these places have these codes."""
        shelf = self._shelves[words]
        shelf.codes[places] = codes
        shelf.count(places, 1)
        self._places[codes] = places
        self._words[codes] = words
        self._names = None

    def _strings(self, codes: npt.NDArray[np.integer]) -> pa.LargeStringArray:
        where = np.arange(len(codes))
        parts, order = [], []
        for words, rows in groups(self._words[codes]):
            parts.append(self._shelves[words].names.strings(self._places[codes[rows]]))
            order.append(where[rows])
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return pa.array([], pa.large_string())
        back = np.empty(len(codes), np.int64)
        back[np.concatenate(order)] = where
        return pa.concat_arrays(parts).take(pa.array(back))

    def _few_names(self) -> pa.Array | None:
        """All strings by code as a dictionary, None where that would be long or have holes."""
        if self._total > DICTIONARY_NAMES_MAX or len(self._free):
            return None  # a foreign reader may choke on a dictionary with nulls
        if self._names is None:
            self._names = self._strings(np.arange(self._total, dtype=np.int32)).cast(pa.string())
        return self._names

    def _thaw(self) -> None:
        if self._frozen is not None:
            frozen, self._frozen = self._frozen, None
            self._total = len(frozen)
            self._places, self._words = np.empty(self._total, np.int32), np.empty(self._total, np.int8)
            codes = np.arange(self._total, dtype=np.int32)
            for words, rows in self._by_words(frozen):
                self._name(words, self._shelve(words, frozen, rows)[1], codes[rows])

    def _by_words(self, strings: pa.StringArray | pa.LargeStringArray) -> Iterator[tuple[int, Rows]]:
        """The rows of each shelf: those of the strings that take as many words, or more than any shelf is for."""
        if self._few:
            return iter([(_OF_ANY_LENGTH, slice(None))])
        sizes = np.diff(text_buffers(strings)[0])
        return groups(np.minimum(words_of(sizes), _OF_ANY_LENGTH))

    def _tidy(self, shelf: _Shelf) -> None:
        """Drop what released strings left behind; the codes stay."""
        shelf.tidy()
        self._places[shelf.codes] = np.arange(len(shelf.codes), dtype=np.int32)


def _plain(column: pa.ChunkedArray | pa.Array) -> list[pa.StringArray | pa.LargeStringArray]:
    """The strings in chunks that are worth a call each."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        chunks = [chunk.cast(pa.large_string()) for chunk in chunks]
    if len(chunks) > 1 and len(column) < CHUNK_ROWS_MIN * len(chunks):
        return [pa.concat_arrays([chunk.cast(pa.large_string()) for chunk in chunks])]
    return chunks


def _joined(codes: list[CodeArray]) -> CodeArray:
    return codes[0] if len(codes) == 1 else np.concatenate([np.empty(0, np.int32), *codes])
