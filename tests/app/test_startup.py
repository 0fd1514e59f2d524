"""Which servers are unavailable, put together from what the parts of a run report."""

import threading

import pytest

from sessionize.app.streams.startup import AvailabilityTracker, Opener, StoppedError
from sessionize.engine.retry import Retrier
from sessionize.engine.run_events import (
    RowsShortened,
    RowsSkipped,
    ServerRecovered,
    ServerUnavailable,
    StatusChanged,
)
from sessionize.engine.run_events.reports import Status
from sessionize.errors import UnavailableError
from sessionize.testing.observers import RecordedEvents


def unavailable(server: str, problem: str = "gone") -> ServerUnavailable:
    return ServerUnavailable(server=server, problem=problem)


def test_silence_does_not_hide_what_is_known() -> None:
    events = RecordedEvents()
    tracker = AvailabilityTracker(events, source="kafka")
    error = UnavailableError("the store cannot be reached now", detail="refused")
    tracker.on_event(ServerUnavailable.of("postgres", error))
    tracker.note_silence("postgres")
    tracker.note_silence("iceberg")
    tracker.on_event(unavailable("source"))
    known = {"postgres": "the store cannot be reached now (refused)", "iceberg": "no answer yet"}
    heard = [event.status.unavailable for event in events.of(StatusChanged)]
    assert heard[-2:] == [known, {"kafka": "gone", **known}]
    tracker.on_event(ServerRecovered(server="postgres"))
    assert set(events.of(StatusChanged)[-1].status.unavailable) == {"kafka", "iceberg"}
    assert events.of(ServerUnavailable) == [
        unavailable("postgres", known["postgres"]), unavailable("iceberg", "no answer yet"), unavailable("kafka"),
    ]  # fmt: skip
    assert events.of(ServerRecovered) == [ServerRecovered(server="postgres")]


def test_a_server_is_reported_once_until_it_recovers_and_the_status_has_its_newest_problem() -> None:
    events = RecordedEvents()
    tracker = AvailabilityTracker(events, source="kafka")
    for problem in ("refused", "refused", "reset"):
        tracker.on_event(unavailable("source", problem))
    for _ in range(2):
        tracker.on_event(ServerRecovered(server="source"))
    tracker.on_event(unavailable("source", "refused"))
    assert events.names() == ["server_unavailable", "server_recovered", "server_unavailable"]
    assert [event.status.unavailable.get("kafka") for event in events.of(StatusChanged)] == [
        "refused", "refused", "reset", None, "refused",
    ]  # fmt: skip


def test_a_server_that_stays_unavailable_is_not_reported_as_recovered() -> None:
    events = RecordedEvents()
    tracker = AvailabilityTracker(events, source="kafka")
    retrier = Retrier(0.3, stopping=threading.Event(), observer=tracker)
    opening = Opener(retrier, tracker, stopping=threading.Event())
    tries: list[int] = []

    def refuses() -> None:
        raise UnavailableError("refused")

    def refuses_once() -> str:
        tries.append(1)
        if len(tries) == 1:
            refuses()
        return "opened"

    def told() -> list[set[str]]:
        return [set(event.status.unavailable) for event in events.of(StatusChanged)]

    with pytest.raises(UnavailableError, match="refused"):
        opening.call("postgres", refuses)
    assert told()
    assert all(servers == {"postgres"} for servers in told())
    assert opening.call("iceberg", refuses_once) == "opened"
    assert told()[-1] == {"postgres"}
    assert {"postgres", "iceberg"} in told()
    assert events.of(ServerRecovered) == [ServerRecovered(server="iceberg")]


def test_a_stop_ends_the_wait_for_a_part() -> None:
    stopping = threading.Event()
    tracker = AvailabilityTracker(RecordedEvents(), source="kafka")
    opening = Opener(Retrier(60, stopping=stopping, observer=tracker), tracker, stopping=stopping)

    def refuses() -> None:
        stopping.set()
        raise UnavailableError("refused")

    with pytest.raises(StoppedError, match="stopped while waiting for postgres"):
        opening.call("postgres", refuses)


def test_rows_that_were_too_large_add_up_in_the_status() -> None:
    events = RecordedEvents()
    tracker = AvailabilityTracker(events, source="kafka")
    for kind, rows in ((RowsShortened, 2), (RowsSkipped, 1), (RowsShortened, 3)):
        tracker.on_event(kind(topic="t", rows=rows, limit_bytes=None, largest=[]))
    tracker.on_event(StatusChanged(Status(consumed=7)))
    heard = [event.status for event in events.of(StatusChanged)]
    assert [(status.consumed, status.unfit) for status in heard[-2:]] == [(0, (5, 1)), (7, (5, 1))]


def test_the_lag_is_not_known_while_the_source_is_unavailable() -> None:
    events = RecordedEvents()
    tracker = AvailabilityTracker(events, source="kafka")
    tracker.on_event(StatusChanged(Status(lag=7)))
    tracker.on_event(unavailable("source"))
    tracker.on_event(ServerRecovered(server="source"))
    tracker.on_event(unavailable("postgres"))
    tracker.on_event(StatusChanged(Status(lag=8)))
    tracker.on_event(unavailable("kafka"))
    assert [event.status.lag for event in events.of(StatusChanged)] == [7, None, 7, 7, 8, None]
