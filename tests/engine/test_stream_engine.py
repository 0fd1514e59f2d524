"""The local engine: however the stream is cut, whatever is away, the tables are those of one quiet run."""

import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessionize import Policy, Rules
from sessionize.engine.run_events import EpochCommitted, ServerRecovered, ServerUnavailable
from sessionize.engine.run_events.reports import EpochReport
from sessionize.engine.stream.engine import LocalEngine
from sessionize.engine.stream.options import StreamOptions
from sessionize.errors import InputError, OutputError, UnavailableError
from sessionize.session import columns as col
from sessionize.testing.observers import RecordedEvents
from sessionize.testing.strategies import policies, rules
from sessionize.testing.streams import InMemoryEpochSink, InMemoryStreamSource
from tests.engine.stream_runs import BROKEN, VISITS, Crash, check, dealt, engine, run, sessions_of, some_events


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    some_events,
    policies(),
    rules(),
    st.integers(1, 16),
    st.sampled_from([0, 40, 1000]),
    st.integers(0, 9),
    st.sampled_from(["confirmed", "maximum"]),
)
def test_the_sessions_of_the_on_time_events(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, Any]],
    policy: Policy,
    rule: Rules,
    partitions: int,
    lateness: int,
    cut: int,
    watermark: Any,
) -> None:
    folder = tmp_path_factory.mktemp("state")
    parts, sink = dealt(rows, partitions), InMemoryEpochSink()
    options = StreamOptions(epoch_rows_max=15, poll_s=0, once=True, watermark=watermark)
    made = run(
        lambda: engine(
            folder,
            InMemoryStreamSource(parts, cut=cut),
            {"kept": sink},
            policy=policy,
            rule=rule,
            lateness=lateness,
            options=options,
        )
    )
    check(sink, made, parts, policy, rule, lateness, watermark)
    assert sink.repeated == 0


def test_nothing_new_makes_no_epoch(tmp_path: Path) -> None:
    sink, reports = InMemoryEpochSink(), list[EpochReport]()
    for _ in range(2):
        run(lambda: engine(tmp_path, InMemoryStreamSource([VISITS]), {"kept": sink}, on_epoch=reports.append))
    assert len(reports) == len(sink.epochs)
    assert sum(report.consumed for report in reports) == 200


def test_after_draining_whatever_could_have_changed_a_session_is_late(tmp_path: Path) -> None:
    sink = InMemoryEpochSink()
    run(lambda: engine(tmp_path, InMemoryStreamSource([VISITS]), {"kept": sink}))
    last = VISITS[-1]["time"]
    more = [{"user": "u0", "time": last + Policy().gap_ms}, {"user": "u0", "time": last + Policy().gap_ms + 1}]
    run(lambda: engine(tmp_path, InMemoryStreamSource([VISITS + more]), {"kept": sink}))
    assert [row["event_time_ms"] for table in sink.rows("late_events") for row in table.to_pylist()] == [
        more[0]["time"]
    ]
    new = [row for row in sessions_of(sink) if row["session_start_time_ms"] > last]
    assert [(row["user"], row["event_count"]) for row in new] == [("u0", 1)]


def test_an_outage_of_a_sink_delays_and_nothing_else(tmp_path: Path) -> None:
    sink = InMemoryEpochSink(fail=[UnavailableError("the store is away")] * 3)
    events = RecordedEvents()
    made = run(lambda: engine(tmp_path, InMemoryStreamSource([VISITS]), {"kept": sink}, observer=events))
    check(sink, made, [VISITS], Policy(), Rules(), 0)
    unavailable = ServerUnavailable(server="kept", problem="the store is away")
    assert [event for event in events if isinstance(event, ServerUnavailable | ServerRecovered)] == [
        unavailable, unavailable, unavailable, ServerRecovered(server="kept"),
    ]  # fmt: skip


def test_a_permanent_error_ends_the_run_and_the_next_one_repeats_the_epoch(tmp_path: Path) -> None:
    other, sink = InMemoryEpochSink(), InMemoryEpochSink(fail=[OutputError("the table is of another kind")])
    with pytest.raises(OutputError, match="another kind"):
        run(lambda: engine(tmp_path, InMemoryStreamSource([VISITS]), {"other": other, "kept": sink}))
    made = run(lambda: engine(tmp_path, InMemoryStreamSource([VISITS], cut=5), {"other": other, "kept": sink}))
    for one in (other, sink):
        check(one, made, [VISITS], Policy(), Rules(), 0)
    assert other.repeated == 1


def test_a_long_outage_ends_the_run_and_says_what_becomes_of_the_epoch(tmp_path: Path) -> None:
    sink = InMemoryEpochSink(fail=[UnavailableError("away")] * 50)
    options = StreamOptions(epoch_rows_max=15, poll_s=0, once=True, retry_timeout_s=0)
    with pytest.raises(UnavailableError) as caught:
        run(lambda: engine(tmp_path, InMemoryStreamSource([VISITS]), {"kept": sink}, options=options))
    assert any("repeats it" in note for note in caught.value.__notes__)


