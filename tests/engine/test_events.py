"""Events have one set of fields, for the log and for metrics; observers get all of them, and harm nobody."""

import io
import json
import logging
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from sessionize import Policy, Rules
from sessionize.app.streams.logs import StreamLog
from sessionize.engine import run_events as events
from sessionize.engine.accounting import Accounting
from sessionize.engine.run_events import Event, Level, ObserverFailed, Observers, StepReached, TableLayoutChanged
from sessionize.engine.run_events.reports import EpochReport, Reconciled, Status
from sessionize.errors import OutputError
from sessionize.ports import EpochSink
from sessionize.testing.observers import RecordedEvents
from sessionize.testing.streams import InMemoryEpochSink, InMemoryStreamSource
from tests.engine.stream_runs import VISITS, Crash, Steps, check, engine, run

DOCUMENT = (Path(__file__).parents[2] / "docs" / "streams.md").read_text()
REPORT = EpochReport(
    epoch=3, plan="d1", consumed=20, sessions=2, late=1, rejected=20, seconds=0.5, write_s=0.25, watermark_ms=7,
    open_sessions=4, lag=9, accounting=Accounting(consumed=20, rejected=20), reasons={"missing_user": 20},
)  # fmt: skip
TOO_LARGE: dict[str, Any] = {
    "topic": "t", "rows": 1, "limit_bytes": 10, "largest": [{"key": "u", "session": None, "size_bytes": 11}],
}  # fmt: skip
EXAMPLES: list[Event] = [
    events.AllRejected(epoch=3, rejected_rows=20, reason="missing_user", dialect="clicks"),
    events.CheckpointDamaged("delta-3.ckpt: checksum"),
    events.CheckpointMergeFailed("base-3.ckpt: no"),
    events.EpochCommitted(REPORT),
    events.LogLinesDropped(3),
    events.MaintenanceFailed(OutputError("no", detail="here", hint="do that")),
    events.MaintenanceFinished(
        table="events", files=1, compacted=4, compacted_into=1, snapshots_expired=2, removed_files=4, removed_bytes=99
    ),
    events.MaintenanceUnfinished(),
    events.MostlyLate(epoch=3, late_rows=19, input_rows=20, watermark_ms=7),
    events.ObserverFailed(observer="Metrics", problem="ValueError: no"),
    events.OrphansKept("another table's metadata"),
    events.PhaseChanged("reconciling late events"),
    events.ReconcileFailed(ValueError("a mistake")),
    events.ReconcileFinished(window_ms=None, result=Reconciled(late_events=3)),
    events.ReconcileSkipped("another process of this home reconciles"),
    events.ReconcileUnfinished(),
    events.OperatorDropped("counts"),
    events.RecordsExpired(epoch=2, problem="the source has only t[0]: 40 of 50 records"),
    events.RowsShortened(**TOO_LARGE),
    events.RowsSkipped(**TOO_LARGE),
    events.ServerRecovered(server="kafka"),
    events.ServerUnavailable(server="kafka", problem="refused"),
    events.SinkBehindState("new is new to writer 'w'"),
    events.SinkWarning("the topic was created again"),
    events.SourceWarning("t[0]: records are gone"),
    events.StatusChanged(Status(unavailable={"kafka": "refused"})),
    events.StepReached("plan"),
    events.StreamStarted(writer="w", input="kafka", output="sessions.user_sessions", dialect="clicks"),
    events.StreamStopped(accounting=Accounting(consumed=20, rejected=20), rules="gap 30m"),
    events.StreamStopping(then="finishing this epoch"),
    events.TableLayoutChanged("by month"),
]
each_event = pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.name)


def documented() -> dict[str, tuple[set[str], list[str]]]:
    """Name, levels and fields of each event, from the table of the guide."""
    rows = re.findall(r"^\| `(\w+)` \| ([a-z ]+) \| (`.+?`) \| .+ \|$", DOCUMENT, re.MULTILINE)
    return {name: (set(level.split(" or ")), re.findall(r"`(\w+)`", fields)) for name, level, fields in rows}


def test_there_is_an_example_of_every_event() -> None:
    kinds = {kind for name in events.__all__ if isinstance(kind := getattr(events, name), type)}
    named = {kind for kind in kinds if issubclass(kind, Event) and hasattr(kind, "name")}
    assert {type(event) for event in EXAMPLES} == named
    assert len({event.name for event in EXAMPLES}) == len(EXAMPLES)


def test_the_guide_lists_exactly_these_events() -> None:
    assert sorted(documented()) == sorted(event.name for event in EXAMPLES)


