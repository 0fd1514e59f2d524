"""Watermarks: the least of what the active partitions allow, the clock when all are silent, and never backwards."""

import numpy as np
import pytest

from sessionize.engine.lateness import Watermarks

ALL = frozenset({"0", "1"})
NONE: frozenset[str] = frozenset()


def marks(floor_ms: int | None = None) -> Watermarks:
    return Watermarks(10, idle_after_s=60, floor_ms=floor_ms, latest_ms={})


def feed(w: Watermarks, partition: str, *times: int, at_s: float = 0.0) -> list[bool]:
    late: list[bool] = w.late(partition, np.array(times, np.int64), at_s=at_s).tolist()
    return late


def test_the_slowest_partition_decides() -> None:
    w = marks()
    feed(w, "0", 100)
    assert w.target_ms(ALL, NONE, at_s=0, ended=False) is None  # nothing is known of the other one
    feed(w, "1", 50)
    assert w.target_ms(ALL, NONE, at_s=0, ended=False) == 40


def test_a_partition_is_measured_by_itself() -> None:
    w = marks()
    assert feed(w, "0", 100, 90, 89) == [False, False, True]
    assert feed(w, "1", 5) == [False]


def test_a_partition_not_read_to_its_end_holds_the_others_however_long_it_is_silent() -> None:
    w = marks()
    feed(w, "0", 100)
    feed(w, "1", 50)
    assert w.target_ms(ALL, frozenset({"0"}), at_s=1e6, ended=False) == 40


@pytest.mark.parametrize(("at_s", "expected"), [(59.9, 40), (60.0, 90)])
def test_a_silent_partition_that_is_read_to_its_end_holds_nobody(at_s: float, expected: int) -> None:
    w = marks()
    feed(w, "1", 50, at_s=0)
    feed(w, "0", 100, at_s=at_s)
    assert w.target_ms(ALL, frozenset({"1"}), at_s=at_s, ended=False) == expected


def test_an_empty_partition_is_waited_for_as_long_as_any_other() -> None:
    w = marks()
    feed(w, "0", 100)
    assert w.target_ms(ALL, frozenset({"1"}), at_s=0, ended=False) is None
    feed(w, "0", 101, at_s=60)
    assert w.target_ms(ALL, frozenset({"1"}), at_s=60, ended=False) == 91


def test_when_all_are_silent_time_goes_on_with_the_clock() -> None:
    w = marks()
    feed(w, "0", 100, at_s=0)
    feed(w, "1", 50, at_s=5)
    assert w.target_ms(ALL, ALL, at_s=65, ended=False) == 90 + 60_000


def test_what_is_below_the_floor_is_late_though_its_partition_is_not_that_far() -> None:
    w = marks(floor_ms=70)
    assert feed(w, "1", 69, 70) == [True, False]


def test_the_watermark_never_goes_back() -> None:
    w = marks(floor_ms=95)
    feed(w, "0", 100)
    feed(w, "1", 96)
    assert w.target_ms(ALL, NONE, at_s=0, ended=False) == 95


def test_a_bounded_input_is_over_where_it_is_read_to_its_end() -> None:
    w = marks()
    feed(w, "0", 100)
    feed(w, "1", 50)
    assert w.target_ms(ALL, frozenset({"1"}), at_s=0, ended=True) == 90
    assert w.target_ms(ALL, ALL, at_s=1e6, ended=True) == 90  # and the clock adds nothing to it


def test_it_goes_on_where_it_was() -> None:
    w = marks()
    feed(w, "0", 100)
    again = Watermarks(10, idle_after_s=60, floor_ms=None, latest_ms=w.latest_ms)
    assert feed(again, "0", 89, 90) == [True, False]
