"""How large rows are when they are written out, and pieces of them."""

import random
from typing import Any

import pyarrow as pa
import pytest

from sessionize.formats.sizes import decoded_bytes, decoded_sizes, in_pieces

TEXTS = ["a", "bb", None, "é" * 10, "", "x" * 100]


def text_bytes(value: Any) -> int:
    """Of all texts and bytes in a value."""
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(map(text_bytes, value.values()))
    return sum(map(text_bytes, value)) if isinstance(value, list | tuple) else 0


LISTS = [TEXTS[n:] for n in range(6)]
COLUMNS = {
    "text": pa.array(TEXTS),
    "large": pa.array(TEXTS, pa.large_string()),
    "coded": pa.array(TEXTS).dictionary_encode(),
    "bytes": pa.array([None if t is None else t.encode() for t in TEXTS]),
    "list": pa.array(LISTS),
    "coded list": pa.array(LISTS, pa.list_(pa.dictionary(pa.int32(), pa.string()))),
    "map": pa.array([[(f"k{n}", n) for n in range(size)] for size in range(6)], pa.map_(pa.string(), pa.int64())),
    "struct": pa.array([{"x": t, "y": t} for t in TEXTS]),
    "null list": pa.array([None, [], ["a"], None, ["b", None], []], pa.list_(pa.string())),
    "whole": pa.array([1, None, 3, 4, 5, 6]),
    "null": pa.nulls(6),
    "truth": pa.array([True] * 6),
}


@pytest.mark.parametrize("column", COLUMNS.values(), ids=COLUMNS)
@pytest.mark.parametrize("part", [slice(0, 6), slice(2, 5), slice(5, 6), slice(3, 3)])
def test_sizes_are_those_of_the_text_and_little_more(column: pa.Array, part: slice):
    table = pa.table({"c": pa.chunked_array([column, column])}).slice(part.start, part.stop - part.start)
    sizes = decoded_sizes(table).tolist()
    texts = [text_bytes(value) for value in table["c"].to_pylist()]
    assert len(sizes) == len(texts)
    assert all(text <= size <= text + 100 for size, text in zip(sizes, texts, strict=True)), (sizes, texts)


def test_pieces_are_no_larger_than_asked_unless_a_row_is():
    pages = pa.array(["x" * 1_000, "y", "z" * 5_000])
    codes = random.Random(1).choices(range(3), k=500)
    rows = pa.table({"n": range(500), "page": pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pages)})
    pieces = list(in_pieces(rows, bytes_max=4_000, rows_max=100))
    assert pa.concat_tables(pieces).equals(rows)
    assert all(piece.num_rows == 1 or decoded_sizes(piece).sum() <= 4_000 + 5_000 for piece in pieces)
    assert max(piece.num_rows for piece in pieces) <= 100
    assert decoded_bytes(rows) > 500_000
    assert [piece.num_rows for piece in in_pieces(rows)] == [500]
    assert list(in_pieces(rows.slice(0, 0))) == []
