"""Tries until a commit holds: how many, and that no pause between them outlasts the run."""

import random
import threading

import pytest
from pyiceberg.exceptions import CommitFailedException

from sessionize.connectors.iceberg.commits import commit_with_retry
from sessionize.errors import SessionizeError, UnavailableError
from sessionize.retry_pauses import Pauses


class Attempts:
    """Fails with these errors, one after the other, and then holds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.made = list(errors), 0

    def __call__(self) -> str:
        self.made += 1
        if self.errors:
            raise self.errors.pop(0)
        return "committed"


def gave_up(error: Exception, tries: str) -> SessionizeError:
    return UnavailableError("a commit did not succeed", detail=f"{type(error).__name__}, {tries}")


@pytest.fixture(autouse=True)
def long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause that is made lasts longer than the suite."""
    monkeypatch.setattr(random, "uniform", lambda low, high: 36_000.0)


def test_a_commit_that_lost_is_tried_at_once_when_the_run_is_to_stop() -> None:
    stopping = threading.Event()
    stopping.set()
    attempts = Attempts(*[CommitFailedException("lost")] * 3)
    with Pauses(stopping).around():
        assert commit_with_retry(attempts, gave_up=gave_up) == "committed"
    assert attempts.made == 4


def test_a_storage_that_fails_is_not_tried_again_when_the_run_is_to_stop() -> None:
    stopping = threading.Event()
    stopping.set()
    attempts = Attempts(*[OSError("no answer")] * 3)
    with Pauses(stopping).around(), pytest.raises(UnavailableError, match="OSError, 1 try; the last one: no answer"):
        commit_with_retry(attempts, gave_up=gave_up)
    assert attempts.made == 1


def test_nothing_is_tried_again_when_the_run_has_failed() -> None:
    pauses, attempts = Pauses(), Attempts(*[CommitFailedException("lost")] * 3)
    pauses.cancel()
    with pauses.around(), pytest.raises(UnavailableError, match="1 try"):
        commit_with_retry(attempts, gave_up=gave_up)
    assert attempts.made == 1


def test_a_pause_under_way_ends_with_the_run() -> None:
    pauses, tried, errors = Pauses(), threading.Event(), list[str]()

    def attempt() -> None:
        tried.set()
        raise CommitFailedException("lost")

    def work() -> None:
        with pauses.around():
            try:
                commit_with_retry(attempt, gave_up=gave_up)
            except UnavailableError as error:
                errors.append(error.message)

    working = threading.Thread(target=work, daemon=True)
    working.start()
    assert tried.wait(60)
    pauses.cancel()
    working.join(60)
    assert errors == ["a commit did not succeed"]


def test_ten_tries_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: 0.0)
    attempts = Attempts(*[CommitFailedException("lost")] * 11)
    with pytest.raises(UnavailableError, match="10 tries"):
        commit_with_retry(attempts, gave_up=gave_up)
    assert attempts.made == 10
