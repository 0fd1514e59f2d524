"""Reads sizes from a Parquet footer without pyarrow, which crashes the process if they are damaged.

A footer is one struct in Thrift's compact protocol (parquet.thrift, FileMetaData). Only the path to the sizes is
parsed; everything else is skipped.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

_MAGIC = b"PAR1"
_TAIL_BYTES = 8  # the length of the footer, and the magic
_COLUMNS_MAX = 1_000  # skipping more of them takes longer than it may save
_VARINT_BYTES_MAX = 10
# Types of the protocol, and the numbers of fields in parquet.thrift.
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_ROW_GROUPS, _COLUMNS, _META_DATA, _NUM_VALUES, _UNCOMPRESSED_BYTES = 4, 1, 3, 5, 6


@dataclass(frozen=True, slots=True)
class ChunkSize:
    """One column of a row group: its number of values, and their bytes before compression."""

    num_values: int
    uncompressed_bytes: int


def first_chunk_sizes(path: str, places: frozenset[int], column_count: int) -> list[ChunkSize]:
    """The sizes of the columns at these indexes in the first row group; [] if the footer cannot be parsed.

    Errors: OSError if the file cannot be read.
    """
    if not places or column_count > _COLUMNS_MAX:
        return []
    with open(path, "rb") as file:
        size_bytes = file.seek(0, os.SEEK_END)
        file.seek(max(0, size_bytes - _TAIL_BYTES))
        tail = file.read(_TAIL_BYTES)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != _MAGIC or length > size_bytes - _TAIL_BYTES:
            return []
        file.seek(size_bytes - _TAIL_BYTES - length)
        data = file.read(length)
    try:
        return _Thrift(data).first_chunk_sizes(places)
    except (IndexError, ValueError, RecursionError):
        return []


class _Thrift:
    """Reads a struct from its beginning. Errors: IndexError, ValueError for invalid bytes."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def first_chunk_sizes(self, places: frozenset[int]) -> list[ChunkSize]:
        for field, kind in self._fields():
            if (field, kind) == (_ROW_GROUPS, _LIST):
                return self._row_group(places) if self._list_of(_STRUCT) else []
            self._skip(kind)
        return []

    def _row_group(self, places: frozenset[int]) -> list[ChunkSize]:
        sizes: list[ChunkSize] = []
        for field, kind in self._fields():
            if (field, kind) != (_COLUMNS, _LIST):
                self._skip(kind)
                continue
            for place in range(self._list_of(_STRUCT)):
                if place in places:
                    sizes.append(self._chunk())
                else:
                    self._skip(_STRUCT)
        return sizes

    def _chunk(self) -> ChunkSize:
        numbers = {_NUM_VALUES: 0, _UNCOMPRESSED_BYTES: 0}
        for field, kind in self._fields():
            if (field, kind) != (_META_DATA, _STRUCT):
                self._skip(kind)
                continue
            for inner, inner_kind in self._fields():
                if inner in numbers and inner_kind == _I64:
                    numbers[inner] = self._zigzag()
                else:
                    self._skip(inner_kind)
        return ChunkSize(numbers[_NUM_VALUES], numbers[_UNCOMPRESSED_BYTES])

    def _fields(self) -> Iterator[tuple[int, int]]:
        """(number, type) of each field; the caller reads its value before the next one."""
        number = 0
        while (head := self._byte()) != 0:
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            yield number, head & 15

    def _list_of(self, wanted: int) -> int:
        count, kind = self._list_head()
        if kind != wanted:
            raise ValueError(f"elements of type {kind}")
        return count

    def _list_head(self) -> tuple[int, int]:
        head = self._byte()
        count = head >> 4
        if count == 15:  # the number itself follows
            count = self._varint()
        if count > len(self._data):
            raise ValueError("more elements than bytes")
        return count, head & 15

    def _skip(self, kind: int) -> None:
        if kind in (_TRUE, _FALSE):
            return
        if kind in (_BYTE, _DOUBLE):
            self._pass(1 if kind == _BYTE else 8)
        elif kind in (_I16, _I32, _I64):
            self._varint()
        elif kind == _BINARY:
            self._pass(self._varint())
        elif kind in (_LIST, _SET):
            count, inner = self._list_head()
            for _ in range(count):
                self._skip_element(inner)
        elif kind == _STRUCT:
            for _, inner in self._fields():
                self._skip(inner)
        else:
            raise ValueError(f"type {kind}")

    def _skip_element(self, kind: int) -> None:
        """Skip an element of a list, where a boolean takes one byte."""
        self._skip(_BYTE if kind in (_TRUE, _FALSE) else kind)

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _pass(self, count: int) -> None:
        self._at += count
        if self._at > len(self._data):
            raise IndexError("beyond the end")

    def _varint(self) -> int:
        value = shift = 0
        for _ in range(_VARINT_BYTES_MAX):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise ValueError("a number without an end")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
