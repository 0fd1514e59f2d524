"""A growing list of distinct strings in which whole columns are looked up at once.

The bytes lie end to end in one arena, an open-addressing table leads from a hash to a string's place in the list. A
hash only proposes: strings are the same when their bytes are. The hash is multilinear under random keys of this
process, so that nobody can craft strings that collide.
"""

import hashlib
import secrets
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

HASHED_WORDS_MAX = 16  # longer strings are digested one by one
# odd, so that no bit of a word is lost
HASH_KEYS = np.frombuffer(secrets.token_bytes(8 * (2 * HASHED_WORDS_MAX + 1)), np.uint64) | np.uint64(1)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
TABLE_SIZE_MIN = 64
ALL_ROWS = slice(None)

HashArray = npt.NDArray[np.uint32]
KeyArray = npt.NDArray[np.uint64]
PlaceArray = npt.NDArray[np.int32]
Rows = npt.NDArray[np.int64] | slice  # of a column, ascending; slice(None): all


class StringTable:
    """Distinct strings, each at a place (0, 1, 2, …) that it keeps. keys: uint64[33] of the hash, for tests."""

    __slots__ = ("_array", "_bytes", "_hashes", "_keys", "_offsets", "_shift", "_size", "_table")

    def __init__(self, keys: KeyArray = HASH_KEYS) -> None:
        self._keys = keys
        self._size = 0
        self._bytes = np.empty(0, np.uint8)
        self._offsets = np.zeros(1, np.int64)
        self._hashes = np.empty(0, np.uint32)
        self._array: pa.LargeStringArray | None = None
        self._empty_table(TABLE_SIZE_MIN)

    def __len__(self) -> int:
        return self._size

    @property
    def array(self) -> pa.LargeStringArray:
        """All strings by place. It stays as it is when more are added."""
        if self._array is None:
            # what lies behind the last offset may be overwritten, nothing before it ever is
            buffers = [None, pa.py_buffer(self._offsets), pa.py_buffer(self._bytes)]
            self._array = pa.Array.from_buffers(pa.large_string(), self._size, buffers, null_count=0)
        return self._array

    @property
    def size_bytes(self) -> int:
        """Bytes of all strings."""
        return int(self._offsets[self._size])

    def sizes(self, places: PlaceArray) -> npt.NDArray[np.int64]:
        """Bytes of these strings."""
        return self._offsets[places + 1] - self._offsets[places]

    def encode(self, strings: pa.StringArray | pa.LargeStringArray, rows: Rows = ALL_ROWS) -> PlaceArray:
        """int32[n]: the places of the strings in these rows, unknown ones are added. No nulls among them."""
        chosen = _chosen(strings, rows)
        places = self._find(chosen)
        unknown = np.flatnonzero(places < 0)
        if len(unknown):
            new = chosen.take(pa.array(unknown)).dictionary_encode()
            places[unknown] = self.add(new.dictionary)[new.indices.to_numpy()]
        return places

    def find(self, strings: pa.StringArray | pa.LargeStringArray, rows: Rows = ALL_ROWS) -> PlaceArray:
        """As encode, but -1 for unknown strings."""
        return self._find(_chosen(strings, rows))

    def strings(self, places: PlaceArray) -> pa.LargeStringArray:
        """The strings at these places."""
        return self.array.take(pa.array(places))

    def _find(self, strings: pa.LargeStringArray) -> PlaceArray:
        found = np.full(len(strings), -1, np.int32)
        if not self._size:
            return found
        rows: npt.NDArray[Any] | slice = slice(None)
        hashes, steps = text_hashes(strings, self._keys), np.zeros(len(strings), np.int64)
        while len(hashes):
            place = self._probe(hashes, steps)
            known = place >= 0
            # a place that is not known is compared too, which keeps the common case free of copies
            same = known & _equal(strings, self.array.take(pa.array(np.where(known, place, 0))))
            found[rows] = np.where(same, place, -1)
            again = np.flatnonzero(known & ~same)  # another string of the same hash: look on behind it
            rows = np.arange(len(found))[rows][again]
            strings, hashes, steps = strings.take(pa.array(again)), hashes[again], steps[again] + 1
        return found

    def add(self, strings: pa.LargeStringArray) -> PlaceArray:
        """int32[n]: the places of strings that are all unknown, without nulls, and distinct."""
        before, self._size = self._size, self._size + len(strings)
        offsets, data = text_buffers(strings)
        first = self._offsets[before]
        self._bytes = grown(self._bytes, int(first), data[offsets[0] : offsets[-1]])
        self._offsets = grown(self._offsets, before + 1, offsets[1:] - (offsets[0] - first))
        self._hashes = grown(self._hashes, before, text_hashes(strings, self._keys))
        self._array = None
        places = np.arange(before, self._size, dtype=np.int32)
        if 2 * self._size > len(self._table):
            self._empty_table(1 << (2 * self._size).bit_length())
            self._enter(np.arange(self._size, dtype=np.int32))
        else:
            self._enter(places)
        return places

    def keeping(self, places: PlaceArray) -> "StringTable":
        """A new list of only these strings, in this order."""
        kept = StringTable(self._keys)
        kept.add(self.strings(places))
        return kept

    def _empty_table(self, size: int) -> None:
        """size: a power of two; at least half of it stays free."""
        self._table = np.full(size, -1, np.int32)
        self._shift = np.uint32(33 - size.bit_length())

    def _at(self, hashes: HashArray, steps: npt.NDArray[np.int64] | int) -> npt.NDArray[np.int64]:
        """Where in the table to look after so many failures: triangular steps come by every place."""
        at = (hashes >> self._shift).astype(np.int64) + (steps * (steps + 1) >> 1)
        at &= len(self._table) - 1
        return at

    def _probe(self, hashes: HashArray, steps: npt.NDArray[np.int64]) -> PlaceArray:
        """The first string of the same hash from these steps on, -1 for none; moves the steps there."""
        place = self._table[self._at(hashes, steps)]
        rows = np.flatnonzero((place >= 0) & (self._hashes[place] != hashes))
        while len(rows):
            steps[rows] += 1
            next_ = self._table[self._at(hashes[rows], steps[rows])]
            place[rows] = next_
            rows = rows[(next_ >= 0) & (self._hashes[next_] != hashes[rows])]
        return place

    def _enter(self, places: PlaceArray) -> None:
        """Put strings into the table."""
        steps = 0
        while len(places):
            at = self._at(self._hashes[places], steps)
            free = self._table[at] < 0
            self._table[at[free]] = places[free]  # of several for one field the last is in
            places = places[self._table[at] != places]
            steps += 1


