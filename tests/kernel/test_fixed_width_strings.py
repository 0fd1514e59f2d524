"""Strings that take the same number of words, and their places, against a dict."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize.kernel import fixed_width_strings as fixed_names
from sessionize.kernel.fixed_width_strings import WORDS_MAX, FixedWidthStrings, words_of

# few different characters, so that strings come again; of one and of two bytes, and zero, which is also the padding
LETTERS = "ab\0é"
COLLIDING = np.zeros(WORDS_MAX, np.uint64)  # every string begins its search in the same field


def placed(names: FixedWidthStrings, columns: list[list[str]]) -> list[list[int]]:
    return [names.encode(pa.array(column, pa.string())).tolist() for column in columns]


def held(names: FixedWidthStrings) -> list[str]:
    found: list[str] = names.strings(np.arange(len(names), dtype=np.int32)).to_pylist()
    return found


@st.composite
def fitting(draw: st.DrawFn) -> tuple[int, st.SearchStrategy[str]]:
    """A number of words, and strings of as many."""
    words = draw(st.integers(1, 3))
    least, most = 8 * words - 8, 8 * words - 1
    size = st.integers(least, most) if draw(st.booleans()) else st.just(draw(st.integers(least, most)))
    text = st.builds(lambda s, n: (s.encode() * n)[:n].decode("utf-8", "ignore"), st.text(LETTERS, min_size=1), size)
    return words, text.filter(lambda s: least <= len(s.encode()))


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, list[list[str]]]:
    words, text = draw(fitting())
    return words, draw(st.lists(st.lists(text, min_size=1, max_size=30), min_size=1, max_size=5))


@pytest.mark.parametrize("keys", [None, COLLIDING])
@given(case=cases())
def test_places_are_given_in_the_order_of_arrival(keys: np.ndarray | None, case: tuple[int, list[list[str]]]) -> None:
    words, parts = case
    names = FixedWidthStrings(words) if keys is None else FixedWidthStrings(words, keys)
    known: dict[str, int] = {}
    expected = [[known.setdefault(text, len(known)) for text in part] for part in parts]
    assert placed(names, parts) == expected
    assert held(names) == list(known)
    assert placed(names, parts) == expected


@pytest.mark.parametrize("keys", [None, COLLIDING])
@given(case=cases(), kept=st.lists(st.integers(0, 150), unique=True))
def test_only_what_is_kept_is_found(
    keys: np.ndarray | None, case: tuple[int, list[list[str]]], kept: list[int]
) -> None:
    words, parts = case
    names = FixedWidthStrings(words) if keys is None else FixedWidthStrings(words, keys)
    placed(names, parts)
    before = held(names)
    chosen = [place for place in kept if place < len(before)]
    fewer = names.keeping(np.array(chosen, np.int32))
    assert held(fewer) == [before[place] for place in chosen]
    found = fewer.find(pa.array(before, pa.string())).tolist()
    assert found == [chosen.index(place) if place in chosen else -1 for place in range(len(before))]
    assert len(fewer) == len(chosen)  # asking adds nothing
    assert sorted(fewer.encode(pa.array(before, pa.string())).tolist()) == list(range(len(before)))


def test_many_strings_over_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixed_names, "BLOCK_ROWS", 1000)
    texts = [f"{n * 7919 % 30_011:09d}" for n in range(50_000)]
    names = FixedWidthStrings(2)
    places = names.encode(pa.array(texts))
    assert len(names) == 30_011
    assert names.strings(places).to_pylist() == texts
    assert names.find(pa.array(texts)).tolist() == places.tolist()


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_some_rows_of_a_slice_of_a_column(kind: pa.DataType) -> None:
    names = FixedWidthStrings(1)
    whole = pa.array(["abc", "defg", "abc", "", "ghi", "a string of more words", "x"], kind).slice(1)
    assert names.encode(whole, np.array([0, 1, 2, 3, 5])).tolist() == [0, 1, 2, 3, 4]
    assert held(names) == ["defg", "abc", "", "ghi", "x"]
    assert names.find(whole, np.array([1, 3])).tolist() == [1, 3]


def test_strings_that_are_no_text() -> None:
    """What looks like the end of a shorter string is not taken for it."""
    binary = pa.array([b"a", b"a\x80", b"a\x80\0", b"a\0", b"\x80" * 7, b"\x80" * 6, b""])
    names = FixedWidthStrings(1)
    assert names.encode(binary.view(pa.string())).tolist() == list(range(7))
    assert names.strings(np.arange(7, dtype=np.int32)).view(pa.large_binary()).to_pylist() == binary.to_pylist()


def test_words_of_a_string() -> None:
    sizes = np.array([0, 7, 8, 15, 16, 36, 64])
    assert words_of(sizes).tolist() == [1, 1, 2, 2, 3, 5, 9]
