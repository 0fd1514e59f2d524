"""Distinct strings of one length (UUIDs, padded numbers) and their codes, a whole column at a time.

A string is a row of 64-bit words. An open-addressing table leads from a hash to a code; the hash only proposes, all
words are compared. Rows are worked on in blocks that stay in the processor's cache, which, with many look-ups under way
at once, makes this about twice as quick as a hash table that takes one string after the other.
"""

import secrets
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

SIZE_BYTES_MAX = 64
BLOCK_ROWS = 1 << 15
_TABLE_SIZE_MIN = 1 << 12
_LOAD_MAX = 4  # the table is at least so many times as large as the number of strings
_TEXT_BYTES_MAX = (1 << 31) - 1  # what an Arrow string array has room for

CodeArray = npt.NDArray[np.int32]
Words = npt.NDArray[np.uint64]


class FixedNames:
    """A growing set of strings of size_bytes bytes; each keeps its code, counted from 0 in the order of arrival."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        width = -(-size_bytes // 8)
        # random, so that nobody can craft strings that all collide; odd, so that no bit of a word is lost
        self._keys = np.frombuffer(secrets.token_bytes(8 * width), np.uint64) | np.uint64(1)
        self._rows: Words = np.empty((0, width), np.uint64)
        self._count = 0
        self._make_table(_TABLE_SIZE_MIN)

    def __len__(self) -> int:
        """Strings held."""
        return self._count

    @property
    def is_full(self) -> bool:
        """Whether another column might be too much for `names`."""
        return self._count * self.size_bytes > _TEXT_BYTES_MAX // 2

    def encode(self, strings: pa.StringArray) -> CodeArray:
        """int32[n]: the codes of strings that are all size_bytes long; unknown ones are added."""
        start = int(np.frombuffer(strings.buffers()[1], np.int32)[strings.offset])
        data = np.frombuffer(strings.buffers()[2], np.uint8, len(strings) * self.size_bytes, start)
        data = data.reshape(len(strings), self.size_bytes)
        codes = np.empty(len(strings), np.int32)
        words: Words = np.zeros((min(BLOCK_ROWS, len(strings)), self._rows.shape[1]), np.uint64)
        for at in range(0, len(strings), BLOCK_ROWS):
            block = data[at : at + BLOCK_ROWS]
            part = words[: len(block)]
            part.view(np.uint8)[:, : self.size_bytes] = block
            codes[at : at + len(block)] = self._encode(part)
        return codes

    def names(self) -> pa.StringArray:
        """The strings by code."""
        data = np.ascontiguousarray(self._rows[: self._count].view(np.uint8)[:, : self.size_bytes])
        offsets = np.arange(self._count + 1, dtype=np.int32) * np.int32(self.size_bytes)
        return pa.StringArray.from_buffers(self._count, pa.py_buffer(offsets), pa.py_buffer(data))

    def _encode(self, words: Words) -> CodeArray:
        self._reserve(len(words))
        at = self._hashes(words)
        codes = self._table.take(at)
        rows = np.flatnonzero(_differ(self._rows.take(codes, axis=0, mode="clip"), words) | (codes < 0))
        if not len(rows):
            return codes
        words, at = words.take(rows, axis=0), at.take(rows)
        while len(rows):
            self._add(words, at)
            found = self._table.take(at)
            codes[rows] = found
            again = np.flatnonzero(_differ(self._rows.take(found, axis=0), words))
            # another string is in that place: look at the next
            rows, words, at = rows.take(again), words.take(again, axis=0), self._next(at.take(again))
        return codes

    def _add(self, words: Words, at: npt.NDArray[np.intp]) -> None:
        """Put rows whose place in the table is free there; of several for one place, only one."""
        free = np.flatnonzero(self._table.take(at) < 0)
        if not len(free):
            return
        winners = free[self._claim(at.take(free), np.arange(len(free), dtype=np.int32))]
        codes = np.arange(self._count, self._count + len(winners), dtype=np.int32)
        self._table[at.take(winners)] = codes
        self._rows[self._count : self._count + len(winners)] = words.take(winners, axis=0)
        self._count += len(winners)

    def _claim(self, at: npt.NDArray[np.intp], numbers: CodeArray) -> npt.NDArray[np.bool_]:
        """Write each number to its place, and say which of them are there in the end."""
        self._table[at] = numbers
        won: npt.NDArray[np.bool_] = self._table.take(at) == numbers
        return won

    def _hashes(self, words: Words) -> npt.NDArray[np.intp]:
        """Where in the table to look first: multiply and add, of which the upper bits count."""
        total = words[:, 0] * self._keys[0]
        for k in range(1, words.shape[1]):
            total += words[:, k] * self._keys[k]
        total >>= self._shift
        at: npt.NDArray[np.intp] = total.view(np.intp)
        return at

    def _next(self, at: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        return (at + 1) & (len(self._table) - 1)

    def _reserve(self, count: int) -> None:
        """Make room for so many more strings."""
        need = self._count + count
        if need > len(self._rows):
            rows: Words = np.empty((max(need, 2 * self._count), self._rows.shape[1]), np.uint64)
            rows[: self._count] = self._rows[: self._count]
            self._rows = rows
        if need * _LOAD_MAX > len(self._table):
            self._make_table(1 << (2 * need * _LOAD_MAX - 1).bit_length())
            codes = np.arange(self._count, dtype=np.int32)
            at = self._hashes(self._rows[: self._count])
            while len(codes):
                free = np.flatnonzero(self._table.take(at) < 0)
                won = np.zeros(len(codes), bool)
                won[free] = self._claim(at.take(free), codes.take(free))
                codes, at = codes[~won], self._next(at[~won])

    def _make_table(self, size: int) -> None:
        self._table: CodeArray = np.full(size, -1, np.int32)
        self._shift = np.uint64(65 - size.bit_length())


def _differ(left: Words, right: Words) -> npt.NDArray[np.bool_]:
    """Which rows are not the same; left is overwritten."""
    left ^= right
    rest: Any = left[:, 0]
    for k in range(1, left.shape[1]):
        rest = rest | left[:, k]
    different: npt.NDArray[np.bool_] = rest != 0
    return different
