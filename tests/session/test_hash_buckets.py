"""Buckets of users are computed for whole columns at once; they must be what murmur3 gives, name by name."""

import mmh3
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize.session.columns import BUCKET_COUNT
from sessionize.session.ids import HASHED_TOGETHER_BYTES_MAX, user_hash_buckets

NAMES = st.lists(st.text(max_size=40) | st.text(min_size=HASHED_TOGETHER_BYTES_MAX, max_size=300), max_size=30)


def by_the_book(names: list[str]) -> list[int]:
    return [(mmh3.hash(name, 0, False) & 0x7FFFFFFF) % BUCKET_COUNT for name in names]


@given(NAMES)
def test_any_names(names: list[str]) -> None:
    assert user_hash_buckets(pa.array(names, pa.string())).to_pylist() == by_the_book(names)


@pytest.mark.parametrize("size", range(20))
def test_every_length(size: int) -> None:
    names = ["äbcdefghijklmnopqrstuvwxyz"[:size], "é" * size, "x" * size]
    for part in (names, names[:1], names[1:]):
        assert user_hash_buckets(pa.array(part)).to_pylist() == by_the_book(part)


def test_a_slice_of_a_column() -> None:
    names = [f"user-{i}" for i in range(100)]
    assert user_hash_buckets(pa.array(names).slice(17, 50)).to_pylist() == by_the_book(names[17:67])


def test_from_the_iceberg_specification() -> None:
    assert user_hash_buckets(pa.array(["iceberg"])).to_pylist() == [1_210_000_089 % BUCKET_COUNT]
