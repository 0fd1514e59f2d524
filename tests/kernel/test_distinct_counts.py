"""The tally of open sessions against plain dictionaries, with merging and rewriting at every turn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize.kernel import distinct_counts as tally
from sessionize.kernel.distinct_counts import Codes, DistinctCounts, stable_order

SLOTS = 6
RUN = st.lists(st.tuples(st.integers(0, 4), st.sampled_from([1, 1, 2, 65_535, 65_536, 200_000])), max_size=8)
STEP = st.tuples(st.dictionaries(st.integers(0, SLOTS - 1), RUN, min_size=1), st.sets(st.integers(0, SLOTS - 1)))


def codes(runs: list[list[tuple[int, int]]]) -> Codes:
    owner = np.repeat(np.arange(len(runs)), [len(run) for run in runs])
    flat = [row for run in runs for row in run]
    return Codes(owner, np.array([c for c, _ in flat], np.int32), np.array([n for _, n in flat], np.int64))


@given(st.lists(STEP, max_size=8))
def test_against_dictionaries(steps: list[tuple[dict[int, list[tuple[int, int]]], set[int]]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("RUNS_MAX", 2), ("GARBAGE_ROWS_MIN", 3), ("MERGED_ROWS_MIN", 2), ("NARROW_ROWS_MAX", 9)):
            patch.setattr(tally, name, value)
        held = DistinctCounts()
        expected: list[dict[int, int]] = [{} for _ in range(SLOTS)]
        held.reserve(SLOTS)
        for runs, dropped in steps:
            slots = np.array(list(runs), np.int32)
            held.append(slots, codes(list(runs.values())))
            for slot, run in runs.items():
                for code, count in run:
                    expected[slot][code] = expected[slot].get(code, 0) + count
            if dropped:
                held.drop(np.array(sorted(dropped), np.int32))
            for slot in dropped:
                expected[slot] = {}
            found = held.take(np.arange(SLOTS, dtype=np.int32)[::-1])
            for owner in range(SLOTS):
                mine = found.owner == owner
                rows = list(zip(found.code[mine].tolist(), found.count[mine].tolist(), strict=True))
                assert rows == list(expected[SLOTS - 1 - owner].items())
            in_use = {code for counts in expected for code in counts}
            assert set(np.flatnonzero(held.codes_in_use(5)).tolist()) == in_use


def test_a_session_that_never_ends_stays_small() -> None:
    held = DistinctCounts()
    held.reserve(1)
    slot = np.zeros(1, np.int32)
    for _ in range(200):
        n = 50_000
        held.append(slot, Codes(np.zeros(n, np.int64), np.arange(n, dtype=np.int32) % 3, np.ones(n, np.int64)))
    assert held.take(slot).count.sum() == 200 * 50_000
    assert held._rows <= 2 * tally.GARBAGE_ROWS_MIN


@given(st.lists(st.integers(0, 5) | st.integers(0, 1 << 62), max_size=30))
def test_stable_order(keys: list[int]) -> None:
    assert stable_order(np.array(keys, np.int64)).tolist() == sorted(range(len(keys)), key=keys.__getitem__)