@each_event
def test_the_guide_has_the_level_and_the_fields(event: Event) -> None:
    levels, fields = documented()[event.name]
    assert event.level in levels
    assert list(event.fields()) == fields


@each_event
def test_names_and_keys_have_one_style_and_values_are_json(event: Event) -> None:
    spark = {"inputRowsPerSecond", "processingTime"} if isinstance(event, events.EpochCommitted) else set()
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", key) for key in {event.name, *event.fields()} - spark)
    assert spark <= event.fields().keys()
    assert json.loads(json.dumps(event.fields())) == event.fields()
    assert event.level in get_args(Level)


@each_event
def test_every_event_has_a_log_line_with_its_fields(event: Event) -> None:
    written = io.StringIO()
    StreamLog("web", level="DEBUG", to=written).on_event(event)
    (line,) = map(json.loads, written.getvalue().splitlines())
    del line["timestamp"]
    assert line == {"event": event.name, "level": event.level, "pipeline": "web", **event.fields()}
    words = io.StringIO()
    StreamLog("web", level="DEBUG", readable=True, to=words).on_event(event)
    assert f" {event.level}: {event.name.replace('_', ' ')}" in words.getvalue()


@pytest.mark.parametrize("kind", [events.ReconcileFailed, events.MaintenanceFailed])
def test_only_an_error_that_nobody_foresaw_needs_a_person(kind: Any) -> None:
    assert kind(OutputError("no", detail="here", hint="do that")).fields() == {
        "problem": "no", "detail": "here", "hint": "do that",
    }  # fmt: skip
    assert [kind(error).level for error in (OutputError("no"), ValueError("no"))] == ["warning", "error"]
    assert kind(ValueError("no")).fields()["problem"] == "ValueError: no"


class Failing:
    """An observer that raises at every event."""

    def __init__(self) -> None:
        self.calls = 0

    def on_event(self, event: Event, /) -> None:
        self.calls += 1
        raise ValueError("no such metric")


def test_an_observer_that_raises_is_reported_once_and_gets_what_follows() -> None:
    first, failing, last = RecordedEvents(), Failing(), RecordedEvents()
    observers = Observers(first, failing, last)
    changes = [TableLayoutChanged(str(number)) for number in range(3)]
    for change in changes:
        observers.on_event(change)
    failed = ObserverFailed(observer="Failing", problem="ValueError: no such metric")
    assert first == [changes[0], failed, *changes[1:]]
    assert last == [failed, *changes]
    assert failing.calls == 3


def test_observers_that_all_raise_are_reported_to_the_logger(caplog: pytest.LogCaptureFixture) -> None:
    observers = Observers(Failing(), Failing())
    with caplog.at_level(logging.ERROR, logger="sessionize.observers"):
        for _ in range(3):
            observers.on_event(TableLayoutChanged("x"))
    assert [record.getMessage() for record in caplog.records] == ["observer Failing failed: ValueError: no such metric"]


def test_what_is_no_exception_passes_through() -> None:
    observers = Observers(RecordedEvents(), events.Handler(StepReached, lambda event: Steps(1)(event.step)))
    with pytest.raises(Crash):
        observers.on_event(StepReached("plan"))


def test_an_observer_that_raises_does_not_stop_a_run_and_another_one_gets_every_event(tmp_path: Path) -> None:
    sink, alone, beside = InMemoryEpochSink(), RecordedEvents(), RecordedEvents()
    sinks: dict[str, EpochSink] = {"kept": sink}
    run(
        lambda: engine(
            tmp_path / "alone", InMemoryStreamSource([VISITS]), {"kept": InMemoryEpochSink()}, observer=alone
        )
    )
    failing = Failing()
    observer = Observers(failing, beside)
    made = run(lambda: engine(tmp_path / "beside", InMemoryStreamSource([VISITS]), sinks, observer=observer))
    check(sink, made, [VISITS], Policy(), Rules(), 0)
    assert failing.calls > len(sink.epochs)
    kinds = (events.EpochCommitted, StepReached)
    assert beside.names(*kinds) == alone.names(*kinds)
    assert len(beside.of(ObserverFailed)) == 1


def test_two_observers_get_the_same_events_in_the_same_order(tmp_path: Path) -> None:
    first, second = RecordedEvents(), RecordedEvents()
    observer = Observers(first, second)
    run(lambda: engine(tmp_path, InMemoryStreamSource([VISITS]), {"kept": InMemoryEpochSink()}, observer=observer))
    assert first == second != []
