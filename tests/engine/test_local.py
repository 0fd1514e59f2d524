"""The local engine: however the stream is cut, whatever is away, the tables are those of one quiet run."""

import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessionize import Policy, Rules
from sessionize.engine.status import EpochReport
from sessionize.engine.stream_options import Tempo
from sessionize.errors import InputError, OutputError, UnavailableError
from sessionize.session import columns as col
from sessionize.testing.strategies import policies, rules
from sessionize.testing.streams import KeptEpochs, RecordedStream
from tests.engine.local_runs import BROKEN, VISITS, check, dealt, engine, run, sessions_of, some_events


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some_events, policies(), rules(), st.integers(1, 16), st.sampled_from([0, 40, 1000]), st.integers(0, 9))
def test_the_sessions_of_the_on_time_events(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, Any]],
    policy: Policy,
    rule: Rules,
    partitions: int,
    lateness: int,
    cut: int,
) -> None:
    folder = tmp_path_factory.mktemp("state")
    parts, sink = dealt(rows, partitions), KeptEpochs()
    made = run(
        lambda: engine(
            folder, RecordedStream(parts, cut=cut), {"kept": sink}, policy=policy, rule=rule, lateness=lateness
        )
    )
    check(sink, made, parts, policy, rule, lateness)
    assert sink.repeated == 0


def test_nothing_new_makes_no_epoch(tmp_path: Path) -> None:
    sink, reports = KeptEpochs(), list[EpochReport]()
    for _ in range(2):
        run(lambda: engine(tmp_path, RecordedStream([VISITS]), {"kept": sink}, on_epoch=reports.append))
    assert len(reports) == len(sink.epochs)
    assert sum(report.consumed for report in reports) == 200


def test_after_draining_whatever_could_have_changed_a_session_is_late(tmp_path: Path) -> None:
    sink = KeptEpochs()
    run(lambda: engine(tmp_path, RecordedStream([VISITS]), {"kept": sink}))
    last = VISITS[-1]["time"]
    more = [{"user": "u0", "time": last + Policy().gap_ms}, {"user": "u0", "time": last + Policy().gap_ms + 1}]
    run(lambda: engine(tmp_path, RecordedStream([VISITS + more]), {"kept": sink}))
    assert [row["event_time_ms"] for table in sink.rows("late") for row in table.to_pylist()] == [more[0]["time"]]
    new = [row for row in sessions_of(sink) if row["session_start_time_ms"] > last]
    assert [(row["user"], row["event_count"]) for row in new] == [("u0", 1)]


def test_an_outage_of_a_sink_delays_and_nothing_else(tmp_path: Path) -> None:
    sink = KeptEpochs(fail=[UnavailableError("the store is away")] * 3)
    told = list[dict[str, str]]()
    made = run(
        lambda: engine(tmp_path, RecordedStream([VISITS]), {"kept": sink}, on_status=lambda s: told.append(s.away))
    )
    check(sink, made, [VISITS], Policy(), Rules(), 0)
    assert {"kept": "the store is away"} in told
    assert told[-1] == {}


def test_a_permanent_error_ends_the_run_and_the_next_one_repeats_the_epoch(tmp_path: Path) -> None:
    other, sink = KeptEpochs(), KeptEpochs(fail=[OutputError("the table is of another kind")])
    with pytest.raises(OutputError, match="another kind"):
        run(lambda: engine(tmp_path, RecordedStream([VISITS]), {"other": other, "kept": sink}))
    made = run(lambda: engine(tmp_path, RecordedStream([VISITS], cut=5), {"other": other, "kept": sink}))
    for one in (other, sink):
        check(one, made, [VISITS], Policy(), Rules(), 0)
    assert other.repeated == 1


def test_a_long_outage_ends_the_run_and_says_what_becomes_of_the_epoch(tmp_path: Path) -> None:
    sink = KeptEpochs(fail=[UnavailableError("away")] * 50)
    tempo = Tempo(epoch_rows_max=15, poll_s=0, once=True, outage_s_max=0)
    with pytest.raises(UnavailableError) as caught:
        run(lambda: engine(tmp_path, RecordedStream([VISITS]), {"kept": sink}, tempo=tempo))
    assert any("repeats it" in note for note in caught.value.__notes__)


def test_stopping_commits_what_was_read(tmp_path: Path) -> None:
    sink, stopping = KeptEpochs(), threading.Event()
    tempo = Tempo(epoch_rows_max=15, poll_s=0)
    made = run(
        lambda: engine(
            tmp_path,
            RecordedStream([VISITS]),
            {"kept": sink},
            tempo=tempo,
            stopping=stopping,
            on_epoch=lambda report: stopping.set() if report.epoch == 3 else None,
        )
    )
    assert sink.count("events") == made.totals.consumed < 200
    again = run(lambda: engine(tmp_path, RecordedStream([VISITS]), {"kept": sink}))
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

    sink, stopping = KeptEpochs(), threading.Event()
    made = run(
        lambda: engine(
            tmp_path,
            RecordedStream([VISITS]),
            {"kept": sink},
            tempo=Tempo(epoch_s=100, poll_s=0, idle_after_s=50),
            stopping=stopping,
            clock=Clock(),
            on_epoch=lambda report: stopping.set() if report.sessions else None,
        )
    )
    assert sink.count("sessions") == 7
    assert made.totals.pending == 0
    ended = {row["end_reason"] for row in sessions_of(sink)}
    assert ended == {"inactivity"}


class Away(RecordedStream):
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
    run(lambda: engine(tmp_path, source, {"kept": KeptEpochs()}, clock=source))
    assert source.told[:4] == sorted(set(source.told[:4]))


class Gone(RecordedStream):
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
        {"away": KeptEpochs(fail=[UnavailableError("the store is away")] * 10_000)},
        tempo=Tempo(epoch_rows_max=1, poll_s=0, outage_s_max=3_600),
    )
    with pytest.raises(InputError, match="records are gone") as caught:
        made.run()
    made.close()
    assert caught.value.__notes__ == ["and the epoch before was not written: the store is away"]


def test_the_books_hold_in_every_epoch(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [*VISITS[:50], BROKEN, VISITS[49], *VISITS[50:], VISITS[0], BROKEN]
    reports, sink = list[EpochReport](), KeptEpochs()
    run(lambda: engine(tmp_path, RecordedStream([rows]), {"kept": sink}, on_epoch=reports.append))
    assert all(report.as_log()["balanced"] for report in reports)
    last = reports[-1].totals
    assert (last.consumed, last.rejected, last.duplicate, last.late) == (204, 2, 1, 1)
    assert reports[-1].as_log()["totals"]["settled"] == 200


def test_empty_epoch_tables_have_their_columns(tmp_path: Path) -> None:
    sink = KeptEpochs()
    run(lambda: engine(tmp_path, RecordedStream([[BROKEN]]), {"kept": sink}))
    (_, rows), *_ = sink.epochs
    assert rows.sessions.schema == col.SessionColumns().schema()
    assert rows.events.column_names[:2] == [col.USER, col.EVENT_TIME]
    assert isinstance(rows.late, pa.Table)
