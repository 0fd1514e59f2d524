"""Outages are waited for, and only outages; the wait ends when the run does."""

import threading

import pytest

from sessionize.engine import retry as delivery
from sessionize.engine.retry import Retrier
from sessionize.engine.run_events import Handler, ServerRecovered, ServerUnavailable
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


def test_an_unavailable_server_is_retried_and_reported_once_until_it_recovers() -> None:
    patient, events = retrier()
    call = Flaky(UnavailableError("away"), UnavailableError("away"))
    assert patient.call("store", call) == "done"
    assert call.calls == 3
    assert events == [ServerUnavailable(server="store", problem="away"), ServerRecovered(server="store")]


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