def test_stopping_commits_what_was_read(tmp_path: Path) -> None:
    sink, stopping = InMemoryEpochSink(), threading.Event()
    options = StreamOptions(epoch_rows_max=15, poll_s=0)
    made = run(
        lambda: engine(
            tmp_path,
            InMemoryStreamSource([VISITS]),
            {"kept": sink},
            options=options,
            stopping=stopping,
            on_epoch=lambda report: stopping.set() if report.epoch == 3 else None,
        )
    )
    assert sink.count("events") == made.accounting.consumed < 200
    again = run(lambda: engine(tmp_path, InMemoryStreamSource([VISITS]), {"kept": sink}))
    check(sink, again, [VISITS], Policy(), Rules(), 0)


def test_silence_ends_sessions_by_the_clock(tmp_path: Path) -> None:
    class Clock:
        def __init__(self) -> None:
            self.s = 0.0

        def now_ms(self) -> int:
            return 1_700_000_000_000

        def monotonic_s(self) -> float:
            self.s += 1.0
            return self.s

    sink, stopping = InMemoryEpochSink(), threading.Event()
    made = run(
        lambda: engine(
            tmp_path,
            InMemoryStreamSource([VISITS]),
            {"kept": sink},
            options=StreamOptions(epoch_s=100, poll_s=1, idle_after_s=50),
            stopping=stopping,
            clock=Clock(),
            on_epoch=lambda report: stopping.set() if report.sessions else None,
        )
    )
    assert sink.count("user_sessions") == 7
    assert made.accounting.pending == 0
    ended = {row["end_reason"] for row in sessions_of(sink)}
    assert ended == {"inactivity"}


class Away(InMemoryStreamSource):
    """Away at first, while time goes by; told: what each poll takes for the present, by a clock of a minute a look."""

    def __init__(self) -> None:
        super().__init__([VISITS])
        self.told: list[int] = []
        self.minutes = 0

    def now_ms(self) -> int:
        self.minutes += 1
        return self.minutes * 60_000

    def monotonic_s(self) -> float:
        return 0.0

    def poll(self, **options: Any) -> Any:
        self.told.append(options["now_ms"])
        if len(self.told) <= 3:
            raise UnavailableError("the source is away")
        return super().poll(**options)


def test_what_comes_after_an_outage_is_judged_by_the_present(tmp_path: Path) -> None:
    source = Away()
    run(lambda: engine(tmp_path, source, {"kept": InMemoryEpochSink()}, clock=source))
    assert source.told[:4] == sorted(set(source.told[:4]))


class Gone(InMemoryStreamSource):
    """What comes after the first records is gone for good."""

    has_read = False

    def poll(self, **options: Any) -> Any:
        if self.has_read:
            raise InputError("records are gone")
        batches = super().poll(**options)
        self.has_read = bool(batches)
        return batches


def test_an_error_ends_the_run_at_once_though_a_server_is_away(tmp_path: Path) -> None:
    made = engine(
        tmp_path,
        Gone([VISITS]),
        {"away": InMemoryEpochSink(fail=[UnavailableError("the store is away")] * 10_000)},
        options=StreamOptions(epoch_rows_max=1, poll_s=0, retry_timeout_s=3_600),
    )
    with pytest.raises(InputError, match="records are gone") as caught:
        made.run()
    made.close()
    assert caught.value.__notes__ == ["and the epoch before was not written: the store is away"]


