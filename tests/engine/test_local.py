"""The local engine: however the stream is cut, wherever it crashes, the tables are those of one uninterrupted run."""

import io
import json
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessionize import Policy, Rules
from sessionize.app.logs import StreamLog
from sessionize.engine.batch import Job
from sessionize.engine.checkpoint import DELTAS_MAX, Checkpoints
from sessionize.engine.local import LocalEngine, Tempo
from sessionize.engine.status import EpochReport
from sessionize.errors import InputError, OutputError, StateError, UnavailableError
from sessionize.ports import EpochSink, StreamSource
from sessionize.session import columns as col
from sessionize.testing.comparison import expected_sessions, sorted_rows
from sessionize.testing.strategies import events, policies, rules
from sessionize.testing.streams import KeptEpochs, RecordedStream

BROKEN: dict[str, Any] = {"broken": True}


class Crash(BaseException):
    """The process is gone."""


class Steps:
    """Crashes at the n-th step; counts them."""

    def __init__(self, crash_at: int | None = None) -> None:
        self.crash_at, self.seen = crash_at, list[str]()

    def __call__(self, step: str) -> None:
        self.seen.append(step)
        if len(self.seen) == self.crash_at:
            raise Crash(step)


def engine(
    folder: Path,
    source: StreamSource,
    sinks: dict[str, EpochSink],
    *,
    policy: Policy | None = None,
    rule: Rules | None = None,
    lateness: int = 0,
    tempo: Tempo | None = None,
    deltas_max: int = DELTAS_MAX,
    **more: Any,
) -> LocalEngine:
    return LocalEngine(
        source,
        sinks,
        Job(policy=policy or Policy(), rules=rule or Rules()),
        Checkpoints(folder, writer="w", deltas_max=deltas_max),
        lateness_ms=lateness,
        tempo=tempo or Tempo(epoch_rows_max=15, poll_s=0, once=True),
        writer="w",
        **more,
    )


def run(make: Callable[[], LocalEngine], *, crashes: bool = False) -> LocalEngine:
    """Run to the end; with crashes, start again as often as it takes."""
    while True:
        made = make()
        try:
            made.run()
            return made
        except Crash:
            assert crashes
        finally:
            made.close()


def on_time(partitions: list[list[dict[str, Any]]], lateness: int) -> tuple[list[dict[str, Any]], int]:
    """Rule 8 for each partition, one record after the other; and how many records are late."""
    kept, late = [], 0
    for rows in partitions:
        latest: int | None = None
        for row in (r for r in rows if "user" in r):
            if latest is None or row["time"] >= latest - lateness:
                kept.append(row)
            else:
                late += 1
            latest = row["time"] if latest is None else max(latest, row["time"])
    return kept, late


def dealt(rows: list[dict[str, Any]], partitions: int) -> list[list[dict[str, Any]]]:
    """By user, as a producer with keys does."""
    return [[r for r in rows if crc32(str(r.get("user")).encode()) % partitions == p] for p in range(partitions)]


def sessions_of(sink: KeptEpochs) -> list[dict[str, Any]]:
    rows = [dict(row) for table in sink.rows("sessions") for row in sorted_rows(table)]
    return sorted(rows, key=order)


def order(row: Any) -> tuple[Any, ...]:
    return (row["user"], row["session_start_time_ms"], row["session_end_time_ms"], row["session_id"])


def check(sink: KeptEpochs, made: LocalEngine, partitions: Any, policy: Policy, rule: Rules, lateness: int) -> None:
    kept, late = on_time(partitions, lateness)
    end = max((r["time"] for r in kept), default=0)
    assert sessions_of(sink) == sorted(expected_sessions(kept, policy, rule, end_ms=end), key=order)
    assert (sink.count("events"), sink.count("late")) == (len(kept), late)
    assert sink.count("rejected") == sum("user" not in row for rows in partitions for row in rows)
    assert made.totals.balanced
    assert made.totals.consumed == sum(map(len, partitions))
    assert (made.totals.pending, made.totals.late) == (0, late)
    assert made.totals.sessions == sink.count("sessions")


def with_broken(rows: list[dict[str, Any]], places: list[int]) -> list[dict[str, Any]]:
    mixed = list(rows)
    for place in places:
        mixed.insert(place, BROKEN)
    return mixed


