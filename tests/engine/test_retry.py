"""Outages are waited for, and only outages; the wait ends when the run does."""

import threading

import pytest

from sessionize.app.streams.startup import AvailabilityTracker
from sessionize.engine import retry as delivery
from sessionize.engine.retry import Retrier
from sessionize.engine.run_events import Handler, ServerRecovered, ServerUnavailable, StatusChanged
from sessionize.errors import OutputError, UnavailableError
from sessionize.testing.observers import RecordedEvents


class Flaky:
    def __init__(self, *errors: Exception) -> None:
        self.errors, self.calls = list(errors), 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def retrier(retry_timeout_s: float = 30, stopping: threading.Event | None = None) -> tuple[Retrier, RecordedEvents]:
    events = RecordedEvents()
    return Retrier(retry_timeout_s, stopping=stopping or threading.Event(), observer=events), events


def test_an_unavailable_server_is_retried_and_each_try_that_fails_is_reported() -> None:
    patient, events = retrier()
    call = Flaky(UnavailableError("away"), UnavailableError("away"))
    assert patient.call("store", call) == "done"
    assert call.calls == 3
    unavailable = ServerUnavailable(server="store", problem="away")
    assert events == [unavailable, unavailable, ServerRecovered(server="store")]


def test_a_server_that_is_silent_and_then_refuses_again_has_not_recovered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try hangs until it fails with the same error: an outage from the first silence to the success."""
    monkeypatch.setattr(delivery, "_SILENT_S", 0.0)
    events = RecordedEvents()
    tracker = AvailabilityTracker(events, source="kafka")
    patient = Retrier(3600, stopping=threading.Event(), observer=tracker)
    hanging = threading.Semaphore(0)
    released = [threading.Event() for _ in range(3)]
    tries = iter(released)

    def hangs() -> None:
        release = next(tries)
        hanging.release()
        assert release.wait(60)
        if release is not released[-1]:
            raise UnavailableError("timed out")

    working = threading.Thread(target=patient.call, args=("postgres", hangs), daemon=True)
    working.start()
    for release in released:
        assert hanging.acquire(timeout=60)
        patient.note_silence()
        release.set()
    working.join(60)
    assert not working.is_alive()
    assert events.names() == ["server_unavailable", "server_recovered"]
    problems = [event.status.unavailable.get("postgres") for event in events.of(StatusChanged)]
    assert problems == ["postgres does not answer (for 0 s)", "timed out", "timed out", None]


def test_another_problem_of_the_same_server_is_reported_too() -> None:
    patient, events = retrier()
    call = Flaky(UnavailableError("away"), UnavailableError("away", detail="refused"))
    assert patient.call("store", call) == "done"
    assert events == [
        ServerUnavailable(server="store", problem="away"),
        ServerUnavailable(server="store", problem="away (refused)"),
        ServerRecovered(server="store"),
    ]


def test_another_error_is_raised_at_once() -> None:
    patient, events = retrier()
    call = Flaky(OutputError("wrong password"))
    with pytest.raises(OutputError, match="wrong password"):
        patient.call("store", call)
    assert (call.calls, events) == (1, [])


def test_an_outage_may_not_last_for_ever() -> None:
    patient, _ = retrier(retry_timeout_s=0)
    with pytest.raises(UnavailableError, match="away"):
        patient.call("store", Flaky(*[UnavailableError("away")] * 5))


def test_the_end_of_the_run_ends_the_wait() -> None:
    stopping = threading.Event()
    patient, _ = retrier(stopping=stopping)

    def unavailable() -> None:
        stopping.set()
        raise UnavailableError("away")

    with pytest.raises(UnavailableError, match="away"):
        patient.call("store", unavailable)


@pytest.mark.parametrize("by", ["stop", "give_up"])
def test_a_pause_ends_at_once_and_nothing_is_tried_after_it(monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    monkeypatch.setattr(delivery, "_WAIT_MIN_S", 3600.0)
    monkeypatch.setattr(delivery, "_WAIT_MAX_S", 3600.0)
    stopping, pausing = threading.Event(), threading.Event()
    patient = Retrier(7200, stopping=stopping, observer=Handler(ServerUnavailable, lambda event: pausing.set()))
    call, errors = Flaky(*[UnavailableError("away")] * 5), list[str]()

    def work() -> None:
        try:
            patient.call("store", call)
        except UnavailableError as error:
            errors.append(str(error))

    working = threading.Thread(target=work, daemon=True)
    working.start()
    assert pausing.wait(60)
    stopping.set() if by == "stop" else patient.cancel()
    working.join(60)
    assert (errors, call.calls) == (["away"], 1)


def test_after_the_end_nothing_is_called() -> None:
    patient, _ = retrier()
    patient.close()
    call = Flaky()
    with pytest.raises(UnavailableError, match="the run has ended"):
        patient.call("store", call)
    assert call.calls == 0
