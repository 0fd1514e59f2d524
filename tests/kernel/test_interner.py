"""The interner against a dictionary, whatever the strings are, however they come, and where every hash is the same."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize.kernel import interner
from sessionize.kernel.interner import Interner
from sessionize.kernel.string_table import HASHED_WORDS_MAX, text_hashes

KEYS = 2 * HASHED_WORDS_MAX + 1
LONG = 8 * HASHED_WORDS_MAX
WORDS = (
    st.text(st.sampled_from("aé\0"), max_size=4) | st.text(max_size=20) | st.text(min_size=LONG - 1, max_size=LONG + 9)
)
ONE_LENGTH = st.integers(0, 60).map("{:036d}".format)
COLUMNS = st.lists(st.none() | WORDS, max_size=30) | st.lists(ONE_LENGTH, max_size=30)
BATCHES = st.lists(
    st.tuples(COLUMNS, st.sets(st.integers(0, 40)), st.sampled_from(["", "release", "compact"])), max_size=6
)


def colliding() -> Interner:
    """Every string has the hash 0."""
    return Interner(keys=np.zeros(KEYS, np.uint64))


def few() -> Interner:
    return Interner(few=True)


def few_colliding() -> Interner:
    return Interner(few=True, keys=np.zeros(KEYS, np.uint64))


MAKERS = [Interner, colliding, few, few_colliding]


def text(codes: npt.NDArray[np.integer], strings: Interner) -> list[str | None]:
    found: list[str | None] = strings.values(codes).to_pylist()
    return found


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interner, "DEAD_NAMES_MIN", 2)


@pytest.mark.parametrize("dictionary_names", [0, 1 << 14])
@pytest.mark.parametrize("make", MAKERS)
@given(batches=BATCHES)
def test_against_a_dictionary(
    make: Callable[[], Interner], dictionary_names: int, batches: list[tuple[list[str | None], set[int], str]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interner, "DICTIONARY_NAMES_MAX", dictionary_names)
        strings, known = make(), dict[str, int]()
        for column, some, action in batches:
            codes = strings.encode(pa.array(column, pa.string()))
            assert codes.dtype == np.int32
            for word, code in zip(column, codes.tolist(), strict=True):
                assert (code == -1) == (word is None)
                if word is not None:
                    assert known.setdefault(word, code) == code
            chosen = [word for word, code in known.items() if code in some]
            if action == "release":
                strings.release(np.array([known.pop(word) for word in chosen], np.int32))
            if action == "compact":
                in_use = np.zeros(len(strings), bool)
                in_use[[known[word] for word in chosen]] = True
                table = strings.compact(in_use)
                assert table[-1] == -1
                assert sorted(table[table >= 0]) == list(range(len(chosen)))
                known = {word: int(table[known[word]]) for word in chosen}
            assert len(set(known.values())) == len(known) == strings.used
            assert max(known.values(), default=-1) < len(strings)
            held = np.array([-1, *known.values()], np.int32)
            assert text(held, strings) == [None, *known]
            assert all(strings.find(word) == code for word, code in known.items())
            assert strings.find("never seen") is None


@pytest.mark.parametrize("make", MAKERS)
def test_strings_of_every_length_and_one_of_a_megabyte(make: Callable[[], Interner]) -> None:
    words = ["x" * n for n in range(200)] + ["x" * 1_000_000, "x" * 999_999 + "y", "ü" * 70]
    strings = make()
    strings.encode(pa.array(["first"]))
    codes = strings.encode(pa.array(words))
    assert len(set(codes.tolist())) == len(words)
    assert strings.encode(pa.array(words[::-1])).tolist() == codes[::-1].tolist()
    assert text(codes, strings) == words


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_every_kind_of_column(kind: pa.DataType) -> None:
    words = ["b", "", "a", None, "b", "ä"]
    column = pa.chunked_array([pa.array(words[:2]).cast(kind), pa.array(["zzz", *words[2:]]).slice(1).cast(kind)])
    strings = Interner()
    for again in range(3):
        codes = strings.encode(column if again else pa.array(["a", "c"]))
        if again:
            assert text(codes, strings) == words
            assert codes.tolist() == strings.encode(column).tolist()
    assert strings.used == 5


def test_the_same_new_string_many_times() -> None:
    strings = Interner()
    strings.encode(pa.array([f"u{i}" for i in range(100)]))
    codes = strings.encode(pa.array(["new", "u5", "new", "other", "new"]))
    assert codes.tolist() == [100, 5, 100, 101, 100]


@given(batches=BATCHES)
def test_codes_do_not_depend_on_the_hash(batches: list[tuple[list[str | None], set[int], str]]) -> None:
    one, other = Interner(), colliding()
    for column, some, action in batches:
        codes = one.encode(pa.array(column, pa.string()))
        assert codes.tolist() == other.encode(pa.array(column, pa.string())).tolist()
        if action == "release":
            for strings in (one, other):
                strings.release(np.array([code for code in some if code < len(strings)], np.int32))


@pytest.mark.parametrize("times", [1, 10])
def test_released_strings_leave_nothing_behind(times: int) -> None:
    """Short ones and long ones."""
    strings = Interner()
    for day in range(50):
        codes = strings.encode(pa.array([f"user-{day}-{i}" * times for i in range(1_000)]))
        assert text(codes[:1], strings) == [f"user-{day}-0" * times]
        strings.release(codes[: None if day % 2 else 900])
        if day % 2 == 0:
            strings.release(strings.encode(pa.array([f"user-{day}-{i}" * times for i in range(900, 1_000)])))
    assert strings.used == 0
    assert len(strings) <= 2_000
    assert strings.size_bytes < 3 * 1_000 * 24 * times + (interner.DEAD_BYTES_MIN if times > 1 else 0)


def test_names_handed_out_stay_as_they_are() -> None:
    strings = Interner()
    strings.encode(pa.array(["a"]))
    codes = strings.encode(pa.array(["b", "c"]))
    before = strings.values(codes)
    strings.release(codes)
    strings.encode(pa.array([f"other {i}" for i in range(10_000)]))
    assert before.to_pylist() == ["b", "c"]


def test_the_first_dictionary_is_taken_over_as_it_is() -> None:
    strings = Interner()
    codes = strings.encode(pa.array(["b", "a", "b"]).dictionary_encode())
    assert codes.tolist() == [0, 1, 0]
    assert strings.size_bytes == 0  # nothing was hashed or copied
    assert strings.values(codes).dictionary.to_pylist() == ["b", "a"]


def test_a_hash_is_of_the_bytes_alone() -> None:
    words = [
        "",
        "a",
        "b",
        "\0",
        "\0\0",
        "a\0",
        "abcdefg",
        "abcdefgh",
        "abcdefgh\0",
        "abcdefghi",
        "x" * LONG,
        "x" * LONG + "y",
    ]
    alone = [int(text_hashes(pa.array([word], pa.large_string()))[0]) for word in words]
    assert len(set(alone)) == len(words)
    together = pa.array(["before", *words, "behind"], pa.large_string())
    assert text_hashes(together)[1:-1].tolist() == alone
    assert text_hashes(together.slice(1, len(words))).tolist() == alone
    assert text_hashes(pa.array(["abcdefghi"] * 3, pa.large_string())).tolist() == [alone[9]] * 3


def test_every_bit_changes_a_hash() -> None:
    base = bytes(LONG)
    flipped = [base[:i] + bytes([1 << bit]) + base[i + 1 :] for i in range(LONG) for bit in range(7)]
    hashes = text_hashes(pa.array([base, *flipped], pa.large_binary()).view(pa.large_string()))
    assert hashes[0] not in hashes[1:]
