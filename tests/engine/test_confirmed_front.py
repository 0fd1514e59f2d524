"""What moves a partition's front: events that others confirm. The rule in loops (testing/oracle.py) is the truth."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize.engine.lateness import RECORDS_ALONE, ConfirmedFront, MaximumFront, restored_front
from sessionize.engine.watermark_witnesses import FORGOTTEN_AFTER_RECORDS, USERS_MAX
from sessionize.testing.oracle import judged

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
LATENESS_MS = 10 * MINUTE_MS
Rows = list[dict[str, Any]]


def feed(front: ConfirmedFront, rows: Rows, **more: Any) -> list[bool]:
    time = np.array([row["time"] for row in rows], np.int64)
    users = pa.chunked_array([pa.array([row["user"] for row in rows], pa.string())])
    late: list[bool] = front.late(time, users, **more).tolist()
    return late


def steady(count: int, *, users: int = 50, start_ms: int = 0, step_ms: int = 1_000) -> Rows:
    return [{"user": f"u{i % users}", "time": start_ms + i * step_ms} for i in range(count)]


@st.composite
def streams(draw: st.DrawFn) -> Rows:
    """Steady, sparse, disordered, with jumps, and with clocks that are wrong."""
    users = draw(st.integers(1, 80))
    step_ms = draw(st.sampled_from([1, 1_000, 50_000, 700_000]))
    wrong = draw(st.dictionaries(st.integers(0, users), st.sampled_from([-HOUR_MS, HOUR_MS, 23 * HOUR_MS]), max_size=9))
    rows, now = list[dict[str, Any]](), 0
    for user in draw(st.lists(st.integers(0, users), max_size=300)):
        now += draw(st.sampled_from([0, step_ms, step_ms, step_ms, 20 * step_ms]))
        delay = draw(st.integers(0, 700_000)) if draw(st.booleans()) else 0
        rows.append({"user": f"u{user}", "time": now - delay + wrong.get(user, 0)})
    return rows


@given(streams(), st.sampled_from([0, 700, LATENESS_MS]), st.data())
def test_it_is_the_rule_in_loops_however_the_stream_is_cut_and_restored(
    rows: Rows, lateness_ms: int, data: st.DataObject
) -> None:
    front, found, at = ConfirmedFront(lateness_ms), [], 0
    while at < len(rows):
        size = data.draw(st.integers(1, 200), label="batch")
        found += feed(front, rows[at : at + size])
        at += size
        if data.draw(st.booleans(), label="restore"):
            restored = restored_front("confirmed", lateness_ms, front.state())
            assert isinstance(restored, ConfirmedFront)
            front = restored
    on_time, late = judged(rows, lateness_ms)
    assert [row for row, is_late in zip(rows, found, strict=True) if is_late] == late
    assert [row for row, is_late in zip(rows, found, strict=True) if not is_late] == on_time


@given(streams(), st.sampled_from([0, 700, LATENESS_MS]))
def test_nothing_is_late_that_is_not_late_by_the_maximum(rows: Rows, lateness_ms: int) -> None:
    by_maximum = {id(row) for row in judged(rows, lateness_ms, "maximum")[1]}
    assert {id(row) for row in judged(rows, lateness_ms)[1]} <= by_maximum


def test_long_streams_of_few_and_of_many_users_are_the_rule_in_loops() -> None:
    rng = np.random.default_rng(5)
    for users in (1, 2, 70, 5_000):
        time = np.sort(rng.integers(0, 40 * HOUR_MS, 30_000)) - rng.integers(0, LATENESS_MS, 30_000)
        user = rng.zipf(1.3, 30_000) % users
        time += np.where(user % 97 == 3, 5 * HOUR_MS, 0)
        rows = [{"user": f"u{u}", "time": t} for u, t in zip(user.tolist(), time.tolist(), strict=True)]
        front, found = ConfirmedFront(LATENESS_MS), []
        for at in range(0, len(rows), 7_000):
            found += feed(front, rows[at : at + 7_000])
        assert sum(found) == len(judged(rows, LATENESS_MS)[1])


@pytest.mark.parametrize("share", [0.3, 0.99, 0.9999])
@pytest.mark.parametrize("users", [1, 4, 200])
def test_a_busy_user_with_a_wrong_clock_is_judged_by_the_rule_in_loops(users: int, share: float) -> None:
    """Also over stretches so long that all others are forgotten meanwhile."""
    rng = np.random.default_rng(users)
    time = np.arange(25_000) * 100 - rng.integers(0, LATENESS_MS, 25_000)
    wrong = rng.random(25_000) < share
    user = np.where(wrong, users, rng.integers(0, users, 25_000))
    time[wrong] += rng.choice([0, 3, 23], int(wrong.sum()), p=[0.01, 0.01, 0.98]) * HOUR_MS
    rows = [{"user": f"u{u}", "time": t} for u, t in zip(user.tolist(), time.tolist(), strict=True)]
    front, found = ConfirmedFront(LATENESS_MS), []
    for at in range(0, len(rows), 6_000):
        found += feed(front, rows[at : at + 6_000])
    assert [row for row, is_late in zip(rows, found, strict=True) if is_late] == judged(rows, LATENESS_MS)[1]


@pytest.mark.parametrize("place", [0, 1, 2, 700, 1_999])
@pytest.mark.parametrize("ahead_ms", [11 * MINUTE_MS, 23 * HOUR_MS, 365 * 24 * HOUR_MS])
def test_one_wrong_clock_makes_nobody_late(place: int, ahead_ms: int) -> None:
    rows = steady(2_000)
    rows.insert(place, {"user": "fast", "time": rows[place]["time"] + ahead_ms})
    front = ConfirmedFront(LATENESS_MS)
    assert not any(feed(front, rows))
    assert front.latest_ms == max(row["time"] for row in steady(2_000))


def test_one_wrong_clock_moves_nothing_however_often_it_is_heard() -> None:
    rows = [row for pair in zip(steady(2_000), steady(2_000), strict=True) for row in pair]
    for row in rows[1::2]:
        row.update(user="fast", time=row["time"] * 50)  # and it runs too fast
    front = ConfirmedFront(LATENESS_MS)
    assert not any(feed(front, rows))
    assert front.latest_ms is not None
    assert front.latest_ms <= 1_999_000 + LATENESS_MS


def test_a_tenth_of_wrong_clocks_makes_nobody_late() -> None:
    rng = np.random.default_rng(1)
    rows = steady(50_000, users=3_000, step_ms=100)
    for row in rows:
        if int(row["user"][1:]) % 10 == 0:
            row["time"] += int(rng.integers(LATENESS_MS, 23 * HOUR_MS))
    front = ConfirmedFront(LATENESS_MS)
    assert not any(feed(front, rows))
    assert front.latest_ms is not None
    assert front.latest_ms <= 4_999_900 + LATENESS_MS


def test_a_jump_that_others_confirm_counts() -> None:
    night = 8 * HOUR_MS
    front = ConfirmedFront(LATENESS_MS)
    feed(front, steady(500))
    morning = steady(500, start_ms=night)
    at = next(i for i in range(500) if not any(feed(front, [morning[i]])) and front.latest_ms == morning[i]["time"])
    assert at < USERS_MAX
    assert feed(front, [{"user": "u3", "time": 499_000}]) == [True]


def test_events_in_order_are_never_late_whoever_is_ahead_by_less_than_the_lateness() -> None:
    rows = steady(3_000)
    for row in rows[::7]:
        row["time"] += LATENESS_MS
    assert not any(feed(ConfirmedFront(LATENESS_MS), rows))


def test_two_users_are_too_few_until_the_partition_was_silent_for_long() -> None:
    front = ConfirmedFront(LATENESS_MS)
    feed(front, [{"user": "a", "time": 23 * HOUR_MS}, {"user": "b", "time": 0}])
    assert front.latest_ms is None
    front.settle_for_few(waited_ms=60_000)
    assert front.latest_ms == 0  # what both have reached


def test_two_users_are_enough_where_there_are_no_others() -> None:
    front = ConfirmedFront(LATENESS_MS)
    rows = steady(RECORDS_ALONE, users=2)
    feed(front, rows[:-1])
    assert front.latest_ms is None
    feed(front, rows[-1:])
    assert front.latest_ms == rows[-1]["time"]


def test_users_who_went_away_hold_nobody_for_ever() -> None:
    front = ConfirmedFront(LATENESS_MS)
    feed(front, steady(1_000))
    alone = steady(FORGOTTEN_AFTER_RECORDS + 10, users=1, start_ms=50 * HOUR_MS)
    feed(front, alone[: FORGOTTEN_AFTER_RECORDS - 100])
    assert front.latest_ms == 999_000
    feed(front, alone[FORGOTTEN_AFTER_RECORDS - 100 :])
    assert front.latest_ms == alone[-1]["time"]


def test_where_a_partition_is_read_to_its_end_the_clock_confirms_too() -> None:
    """A site with a visitor every quarter of an hour: each event is far ahead of the ones before it."""
    front, apart_ms = ConfirmedFront(LATENESS_MS), 15 * MINUTE_MS
    for i in range(200):
        feed(front, [{"user": f"u{i}", "time": i * apart_ms}], waited_ms=i * apart_ms)
        if i >= 3:
            assert front.latest_ms == i * apart_ms
    feed(front, [{"user": "fast", "time": 300 * apart_ms}], waited_ms=200 * apart_ms)
    assert front.latest_ms == 199 * apart_ms


def test_the_present_bounds_what_is_late() -> None:
    front = ConfirmedFront(LATENESS_MS, latest_ms=5 * HOUR_MS)
    assert feed(front, [{"user": "a", "time": HOUR_MS}], now_ms=HOUR_MS) == [False]
    assert feed(front, [{"user": "a", "time": HOUR_MS}], now_ms=2 * HOUR_MS) == [True]


def test_the_maximum_follows_everybody() -> None:
    rows = steady(100)
    rows[50] = {"user": "fast", "time": 23 * HOUR_MS}
    late = MaximumFront(LATENESS_MS).late(np.array([row["time"] for row in rows]))
    assert late.tolist() == [i > 50 for i in range(100)]


def test_the_end_is_that_of_all_who_are_not_far_apart() -> None:
    front = ConfirmedFront(LATENESS_MS)
    feed(front, [*steady(500), {"user": "a", "time": 499_000 + HOUR_MS}, {"user": "b", "time": 499_000 + 9 * HOUR_MS}])
    assert front.latest_ms == 499_000
    assert [front.end_ms(silence) for silence in (MINUTE_MS, HOUR_MS, 8 * HOUR_MS)] == [
        499_000,
        499_000 + HOUR_MS,
        499_000 + 9 * HOUR_MS,
    ]
