"""Distinct strings of about one length (UUIDs, padded numbers, user-123) and their places, a whole column at a time.

A string is a row of 64-bit words: its bytes, a byte 0x80, zeros. An open-addressing table leads from a hash to a row;
the hash only proposes, all words are compared. Rows are worked on in blocks that stay in the processor's cache, which,
with many look-ups under way at once, makes this about twice as quick as a hash table that takes one string after the
other.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sessionize.kernel.string_table import ALL_ROWS, HASH_KEYS, KeyArray, PlaceArray, Rows, text_buffers

WORDS_MAX = 9
BLOCK_ROWS = 1 << 15
_TABLE_SIZE_MIN = 1 << 12
_LOAD_MAX = 4  # the table is at least so many times as large as the number of strings
_BITS = 8 * np.arange(8, dtype=np.uint64)  # by length modulo 8: where in its last word a string has ended
_MASKS = (np.uint64(1) << _BITS) - np.uint64(1)
_ENDS = np.uint64(0x80) << _BITS

Words = npt.NDArray[np.uint64]
Fields = npt.NDArray[np.intp]  # of the table


def words_of(sizes_bytes: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    """How many words strings of these lengths take."""
    return (sizes_bytes >> 3) + 1


class FixedWidthStrings:
    """Distinct strings that take the same number of words, each at a place (0, 1, 2, …) that it keeps.

    words: up to WORDS_MAX. keys: uint64, at least one for each word, of the hash.
    """

    __slots__ = ("_count", "_keys", "_rows", "_shift", "_table")

    def __init__(self, words: int, keys: KeyArray = HASH_KEYS) -> None:
        self._keys = keys[:words]
        self._rows: Words = np.empty((0, words), np.uint64)
        self._count = 0
        self._make_table(0)

    def __len__(self) -> int:
        return self._count

    @property
    def size_bytes(self) -> int:
        """Bytes of all strings, with what fills up their words."""
        size: int = self._count * 8 * self._rows.shape[1]
        return size

    def sizes(self, places: PlaceArray) -> npt.NDArray[np.int64]:
        """Bytes of these strings, with what fills up their words."""
        return np.full(len(places), 8 * self._rows.shape[1])

    def encode(self, strings: pa.StringArray | pa.LargeStringArray, rows: Rows = ALL_ROWS) -> PlaceArray:
        """int32[n]: the places of the strings in these rows, unknown ones are added.

        strings: those of the rows have no nulls and take this many words.
        """
        return self._by_blocks(self._encode, strings, rows)

    def find(self, strings: pa.StringArray | pa.LargeStringArray, rows: Rows = ALL_ROWS) -> PlaceArray:
        """As encode, but -1 for unknown strings."""
        return self._by_blocks(self._find, strings, rows)

    def strings(self, places: PlaceArray) -> pa.LargeStringArray:
        """The strings at these places."""
        words = self._rows.take(places, axis=0)
        count, row_bytes = len(places), 8 * words.shape[1]
        sizes = np.searchsorted(_ENDS, words[:, -1], side="right") + (row_bytes - 9)  # the last bit set is the end's
        offsets = np.zeros(count + 1, np.int64)
        np.cumsum(sizes, out=offsets[1:])
        data = np.empty(int(offsets[-1]), np.uint8)
        for size, rows in groups(sizes):
            if size:
                bytes_from_any = np.ndarray(len(data) - size + 1, f"V{size}", data, strides=(1,))
                bytes_from_any[offsets[:-1][rows]] = np.ndarray(count, f"V{size}", words, strides=(row_bytes,))[rows]
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
        return pa.Array.from_buffers(pa.large_string(), count, buffers, null_count=0)

    def keeping(self, places: PlaceArray) -> "FixedWidthStrings":
        """New ones of only these strings, in this order."""
        kept = FixedWidthStrings(self._rows.shape[1], self._keys)
        kept._rows, kept._count = self._rows.take(places, axis=0), len(places)
        kept._make_table(kept._count)
        return kept

    def _by_blocks(
        self,
        look_up: Callable[[Words], PlaceArray],
        strings: pa.StringArray | pa.LargeStringArray,
        rows: Rows,
    ) -> PlaceArray:
        offsets, data = text_buffers(strings)
        start, stop = offsets[:-1][rows], offsets[1:][rows]
        places = np.empty(len(start), np.int32)
        for at in range(0, len(start), BLOCK_ROWS):
            block = slice(at, at + BLOCK_ROWS)
            places[block] = look_up(_words(data, start[block], stop[block], self._rows.shape[1]))
        return places

    def _encode(self, words: Words) -> PlaceArray:
        self._reserve(len(words))
        at = self._hashes(words)
        places = self._table.take(at)
        rows = np.flatnonzero(_differ(self._rows.take(places, axis=0, mode="clip"), words) | (places < 0))
        if not len(rows):
            return places
        before, fields = self._count, []
        words, at = words.take(rows, axis=0), at.take(rows)
        while len(rows):
            fields.append(self._add(words, at))
            found = self._table.take(at)
            places[rows] = found
            again = np.flatnonzero(_differ(self._rows.take(found, axis=0), words))
            # another string is in that field of the table: look at the next
            rows, words, at = rows.take(again), words.take(again, axis=0), self._next(at.take(again))
        if self._count > before:
            self._put_in_order(before, np.concatenate(fields), places)
        return places

    def _put_in_order(self, before: int, fields: Fields, places: PlaceArray) -> None:
        """Number the strings that were added as they came, so that no result depends on the hash."""
        rows = np.flatnonzero(places >= before)[::-1]
        added = places.take(rows) - before
        first = np.empty(self._count - before, np.int64)
        first[added] = rows  # of several rows the first one is written last
        is_first = np.zeros(len(places), np.int32)
        is_first[first] = 1
        place = (is_first.cumsum(dtype=np.int32) + np.int32(before - 1)).take(first)
        self._rows[place] = self._rows[before : self._count].copy()
        self._table[fields] = place.take(self._table.take(fields) - before)
        places[rows] = place.take(added)

    def _find(self, words: Words) -> PlaceArray:
        if not self._count:
            return np.full(len(words), -1, np.int32)
        at = self._hashes(words)
        found = places = self._table.take(at)
        rows = np.arange(len(words))
        while len(rows):
            again = np.flatnonzero(_differ(self._rows.take(found, axis=0, mode="clip"), words) & (found >= 0))
            rows, words, at = rows.take(again), words.take(again, axis=0), self._next(at.take(again))
            found = self._table.take(at)
            places[rows] = found
        return places

    def _add(self, words: Words, at: Fields) -> Fields:
        """Put rows whose field of the table is free there, of several for one field only one; the fields taken."""
        free = np.flatnonzero(self._table.take(at) < 0)
        if not len(free):
            return at[:0]
        winners = free[self._claim(at.take(free), np.arange(len(free), dtype=np.int32))]
        places = np.arange(self._count, self._count + len(winners), dtype=np.int32)
        taken = at.take(winners)
        self._table[taken] = places
        self._rows[self._count : self._count + len(winners)] = words.take(winners, axis=0)
        self._count += len(winners)
        return taken

    def _claim(self, at: Fields, numbers: PlaceArray) -> npt.NDArray[np.bool_]:
        """Write each number to its field, and say which of them are there in the end."""
        self._table[at] = numbers
        won: npt.NDArray[np.bool_] = self._table.take(at) == numbers
        return won

    def _hashes(self, words: Words) -> Fields:
        """Where in the table to look first: multiply and add, of which the upper bits count."""
        total: Words = words @ self._keys
        total >>= self._shift
        at: Fields = total.view(np.intp)
        return at

    def _next(self, at: Fields) -> Fields:
        return (at + 1) & (len(self._table) - 1)

    def _reserve(self, count: int) -> None:
        """Make room for so many more strings."""
        need = self._count + count
        if need > len(self._rows):
            rows: Words = np.empty((max(need, 2 * self._count), self._rows.shape[1]), np.uint64)
            rows[: self._count] = self._rows[: self._count]
            self._rows = rows
        if need * _LOAD_MAX > len(self._table):
            self._make_table(need)

    def _make_table(self, need: int) -> None:
        """A table with all strings that are held, and room for twice as many as are needed."""
        size = max(1 << (2 * need * _LOAD_MAX - 1).bit_length(), _TABLE_SIZE_MIN)
        self._table: PlaceArray = np.full(size, -1, np.int32)
        self._shift = np.uint64(65 - size.bit_length())
        places = np.arange(self._count, dtype=np.int32)
        at = self._hashes(self._rows[: self._count])
        while len(places):
            free = np.flatnonzero(self._table.take(at) < 0)
            won = np.zeros(len(places), bool)
            won[free] = self._claim(at.take(free), places.take(free))
            places, at = places[~won], self._next(at[~won])


def groups(keys: npt.NDArray[np.integer]) -> Iterator[tuple[int, Rows]]:
    """Each key, and the rows that have it, ascending; all as a slice."""
    if not len(keys):
        return
    least, most = int(keys.min()), int(keys.max())
    if least == most:
        yield least, slice(None)
        return
    for key in range(least, most + 1):
        rows = np.flatnonzero(keys == key)
        if len(rows):
            yield key, rows


def _words(
    data: npt.NDArray[np.uint8], start: npt.NDArray[np.integer], stop: npt.NDArray[np.integer], words: int
) -> Words:
    """A row of words for each string data[start:stop]; start ascending."""
    row_bytes, count = 8 * words, len(start)
    sizes = stop - start
    if int(start[-1]) + row_bytes > len(data):  # a row is read whole, beyond the end of its string
        data = np.concatenate((data[start[0] : stop[-1]], np.zeros(row_bytes, np.uint8)))
        start, stop = start - start[0], stop - start[0]
    length: Any = sizes & 7
    if stop[-1] - start[0] == sizes[0] * count and (sizes == sizes[0]).all():  # one behind the other
        whole = np.ndarray(count, f"V{row_bytes}", data, int(start[0]), strides=(int(sizes[0]),)).copy()
        length = length[0]
    else:
        whole = np.ndarray(len(data) - row_bytes + 1, f"V{row_bytes}", data, strides=(1,))[start]
    rows: Words = whole.view(np.uint64).reshape(count, words)
    ending = rows[:, -1]
    ending &= _MASKS.take(length)
    ending |= _ENDS.take(length)
    return rows


def _differ(left: Words, right: Words) -> npt.NDArray[np.bool_]:
    """Which rows are not the same."""
    words: npt.NDArray[np.bool_] = left != right
    different = words[:, 0]
    for k in range(1, words.shape[1]):
        different = different | words[:, k]
    return different