def text_hashes(strings: pa.LargeStringArray, keys: KeyArray = HASH_KEYS) -> HashArray:
    """uint32[n]: strongly universal hashes of strings without nulls, under these keys.

    keys: uint64[2 * HASHED_WORDS_MAX + 1]. A string is its length and its 64-bit words, the last one ending with the
    string; each 32-bit half is multiplied with a key of its own, and the upper half of the sum counts.
    """
    offsets, data = text_buffers(strings)
    start, size = offsets[:-1], np.diff(offsets)
    total: npt.NDArray[np.uint64] = size.view(np.uint64) * keys[-1]
    if not len(start):
        return np.empty(0, np.uint32)
    if len(data) < 8:
        data = np.concatenate((data, np.zeros(8, np.uint8)))
    words = np.ndarray(len(data) - 7, "<u8", data, strides=(1,))  # the eight bytes from any place on
    long = np.flatnonzero(size > 8 * HASHED_WORDS_MAX)
    shortest, longest = int(size.min()), int(size.max())
    for at in range(0, min(longest, 8 * HASHED_WORDS_MAX), 8):
        rows = slice(None) if shortest > at else np.flatnonzero(size > at)
        begin, length = start[rows], size[rows]
        if shortest == longest >= 8:
            place = int(start[0]) + min(at, longest - 8)
            word = np.ndarray(len(start), "<u8", data, place, strides=(longest,))
        elif shortest >= at + 8:
            word = words[begin + at]
        else:
            word = words[np.clip(begin + np.minimum(length - 8, at), 0, len(words) - 1)]
            if at == 0 and shortest < 8:
                short = np.flatnonzero(length < 8)
                word[short] = _short_words(words, begin[short], length[short])
        total[rows] += (word & _LOW) * keys[at // 4] + (word >> _HALF) * keys[at // 4 + 1]
    if len(long):
        secret = keys.tobytes()[:64]
        each = (data[offsets[row] : offsets[row + 1]].tobytes() for row in long.tolist())
        digests = b"".join(hashlib.blake2b(part, key=secret, digest_size=4).digest() for part in each)
        total[long] = np.frombuffer(digests, "<u4").astype(np.uint64) * keys[0]
    hashes: HashArray = (total >> _HALF).astype(np.uint32)
    return hashes


def _short_words(
    words: npt.NDArray[np.uint64], start: npt.NDArray[np.int64], size: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint64]:
    """Strings of less than eight bytes as words that hold nothing else."""
    begin = np.minimum(start, len(words) - 1)
    word = words[begin] >> (8 * (start - begin)).view(np.uint64)
    return word << (8 * (8 - size)).view(np.uint64)


def text_buffers(
    strings: pa.StringArray | pa.LargeStringArray,
) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]:
    """Where each string begins and the last one ends, int32 or int64[n + 1], and the bytes that this refers to."""
    kind = np.int64 if pa.types.is_large_string(strings.type) else np.int32
    if not len(strings):
        return np.zeros(1, kind), np.empty(0, np.uint8)
    _, offsets, data = strings.buffers()
    ours = np.frombuffer(offsets, kind)[strings.offset : strings.offset + len(strings) + 1]
    return ours, np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)


def _chosen(strings: pa.StringArray | pa.LargeStringArray, rows: Rows) -> pa.LargeStringArray:
    return (strings if isinstance(rows, slice) else strings.take(pa.array(rows))).cast(pa.large_string())


def _equal(left: pa.LargeStringArray, right: pa.LargeStringArray) -> npt.NDArray[np.bool_]:
    same: npt.NDArray[np.bool_] = pc.equal(left, right).to_numpy(zero_copy_only=False)
    return same


def grown(array: npt.NDArray[Any], used: int, tail: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """array[:used] + tail, in place where there is room, in an array half as large again where not."""
    need = used + len(tail)
    if need > len(array):
        bigger = np.empty(max(need, len(array) + len(array) // 2), array.dtype)
        bigger[:used] = array[:used]
        array = bigger
    array[used:need] = tail
    return array
