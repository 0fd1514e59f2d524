"""Strings of one length and their codes, against a dict."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize.kernel import fixed_names
from sessionize.kernel.fixed_names import FixedNames

# few different characters, so that strings come again; of one and of two bytes, and zero, which is also the padding
LETTERS = "ab\0é"


def coded(names: FixedNames, columns: list[list[str]]) -> list[list[int]]:
    return [names.encode(pa.array(column, pa.string())).tolist() for column in columns]


@st.composite
def columns(draw: st.DrawFn) -> tuple[int, list[list[str]]]:
    size = draw(st.integers(1, 20))
    text = st.text(LETTERS, min_size=1, max_size=size).map(
        lambda s: (s.encode() * size)[:size].decode("utf-8", "ignore")
    )
    fitting = text.filter(lambda s: len(s.encode()) == size)
    return size, draw(st.lists(st.lists(fitting, min_size=1, max_size=30), min_size=1, max_size=5))


@pytest.mark.parametrize("collide", [False, True])
@given(case=columns())
def test_codes_name_the_strings_they_were_given_for(collide: bool, case: tuple[int, list[list[str]]]) -> None:
    size, parts = case
    names = FixedNames(size)
    if collide:
        names._keys = np.zeros_like(names._keys)  # every string begins its search at the same place
    found = coded(names, parts)
    held = names.names().to_pylist()
    assert [[held[code] for code in codes] for codes in found] == parts
    assert sorted(held) == sorted({text for part in parts for text in part})
    assert coded(names, parts) == found


def test_many_strings_over_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixed_names, "BLOCK_ROWS", 1000)
    texts = [f"{n * 7919 % 30_011:09d}" for n in range(50_000)]
    names = FixedNames(9)
    codes = names.encode(pa.array(texts))
    assert len(names) == 30_011
    assert names.names().take(pa.array(codes)).to_pylist() == texts


def test_a_slice_of_a_column() -> None:
    names = FixedNames(3)
    whole = pa.array(["abc", "def", "abc", "ghi"])
    assert names.encode(whole.slice(1, 3)).tolist() == [0, 1, 2]
    assert names.names().to_pylist() == ["def", "abc", "ghi"]


def test_full_before_its_names_are_more_than_an_array_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixed_names, "_TEXT_BYTES_MAX", 40)
    names = FixedNames(10)
    names.encode(pa.array(["0123456789", "1234567890"]))
    assert not names.is_full
    names.encode(pa.array(["2345678901"]))
    assert names.is_full
