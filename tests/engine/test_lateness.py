"""WatermarkTracker: the minimum of what active partitions allow, the clock when all are idle, and never backwards."""

from typing import Any

import pyarrow as pa
import pytest

from sessionize.engine.stream.watermarks import WatermarkTracker
from sessionize.session import columns as col

ALL = frozenset({"0", "1"})
NONE: frozenset[str] = frozenset()
LONG_AGO_MS = 1_700_000_000_000  # the present of these tests, long after their events


def marks(floor_ms: int | None = None, **more: Any) -> WatermarkTracker:
    return WatermarkTracker(10, idle_after_s=60, floor_ms=floor_ms, **{"rule": "maximum", **more})


def feed(w: WatermarkTracker, partition: str, *times: int, now_ms: int = LONG_AGO_MS) -> list[bool]:
    events = pa.table({col.USER: ["a"] * len(times), col.EVENT_TIME: pa.array(times, pa.int64())})
    late: list[bool] = w.late(partition, events, now_ms=now_ms).tolist()
    return late


def target(
    w: WatermarkTracker, at_end: frozenset[str], *, ended: bool = False, now_ms: int = LONG_AGO_MS
) -> int | None:
    return w.target_ms(ALL, at_end, now_ms=now_ms, ended=ended)


class Polls:
    """Polls of half a second each."""

    def __init__(self, w: WatermarkTracker) -> None:
        self._w, self._at_s = w, 0.0
        w.polled(NONE, at_s=0.0, wait_s=0.5)

    def silent(self, at_end: frozenset[str], seconds: float) -> None:
        for _ in range(round(seconds * 2)):
            self._at_s += 0.5
            self._w.polled(at_end, at_s=self._at_s, wait_s=0.5)

    def paused(self, seconds: float) -> None:
        """The process did not run, in the middle of a poll."""
        self._at_s += seconds


def test_the_slowest_partition_decides() -> None:
    w = marks()
    feed(w, "0", 100)
    assert target(w, NONE) is None  # nothing is known of the other one
    feed(w, "1", 50)
    assert target(w, NONE) == 40


def test_a_partition_is_measured_by_itself() -> None:
    w = marks()
    assert feed(w, "0", 100, 90, 89) == [False, False, True]
    assert feed(w, "1", 5) == [False]


def test_a_partition_not_read_to_its_end_holds_the_others_however_long_it_is_silent() -> None:
    w = marks()
    feed(w, "0", 100)
    feed(w, "1", 50)
    Polls(w).silent(frozenset({"0"}), 10_000)
    assert target(w, frozenset({"0"})) == 40


@pytest.mark.parametrize(("seconds", "expected"), [(59.5, 40), (60.0, 90)])
def test_a_silent_partition_that_is_read_to_its_end_holds_nobody(seconds: float, expected: int) -> None:
    w = marks()
    feed(w, "1", 50)
    Polls(w).silent(frozenset({"1"}), seconds)
    feed(w, "0", 100)
    assert target(w, frozenset({"1"})) == expected


def test_an_empty_partition_is_waited_for_as_long_as_any_other() -> None:
    w = marks()
    polls = Polls(w)
    feed(w, "0", 100)
    assert target(w, frozenset({"1"})) is None
    polls.silent(frozenset({"1"}), 60)
    feed(w, "0", 101)
    assert target(w, frozenset({"1"})) == 91


def test_when_all_are_silent_time_goes_on_with_the_clock() -> None:
    w = marks()
    polls = Polls(w)
    feed(w, "0", 100)
    polls.silent(ALL, 5)
    feed(w, "1", 50)
    polls.silent(ALL, 60)
    assert target(w, ALL) == 90 + 60_000


def test_events_that_move_nothing_do_not_keep_the_sessions_of_others_open() -> None:
    w = marks()
    polls = Polls(w)
    feed(w, "0", 100_000)
    for _ in range(60):
        feed(w, "0", 5)
        polls.silent(ALL, 1)
    assert target(w, ALL) == 100_000 - 10 + 60_000


def test_a_pause_of_the_process_is_no_silence_of_the_partitions() -> None:
    w = marks()
    polls = Polls(w)
    feed(w, "0", 100)
    feed(w, "1", 3_600_000)
    polls.silent(ALL, 10)
    polls.paused(86_400)
    polls.silent(ALL, 10)
    assert target(w, ALL) == 90
    polls.silent(ALL, 60)
    assert target(w, ALL) is not None


def test_an_input_that_does_not_answer_is_not_silent() -> None:
    w = marks()
    feed(w, "0", 100)
    feed(w, "1", 50)
    for at_s in range(0, 1_000, 10):
        w.polled(ALL, at_s=at_s, wait_s=10)
        w.interrupted()
    assert target(w, ALL) == 40


def test_what_is_below_the_floor_is_late_though_its_partition_is_not_that_far() -> None:
    w = marks(floor_ms=70)
    assert feed(w, "1", 69, 70) == [True, False]


def test_the_watermark_never_goes_back() -> None:
    w = marks(floor_ms=95)
    feed(w, "0", 100)
    feed(w, "1", 96)
    assert target(w, NONE) == 95


def test_a_bounded_input_is_over_where_it_is_read_to_its_end() -> None:
    w = marks()
    feed(w, "0", 100)
    feed(w, "1", 50)
    assert target(w, frozenset({"1"}), ended=True) == 90
    Polls(w).silent(ALL, 1_000)
    assert target(w, ALL, ended=True) == 90  # and the clock adds nothing to it


def test_neither_front_nor_watermark_passes_the_present() -> None:
    w = marks()
    assert feed(w, "0", 1_000, 5_000, 1_195, 1_189, now_ms=1_200) == [False, False, False, True]
    feed(w, "1", 5_000, now_ms=1_200)
    assert target(w, NONE, now_ms=1_200) == 1_190
    assert target(w, NONE, now_ms=1_300) == 1_290
    without = marks(follows_clock=False)
    assert feed(without, "0", 1_000, 5_000, 1_195, now_ms=1_200) == [False, False, True]


@pytest.mark.parametrize("rule", ["maximum", "confirmed"])
def test_it_goes_on_where_it_was(rule: str) -> None:
    w = marks(rule=rule)
    feed(w, "0", 100)
    Polls(w).silent(ALL, 60)
    w.settle_idle(ALL, ALL, ended=False)
    again = marks(rule=rule, fronts=w.state())
    assert feed(again, "0", 89, 90) == [True, False]
    assert again.state()["1"]["waited_ms"] == 60_000


@pytest.mark.parametrize("rule", ["maximum", "confirmed"])
def test_a_checkpoint_of_before_has_the_fronts_alone(rule: str) -> None:
    again = marks(rule=rule, fronts={"0": 100})
    assert feed(again, "0", 89, 90) == [True, False]