def test_the_books_hold_in_every_epoch(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [*VISITS[:50], BROKEN, VISITS[49], *VISITS[50:], VISITS[0], BROKEN]
    reports, sink = list[EpochReport](), InMemoryEpochSink()
    run(lambda: engine(tmp_path, InMemoryStreamSource([rows]), {"kept": sink}, on_epoch=reports.append))
    assert all(EpochCommitted(report).fields()["balanced"] for report in reports)
    last = reports[-1].accounting
    assert (last.consumed, last.rejected, last.duplicate, last.late) == (204, 2, 1, 1)
    assert EpochCommitted(reports[-1]).fields()["accounting"]["settled"] == 200


def test_empty_epoch_tables_have_their_columns(tmp_path: Path) -> None:
    sink = InMemoryEpochSink()
    run(lambda: engine(tmp_path, InMemoryStreamSource([[BROKEN]]), {"kept": sink}))
    (_, rows), *_ = sink.epochs
    assert rows.tables["user_sessions"].schema == col.SessionColumns().schema()
    assert rows.tables["events"].column_names[:2] == [col.USER, col.EVENT_TIME]
    assert isinstance(rows.tables["late_events"], pa.Table)


def visits_of(users: range, count: int, *, start_ms: int = 0) -> list[dict[str, Any]]:
    return [{"user": f"u{users[i % len(users)]}", "time": start_ms + i * 1000} for i in range(count)]


def test_one_wrong_clock_costs_its_own_event_only(tmp_path: Path) -> None:
    """In two partitions, of which the healthy one falls silent while the other has the far event."""
    ahead_ms = 23 * 3_600_000
    one, other = visits_of(range(5), 1_000), visits_of(range(5, 10), 1_000)
    one.insert(10, {"user": "fast", "time": ahead_ms})
    sink = InMemoryEpochSink()
    run(lambda: engine(tmp_path, InMemoryStreamSource([one, other]), {"kept": sink}, lateness=600_000))
    late = {row["user"] for table in sink.rows("late_events") for row in table.to_pylist()}
    assert late == set()
    further = visits_of(range(10), 100, start_ms=1_000_000 + Policy().gap_ms)
    made = run(
        lambda: engine(
            tmp_path, InMemoryStreamSource([one + further, other + further]), {"kept": sink}, lateness=600_000
        )
    )
    assert (made.accounting.late, made.accounting.settled) == (0, 2_201)


def test_the_maximum_can_be_chosen_and_follows_the_wrong_clock(tmp_path: Path) -> None:
    one = visits_of(range(5), 100)
    one.insert(10, {"user": "fast", "time": 23 * 3_600_000})
    options = StreamOptions(epoch_rows_max=15, poll_s=0, once=True, watermark="maximum")
    made = run(
        lambda: engine(
            tmp_path, InMemoryStreamSource([one]), {"kept": InMemoryEpochSink()}, lateness=600_000, options=options
        )
    )
    assert made.accounting.late == 90


def test_an_epoch_that_is_mostly_late_is_reported_as_such(tmp_path: Path) -> None:
    reports = list[EpochReport]()
    rows = visits_of(range(5), 15, start_ms=10_000_000) + visits_of(range(5), 200)
    options = StreamOptions(epoch_rows_max=40, poll_s=0, once=True)
    run(
        lambda: engine(
            tmp_path,
            InMemoryStreamSource([rows], cut=1),
            {"kept": InMemoryEpochSink()},
            options=options,
            on_epoch=reports.append,
        )
    )
    assert [report.mostly_late for report in reports] == [2 * report.late > report.consumed for report in reports]
    assert sum(report.mostly_late for report in reports) >= 4


def test_a_repeated_epoch_is_judged_by_the_silence_it_was_planned_with(tmp_path: Path) -> None:
    """Each visit is far ahead of those before it, and only the time spent waiting for it confirms it."""

    class Waiting(InMemoryStreamSource):
        """A visit each time that somebody has waited for long."""

        def poll(self, *, timeout_s: float, now_ms: int) -> Any:
            clock.s += 1.0
            self.waited += 1
            return super().poll(timeout_s=timeout_s, now_ms=now_ms) if self.waited % 900 == 0 else []

        waited = 0

        def caught_up(self) -> frozenset[str]:
            return self.partitions()

    class Clock:
        s = 0.0

        def now_ms(self) -> int:
            return 1_700_000_000_000

        def monotonic_s(self) -> float:
            return self.s

    clock = Clock()
    rows = [{"user": f"u{i}", "time": i * 900_000} for i in range(40)]
    rows[20] = {"user": "u20", "time": 90_000_000}
    sinks = {"kept": InMemoryEpochSink()}
    options = StreamOptions(epoch_rows_max=1, poll_s=1, epoch_s=1e9, idle_after_s=1e9)

    def made(crash_at: str | None, reports: list[EpochReport]) -> LocalEngine:
        stopping = threading.Event()

        def step(name: str) -> None:
            if name == crash_at and len(sinks["kept"].epochs) == 15:
                raise Crash(name)

        def epoch(report: EpochReport) -> None:
            reports.append(report)
            if report.epoch == 40:
                stopping.set()

        return engine(
            tmp_path / str(crash_at),
            Waiting([rows], piece_min=1, piece_max=1),
            sinks,
            lateness=60_000,
            options=options,
            clock=clock,
            stopping=stopping,
            on_step=step,
            on_epoch=epoch,
        )

    whole, parts = list[EpochReport](), list[EpochReport]()
    run(lambda: made(None, whole))
    sinks["kept"] = InMemoryEpochSink()
    crashing = made("planned", parts)
    with pytest.raises(Crash):
        crashing.run()
    crashing.close()
    run(lambda: made("planned", parts))
    marks = [(report.epoch, report.watermark_ms, report.late) for report in whole]
    assert [(report.epoch, report.watermark_ms, report.late) for report in parts] == marks
    assert marks[-1][1] == 39 * 900_000 - 60_000
