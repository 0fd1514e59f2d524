"""Revenue beyond 64 bits: exact for every order and every cut, and no user's sum stops another's session."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize import Policy, Sessionizer
from sessionize.kernel.changes import merge_changes
from sessionize.kernel.sums import HIGH_BITS, MICROS, revenue, sums
from sessionize.session.limits import VALUE_MAX

NO_LIMIT = Policy(gap_ms=10**9, max_duration_ms=None)
LARGEST = int(VALUE_MAX) * MICROS
HALF = 1 << (HIGH_BITS - 1)

amounts = st.one_of(st.integers(-LARGEST, LARGEST), st.sampled_from([-LARGEST, LARGEST, 0, 1, -1]))
lows = st.one_of(st.integers(-HALF, HALF - 1), st.sampled_from([-HALF, HALF - 1, 0]))
highs = st.one_of(st.just(0), st.integers(-(2**40), 2**40))
sessions = st.lists(st.tuples(lows, highs, st.lists(amounts, max_size=5)), min_size=1, max_size=6)


def purchases(user: str, values: Any, *, at_ms: int = 0) -> pa.Table:
    n = len(values)
    return pa.table(
        {
            "user": pa.repeat(user, n),
            "event_time_ms": pa.array(np.arange(at_ms, at_ms + n)),
            "event_type": pa.repeat("purchase", n),
            "value": pa.array(values, pa.float64()),
        }
    )


def nearest(total: int) -> float:
    """The double next to a sum of millionths."""
    return total / MICROS


def revenues(sessions: pa.Table) -> dict[str, float]:
    return dict(zip(sessions["user"].to_pylist(), sessions["revenue"].to_pylist(), strict=True))


@given(sessions)
def test_sums_are_those_of_whole_numbers(rows: list[tuple[int, int, list[int]]]):
    """Whatever was carried into a session: its first row brings the low part, and the high part comes beside it."""
    parts = [[low, *added] for low, _, added in rows]
    first = np.cumsum([0, *(len(part) for part in parts[:-1])])
    low, high = sums(
        np.array([n for part in parts for n in part], np.int64),
        first,
        np.array([carried for _, carried, _ in rows], np.int64) if any(carried for _, carried, _ in rows) else None,
    )
    exact = [sum(part) + (carried << HIGH_BITS) for part, (_, carried, _) in zip(parts, rows, strict=True)]
    assert [(h << HIGH_BITS) + n for n, h in zip(low.tolist(), high.tolist(), strict=True)] == exact
    assert all(-HALF <= n < HALF for n in low.tolist())
    assert revenue(low, high).tolist() == [nearest(total) for total in exact]


def test_many_of_the_largest_amounts_in_one_session():
    """64 bits hold 9,223 of them; a million and more stay exact, in one batch as well."""
    n = 1_200_000
    low, high = sums(np.full(n, LARGEST, np.int64), np.zeros(1, np.int64), None)
    assert (int(high[0]) << HIGH_BITS) + int(low[0]) == n * LARGEST


@pytest.mark.parametrize("value", [VALUE_MAX, -VALUE_MAX])
@pytest.mark.parametrize("count", [2_305, 2_306, 9_100, 9_223, 9_224, 30_001])
def test_one_users_revenue_never_stops_the_others(value: float, count: int):
    core = Sessionizer(NO_LIMIT)
    core.push(pa.concat_tables([purchases("whale", [value] * count), purchases("anna", [0.1, 0.2])]))
    assert revenues(core.live("whale")) == {"whale": value * count}
    assert revenues(core.flush()) == {"whale": value * count, "anna": 0.3}


@given(
    st.lists(st.tuples(st.sampled_from([1e9, -1e9, 999_999_999.999999, 0.000001]), st.integers(1, 12_000)), max_size=6),
    st.lists(st.integers(0, 40_000), max_size=3),
    st.sampled_from(["snapshot", "changes"]),
)
def test_every_cut_and_restart_gives_the_exact_sum(runs: list[tuple[float, int]], cuts: list[int], way: str):
    """Sums that leave 64 bits on the way and come back, too."""
    values = np.repeat([value for value, _ in runs], [count for _, count in runs])
    total = sum(round(value * MICROS) * count for value, count in runs)
    core = Sessionizer(NO_LIMIT, track_changes=True)
    parts, at = [core.changes()], 0
    for cut in [*sorted(cut % (len(values) + 1) for cut in cuts), len(values)]:
        core.push(purchases("whale", values[at:cut], at_ms=at))
        core.push(purchases("anna", [0.1], at_ms=at))
        core.advance(cut)
        at = cut
        if way == "snapshot":
            core = Sessionizer.restore(core.snapshot(), NO_LIMIT, track_changes=True)
        else:
            parts.append(core.changes())
            whole = merge_changes(parts, whole=True)
            core = Sessionizer.restore_tables(whole.header, whole.tables, NO_LIMIT, track_changes=True)
    once = Sessionizer(NO_LIMIT)
    once.push(purchases("whale", values[::-1]))
    made = revenues(core.flush())
    assert revenues(once.flush()).get("whale") == made.get("whale")
    if len(values):
        assert made["whale"] == nearest(total)


def test_a_state_without_large_sums_is_what_it_was_before_there_were_any():
    """Checkpoints of earlier versions, which have no column for them, are opened; and new ones look the same."""
    core = Sessionizer(NO_LIMIT, track_changes=True)
    core.push(purchases("anna", [0.1, 0.2]))
    core.advance(10)
    before = core.changes()
    assert "amount_high" not in before.users.column_names
    core.push(purchases("whale", [1e9] * 10_000, at_ms=10))
    core.advance(10_010)
    after = core.changes()
    assert "amount_high" in after.users.column_names
    whole = merge_changes([before, after], whole=True)
    restored = Sessionizer.restore_tables(whole.header, whole.tables, NO_LIMIT)
    assert revenues(restored.flush()) == {"anna": 0.3, "whale": 1e13}
    restored = Sessionizer.restore(core.snapshot(), NO_LIMIT)
    assert revenues(restored.flush()) == {"anna": 0.3, "whale": 1e13}


def test_a_sum_that_an_earlier_version_kept_in_one_number_goes_on():
    """It was refused from 9e18 millionths on, and below that kept whole."""
    core = Sessionizer(NO_LIMIT, track_changes=True)
    core.push(purchases("whale", [1e9]))
    core.advance(1)
    changes = core.changes()
    at = changes.users.schema.get_field_index("amount")
    users = changes.users.set_column(at, "amount", pa.array([8_999 * LARGEST], pa.int64()))
    restored = Sessionizer.restore_tables(changes.header, {"users": users, "pending": changes.pending}, NO_LIMIT)
    assert revenues(restored.live("whale")) == {"whale": 8.999e12}
    restored.push(purchases("whale", [1e9] * 1_001, at_ms=1))
    assert revenues(restored.advance(2)) == {}
    assert revenues(restored.flush()) == {"whale": 1e13}