some_events = st.builds(with_broken, events(), st.lists(st.integers(0, 60), max_size=5))


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


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some_events, policies(), rules(), st.integers(1, 4), st.sampled_from([0, 40, 1000]), st.integers(0, 10**6))
def test_crashes_at_any_step_change_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, Any]],
    policy: Policy,
    rule: Rules,
    partitions: int,
    lateness: int,
    seed: int,
) -> None:
    folder, chance = tmp_path_factory.mktemp("state"), random.Random(seed)
    parts, first, second = dealt(rows, partitions), KeptEpochs(), KeptEpochs()

    def make() -> LocalEngine:
        return engine(
            folder,
            RecordedStream(parts, cut=chance.randint(0, 9)),
            {"first": first, "second": second},
            policy=policy,
            rule=rule,
            lateness=lateness,
            on_step=Steps(chance.randint(1, 25)),
        )

    made = run(make, crashes=True)
    for sink in (first, second):
        check(sink, made, parts, policy, rule, lateness)


VISITS = [{"user": f"u{i % 7}", "time": i * 1000, "id": str(i)} for i in range(200)]


def test_every_named_step_can_be_the_last_one(tmp_path: Path) -> None:
    steps = Steps()
    run(lambda: engine(tmp_path / "whole", RecordedStream([VISITS]), {"kept": KeptEpochs()}, on_step=steps))
    assert set(steps.seen) == {"recover", "plan", "planned", "write kept", "commit", "committed"}
    for at in range(1, len(steps.seen) + 1):
        sink, todo = KeptEpochs(), [at]

        def make(at: int = at, sink: KeptEpochs = sink, todo: list[int] = todo) -> LocalEngine:
            crash = Steps(todo.pop() if todo else None)
            return engine(tmp_path / str(at), RecordedStream([VISITS]), {"kept": sink}, on_step=crash)

        made = run(make, crashes=True)
        check(sink, made, [VISITS], Policy(), Rules(), 0)


def half_way(folder: Path, sink: KeptEpochs, crash_at: str) -> None:
    """Three epochs, and a crash in the fourth before a step."""
    seen = list[str]()

    def step(name: str) -> None:
        seen.append(name)
        if name == crash_at and seen.count("plan") == 4:
            raise Crash(name)

    made = engine(folder, RecordedStream([VISITS]), {"kept": sink}, on_step=step)
    with pytest.raises(Crash):
        made.run()
    made.close()


def damage(path: Path) -> bytes:
    """Flip a bit in the middle; the bytes that were there."""
    whole = path.read_bytes()
    torn = bytearray(whole)
    torn[len(torn) // 2] ^= 1
    path.write_bytes(torn)
    return whole


@pytest.mark.parametrize("copy", ["a", "b"])
def test_a_damaged_copy_of_a_plan_is_told_and_mended_before_the_epoch_is_repeated(tmp_path: Path, copy: str) -> None:
    sink, told = KeptEpochs(), list[tuple[str, str]]()
    half_way(tmp_path, sink, "write kept")
    path = tmp_path / f"plan-4.{copy}"
    whole = damage(path)

    def step(name: str) -> None:
        if name == "write kept":
            raise Crash(name)

    made = engine(
        tmp_path,
        RecordedStream([VISITS]),
        {"kept": sink},
        on_step=step,
        on_trouble=lambda what, which: told.append((what, which)),
    )
    with pytest.raises(Crash):
        made.run()
    made.close()
    assert path.read_bytes() == whole
    ((what, which),) = told
    assert (what, which.split(":")[0]) == ("damaged", path.name)
    made = run(
        lambda: engine(tmp_path, RecordedStream([VISITS]), {"kept": sink}, on_trouble=lambda *more: told.append(more))
    )
    check(sink, made, [VISITS], Policy(), Rules(), 0)
    assert len(told) == 1


def test_a_damaged_newest_checkpoint_is_told_and_the_one_before_it_used(tmp_path: Path) -> None:
    sink, told = KeptEpochs(), list[tuple[str, str]]()
    half_way(tmp_path, sink, "write kept")
    damage(tmp_path / "delta-3.ckpt")
    steps = Steps()
    made = run(
        lambda: engine(
            tmp_path,
            RecordedStream([VISITS], cut=3),
            {"kept": sink},
            on_step=steps,
            on_trouble=lambda what, which: told.append((what, which)),
        )
    )
    check(sink, made, [VISITS], Policy(), Rules(), 0)
    assert steps.seen.count("repeat") == 2  # epochs 3 and 4
    assert sink.repeated == 1  # the sink has epoch 3 already
    assert [(what, which.split(":")[0]) for what, which in told] == [("damaged", "delta-3.ckpt")]


def test_a_merge_that_fails_is_told_once_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "base-3.ckpt").mkdir()  # nothing can be renamed to it
    sink, log = KeptEpochs(), io.StringIO()
    made = LocalEngine(
        RecordedStream([VISITS]),
        {"kept": sink},
        Job(policy=Policy(), rules=Rules()),
        Checkpoints(tmp_path, writer="w", deltas_max=1, merge_in_background=False),
        lateness_ms=0,
        tempo=Tempo(epoch_rows_max=15, poll_s=0, once=True),
        writer="w",
        on_trouble=StreamLog("visits", to=log).trouble,
    )
    made.run()
    made.close()
    check(sink, made, [VISITS], Policy(), Rules(), 0)
    (line,) = map(json.loads, log.getvalue().splitlines())
    assert (line["event"], line["level"], line["pipeline"]) == ("state-merge-failed", "warning", "visits")
    assert "base-3.ckpt" in line["problem"]


