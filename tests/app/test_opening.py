"""Who is away, put together from those who notice."""

import threading

import pytest

from sessionize.app.opening import Opening, Outages
from sessionize.engine.delivery import Patience
from sessionize.engine.status import Status
from sessionize.errors import UnavailableError


def test_silence_does_not_hide_what_is_known() -> None:
    heard: list[dict[str, str]] = []
    outages = Outages(source="kafka", on_status=lambda status: heard.append(status.away), on_away=lambda away: None)
    outages.note("postgres", UnavailableError("the store cannot be reached now", detail="refused"))
    outages.note_silence("postgres")
    outages.note_silence("iceberg")
    outages.status(Status(away={"source": "gone"}))
    known = {"postgres": "the store cannot be reached now (refused)", "iceberg": "no answer yet"}
    assert heard[-2:] == [known, {"kafka": "gone", **known}]
    outages.note("postgres", None)
    assert set(heard[-1]) == {"kafka", "iceberg"}


def test_a_server_that_stays_away_is_not_told_to_be_back() -> None:
    told: list[set[str]] = []
    outages = Outages(source="kafka", on_status=lambda _: None, on_away=lambda away: told.append(set(away)))
    patience = Patience(0.3, stopping=threading.Event(), on_outage=outages.note)
    opening = Opening(patience, outages, stopping=threading.Event())
    tries: list[int] = []

    def refuses() -> None:
        raise UnavailableError("refused")

    def refuses_once() -> str:
        tries.append(1)
        if len(tries) == 1:
            refuses()
        return "opened"

    with pytest.raises(UnavailableError, match="refused"):
        opening.call("postgres", refuses)
    assert told
    assert all(away == {"postgres"} for away in told)
    assert opening.call("iceberg", refuses_once) == "opened"
    assert told[-1] == {"postgres"}
    assert {"postgres", "iceberg"} in told


def test_rows_that_were_too_large_add_up_in_the_status() -> None:
    heard = list[Status]()
    outages = Outages(source="kafka", on_status=heard.append, on_away=lambda away: None)
    outages.note_unfit(shortened=2)
    outages.note_unfit(skipped=1)
    outages.note_unfit(shortened=3)
    outages.status(Status(consumed=7))
    assert [(status.consumed, status.unfit) for status in heard[-2:]] == [(0, (5, 1)), (7, (5, 1))]


def test_the_lag_is_not_known_while_the_source_is_away() -> None:
    heard: list[int | None] = []
    outages = Outages(source="kafka", on_status=lambda status: heard.append(status.behind), on_away=lambda away: None)
    outages.status(Status(behind=7))
    outages.status(Status(behind=7, away={"source": "gone"}))
    outages.status(Status(behind=8, away={"postgres": "gone"}))
    outages.note("kafka", UnavailableError("gone"))
    assert heard == [7, None, 8, None]
