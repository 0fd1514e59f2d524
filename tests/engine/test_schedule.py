"""What is done again and again beside a stream: when, how far back, and that nothing of it holds anything up."""

import threading
from collections.abc import Callable

import pytest

from sessionize.engine.schedule import LookbackTiers, Scheduler
from sessionize.engine.stream.clocks import SystemClock
from sessionize.retry_pauses import cancelled, pause

HOUR_S, HOUR, DAY = 3_600, 3_600_000, 86_400_000


class FakeClock:
    def __init__(self) -> None:
        self.at_s = 1_000.0

    def monotonic_s(self) -> float:
        return self.at_s


class Bench:
    """A Periodic of one hour, and a record of what it did: (hours since the start, window)."""

    def __init__(self, windows_ms: list[int]) -> None:
        self.clock, self.stopping = FakeClock(), threading.Event()
        self.did: list[tuple[float, int]] = []
        self.errors: list[str] = []
        self.takes_s = 0.0
        self.problem: Exception | None = None
        self.periodic = Scheduler(
            self._work,
            every_s=HOUR_S,
            tiers=LookbackTiers(windows_ms),
            clock=self.clock,
            stopping=self.stopping,
            on_error=lambda error: self.errors.append(str(error)),
        )

    def _work(self, window_ms: int) -> None:
        self.did.append(((self.clock.at_s - 1_000.0) / HOUR_S, window_ms))
        self.clock.at_s += self.takes_s
        if self.problem is not None:
            raise self.problem

    def pass_until(self, hours: float) -> None:
        """Let the clock go on, from one step to the next."""
        end_s = 1_000.0 + hours * HOUR_S
        while self.clock.at_s < end_s:
            self.clock.at_s = min(end_s, self.clock.at_s + self.periodic.step())


def test_the_longest_first_then_the_shortest_and_a_longer_one_when_it_has_passed() -> None:
    bench = Bench([DAY, HOUR])
    bench.pass_until(50.5)
    longest = [hours for hours, window in bench.did if window == DAY]
    assert [hours for hours, _ in bench.did] == list(range(1, 51))
    assert longest == [1, 25, 49]
    assert {window for _, window in bench.did} == {HOUR, DAY}


def test_what_failed_is_done_as_far_back_the_next_time() -> None:
    bench = Bench([HOUR, DAY])
    bench.problem = ValueError("no")
    bench.pass_until(2.5)
    bench.problem = None
    bench.pass_until(4.5)
    assert bench.did == [(1, DAY), (2, DAY), (3, DAY), (4, HOUR)]
    assert bench.errors == ["no", "no"]


def test_work_that_takes_long_leaves_half_of_the_time_to_others() -> None:
    bench = Bench([HOUR])
    bench.takes_s = 3 * HOUR_S
    bench.pass_until(13.5)
    assert [hours for hours, _ in bench.did] == [1, 7, 13]


def test_nothing_begins_once_the_run_is_to_end() -> None:
    bench = Bench([HOUR])
    bench.clock.at_s += HOUR_S
    bench.stopping.set()
    assert bench.periodic.step() == 0
    assert bench.did == []
    assert bench.periodic.ending()


@pytest.mark.parametrize("ends", [lambda bench: None, lambda bench: bench.stopping.set()], ids=["closed", "stopped"])
def test_work_under_way_hears_that_it_is_to_end(ends: Callable[[Bench], None]) -> None:
    began = threading.Event()
    bench = Bench([HOUR])

    def works(window_ms: int) -> None:
        began.set()
        while not bench.periodic.ending():
            threading.Event().wait(0.01)

    # an interval that is over at once
    bench.periodic = Scheduler(
        works,
        every_s=0.0,
        tiers=LookbackTiers([HOUR]),
        clock=bench.clock,
        stopping=bench.stopping,
        on_error=lambda error: bench.errors.append(str(error)),
    )
    bench.periodic.start()
    assert began.wait(60)
    assert not bench.periodic.ending()
    ends(bench)
    assert bench.periodic.close(wait_s=60)
    assert bench.errors == []


def test_work_that_does_not_end_is_left() -> None:
    began, go_on = threading.Event(), threading.Event()
    bench = Bench([HOUR])

    def works(window_ms: int) -> None:
        began.set()
        go_on.wait(60)

    periodic = Scheduler(
        works,
        every_s=0.0,
        tiers=LookbackTiers([HOUR]),
        clock=bench.clock,
        stopping=bench.stopping,
        on_error=lambda error: None,
    )
    periodic.start()
    assert began.wait(60)
    assert not periodic.close(wait_s=0.01)
    go_on.set()
    assert periodic.close(wait_s=60)


def test_a_run_that_fails_ends_the_pauses_of_what_is_under_way() -> None:
    pausing, done = threading.Event(), list[bool]()

    def work(window_ms: int) -> None:
        del window_ms
        pausing.set()
        done.append(pause(3600))
        done.append(cancelled())

    periodic = Scheduler(
        work,
        every_s=0.01,
        tiers=LookbackTiers([HOUR]),
        clock=SystemClock(),
        stopping=threading.Event(),
        on_error=lambda error: None,
    )
    periodic.start()
    assert pausing.wait(60)
    periodic.cancel()
    assert periodic.close(wait_s=60)
    assert done == [False, True]