def test_a_merge_that_ends_as_nobody_foresaw_ends_the_run_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, ended = KeptEpochs(), threading.Event()

    def merging(checkpoints: Checkpoints, *_: object) -> None:
        try:
            raise RuntimeError("no such thing")
        finally:
            ended.set()

    def step(name: str) -> None:
        if name == "commit" and len(sink.epochs) == 3:  # the merge of epochs 1 and 2 is under way
            assert ended.wait(60)

    tempo = Tempo(epoch_rows_max=5, poll_s=0, once=True)
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "_merge", merging)
        made = engine(tmp_path, RecordedStream([VISITS]), {"kept": sink}, tempo=tempo, on_step=step, deltas_max=0)
        with pytest.raises(StateError, match="RuntimeError: no such thing") as caught:
            made.run()
        made.close()
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert "nothing was lost" in str(caught.value.hint)
    assert len(sink.epochs) in (3, 4)
    again = run(lambda: engine(tmp_path, RecordedStream([VISITS]), {"kept": sink}, tempo=tempo))
    check(sink, again, [VISITS], Policy(), Rules(), 0)
    assert sink.repeated == 1


def test_an_unforeseen_end_of_the_last_merge_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def merging(checkpoints: Checkpoints, *_: object) -> None:
        assert in_the_end.wait(60)
        raise RuntimeError("no such thing")

    monkeypatch.setattr(Checkpoints, "_merge", merging)
    sink, told, in_the_end = KeptEpochs(), list[tuple[str, str]](), threading.Event()
    made = engine(
        tmp_path, RecordedStream([VISITS]), {"kept": sink}, deltas_max=0, on_trouble=lambda *what: told.append(what)
    )
    last = made._checkpoints.wait

    def wait() -> None:
        if made._checkpoints._merging is not None:
            in_the_end.set()
        last()

    monkeypatch.setattr(made._checkpoints, "wait", wait)
    made.run()
    made.close()
    check(sink, made, [VISITS], Policy(), Rules(), 0)
    assert [what for what, _ in told] == ["merge-failed"]


def test_a_second_run_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    rows, sink = VISITS[:100], KeptEpochs()
    tempo = Tempo(epoch_rows_max=15, poll_s=0, once=True, drain=False)
    run(lambda: engine(tmp_path, RecordedStream([rows]), {"kept": sink}, tempo=tempo))
    assert sink.count("sessions") == 0  # all still open
    run(lambda: engine(tmp_path, RecordedStream([VISITS]), {"kept": sink}))
    assert sessions_of(sink) == sorted(expected_sessions(VISITS, Policy(), Rules()), key=order)


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


