"""An order-independent checksum of rows, which proves that rewritten files hold the same rows as the old ones.

Each value of each column becomes a 64-bit number, a row the mix of its values, a table the sum of its rows. Repeated
rows count each time. Null has its own number.
"""

from dataclasses import dataclass
from typing import Any

import mmh3
import numpy as np
import pyarrow as pa

from sessionize.arrow import one_chunk

Array = np.ndarray[Any, Any]

_NULL = np.uint64(0x9E3779B97F4A7C15)
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Checksum:
    """rows: their count; total: the sum of their numbers modulo 2**64; mixed: the same with another mix."""

    rows: int = 0
    total: int = 0
    mixed: int = 0

    def __add__(self, other: "Checksum") -> "Checksum":
        return Checksum(self.rows + other.rows, (self.total + other.total) & _MASK, (self.mixed + other.mixed) & _MASK)


def checksum(rows: pa.Table) -> Checksum:
    """The checksum over all columns by name; the order of columns does not matter."""
    numbers = np.zeros(rows.num_rows, np.uint64)
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        seed = np.uint64(mmh3.hash64(name.encode(), signed=False)[0])
        numbers += _mixed(_numbers(one_chunk(column)) ^ seed)
    numbers = _mixed(numbers)
    return Checksum(rows.num_rows, _sum(numbers), _sum(_mixed(numbers ^ _NULL)))


def _numbers(values: pa.Array) -> Array:
    """uint64[n]: a number for each value; equal values of one type have equal numbers."""
    type_ = values.type
    if pa.types.is_dictionary(type_):
        numbers = _of_coded(values)
    elif pa.types.is_boolean(type_):
        numbers = _mixed(values.cast(pa.int8()).fill_null(0).to_numpy().astype(np.uint64))
    elif pa.types.is_struct(type_):
        numbers = np.zeros(len(values), np.uint64)
        for i in range(type_.num_fields):
            numbers = _mixed(numbers + _numbers(values.field(i)))
    elif pa.types.is_map(type_) or pa.types.is_list(type_) or pa.types.is_large_list(type_):
        numbers = _of_lists(values)
    elif pa.types.is_primitive(type_):
        numbers = _mixed(_bits(values))
    else:
        numbers = _of_coded(values.dictionary_encode())
    if values.null_count:
        numbers[values.is_null().to_numpy(zero_copy_only=False)] = _NULL
    return numbers


def _bits(values: pa.Array) -> Array:
    """The values' bits as unsigned numbers; undefined for null."""
    width = values.type.bit_width // 8
    raw = np.frombuffer(values.buffers()[1], np.dtype(f"u{width}"), len(values), values.offset * width)
    return raw.astype(np.uint64)


def _of_coded(values: pa.DictionaryArray) -> Array:
    """The numbers of dictionary values; each distinct text is hashed once."""
    texts = values.dictionary.to_pylist()
    hashed = (mmh3.hash64(t if isinstance(t, (bytes, str)) else repr(t), signed=False)[0] for t in texts)
    numbers = np.fromiter(hashed, np.uint64, len(texts))
    if not len(texts):
        return np.zeros(len(values), np.uint64)
    return np.asarray(numbers[values.indices.fill_null(0).to_numpy()], np.uint64)


def _of_lists(values: pa.Array) -> Array:
    """The numbers of lists: from the length and each item's number and position."""
    offsets = values.offsets.to_numpy().astype(np.int64)
    first, last = int(offsets[0]), int(offsets[-1])
    if pa.types.is_map(values.type):
        items = _mixed(_numbers(values.keys[first:last])) + _numbers(values.items[first:last])
    else:
        items = _numbers(values.values[first:last])
    starts, lengths = offsets[:-1] - first, np.diff(offsets)
    places = np.arange(last - first, dtype=np.uint64) - np.repeat(starts, lengths).astype(np.uint64)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_mixed(items + _mixed(places)), dtype=np.uint64)])
    return _mixed((sums[offsets[1:] - first] - sums[starts]) ^ lengths.astype(np.uint64))


def _mixed(numbers: Array) -> Array:
    """The finaliser of splitmix64: every bit of the result depends on every bit of the number."""
    numbers = numbers + _NULL
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(numbers ^ (numbers >> np.uint64(31)), np.uint64)


def _sum(numbers: Array) -> int:
    return int(np.sum(numbers, dtype=np.uint64))