def test_state_that_was_thrown_away_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    sink, new = KeptEpochs(), KeptEpochs()
    run(lambda: engine(tmp_path / "a", RecordedStream([VISITS]), {"kept": sink}))
    last = len(sink.epochs)
    with pytest.raises(StateError, match="ahead of the state") as caught:
        run(lambda: engine(tmp_path / "b", RecordedStream([VISITS, VISITS]), {"new": new, "kept": sink}))
    assert caught.value.detail == f"kept has epochs of writer 'w' up to {last}, the state knows of none"
    assert "empty" in str(caught.value.hint)
    assert (len(sink.epochs), sink.repeated, new.epochs) == (last, 0, [])


@pytest.mark.parametrize("step", ["commit", "plan"])
def test_state_of_an_older_backup_is_refused_and_the_right_one_goes_on(tmp_path: Path, step: str) -> None:
    """Taken before an epoch was planned, or while it was written: what is planned may be in the sinks, no more."""
    sink, folder, backup = KeptEpochs(), tmp_path / "state", tmp_path / "backup"
    half_way(folder, sink, step)
    shutil.copytree(folder, backup)
    made = run(lambda: engine(folder, RecordedStream([VISITS]), {"kept": sink}))
    last = len(sink.epochs)
    with pytest.raises(StateError, match="ahead of the state"):
        run(lambda: engine(backup, RecordedStream([VISITS, VISITS]), {"kept": sink}))
    assert len(sink.epochs) == last
    made = run(lambda: engine(folder, RecordedStream([VISITS]), {"kept": sink}))
    check(sink, made, [VISITS], Policy(), Rules(), 0)


def test_an_output_of_an_older_backup_is_refused(tmp_path: Path) -> None:
    sink = KeptEpochs()
    made = run(lambda: engine(tmp_path, RecordedStream([VISITS]), {"kept": sink}))
    last, older = len(sink.epochs), KeptEpochs()
    for epoch, rows in sink.epochs[:-1]:
        older.write_epoch(epoch, rows)
    with pytest.raises(StateError, match="lacks epochs") as caught:
        run(lambda: engine(tmp_path, RecordedStream([VISITS]), {"kept": sink, "older": older}))
    assert caught.value.detail == f"older has epochs of writer 'w' up to {last - 1}, the state is at {last}"
    older.write_epoch(*sink.epochs[-1])
    made = run(lambda: engine(tmp_path, RecordedStream([VISITS]), {"kept": sink, "older": older}))
    check(older, made, [VISITS], Policy(), Rules(), 0)


def test_a_new_output_gets_what_comes_from_now_on_and_is_told(tmp_path: Path) -> None:
    class Printed(KeptEpochs):
        def last_epoch(self, writer: str) -> None:  # type: ignore[override]
            """Keeps no record."""

    sink, new, told = KeptEpochs(), KeptEpochs(), list[tuple[str, str]]()
    first = VISITS[: len(VISITS) // 2]
    run(lambda: engine(tmp_path, RecordedStream([first]), {"kept": sink}))
    last = len(sink.epochs)
    for _ in range(2):
        sinks: dict[str, EpochSink] = {"kept": sink, "new": new, "printed": Printed()}
        run(lambda: engine(tmp_path, RecordedStream([VISITS]), sinks, on_trouble=lambda *what: told.append(what)))  # noqa: B023
    assert told == [("output-new", f"new is new to writer 'w': it gets what comes after epoch {last}")]
    assert [epoch for epoch, _ in new.epochs] == [epoch for epoch, _ in sink.epochs[last:]] != []


def test_a_sink_that_is_away_when_it_is_asked_for_its_last_epoch_is_waited_for(tmp_path: Path) -> None:
    class Away(KeptEpochs):
        times = 2

        def last_epoch(self, writer: str) -> int:
            self.times -= 1
            if self.times >= 0:
                raise UnavailableError("the store is away")
            return super().last_epoch(writer)

    sink, told = Away(), list[dict[str, str]]()
    made = run(
        lambda: engine(
            tmp_path, RecordedStream([VISITS]), {"kept": sink}, on_status=lambda status: told.append(status.away)
        )
    )
    check(sink, made, [VISITS], Policy(), Rules(), 0)
    assert {"kept": "the store is away"} in told


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
