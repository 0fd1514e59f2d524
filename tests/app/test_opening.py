"""Who is away, put together from those who notice."""

import threading

import pytest

from sessionize.app.streams.startup import AvailabilityTracker, Opener
from sessionize.engine.retry import Retrier
from sessionize.engine.stream.status import Status
from sessionize.errors import UnavailableError


def test_silence_does_not_hide_what_is_known() -> None:
    heard: list[dict[str, str]] = []
    outages = AvailabilityTracker(
        source="kafka",
        on_status=lambda status: heard.append(status.unavailable),
        on_unavailable=lambda unavailable: None,
    )
    outages.note("postgres", UnavailableError("the store cannot be reached now", detail="refused"))
    outages.note_silence("postgres")
    outages.note_silence("iceberg")
    outages.status(Status(unavailable={"source": "gone"}))
    known = {"postgres": "the store cannot be reached now (refused)", "iceberg": "no answer yet"}
    assert heard[-2:] == [known, {"kafka": "gone", **known}]
    outages.note("postgres", None)
    assert set(heard[-1]) == {"kafka", "iceberg"}


def test_a_server_that_stays_away_is_not_told_to_be_back() -> None:
    told: list[set[str]] = []
    outages = AvailabilityTracker(
        source="kafka", on_status=lambda _: None, on_unavailable=lambda unavailable: told.append(set(unavailable))
    )
    retrier = Retrier(0.3, stopping=threading.Event(), on_unavailable=outages.note)
    opening = Opener(retrier, outages, stopping=threading.Event())
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
    assert all(unavailable == {"postgres"} for unavailable in told)
    assert opening.call("iceberg", refuses_once) == "opened"
    assert told[-1] == {"postgres"}
    assert {"postgres", "iceberg"} in told


def test_rows_that_were_too_large_add_up_in_the_status() -> None:
    heard = list[Status]()
    outages = AvailabilityTracker(source="kafka", on_status=heard.append, on_unavailable=lambda unavailable: None)
    outages.note_unfit(shortened=2)
    outages.note_unfit(skipped=1)
    outages.note_unfit(shortened=3)
    outages.status(Status(consumed=7))
    assert [(status.consumed, status.unfit) for status in heard[-2:]] == [(0, (5, 1)), (7, (5, 1))]


def test_the_lag_is_not_known_while_the_source_is_away() -> None:
    heard: list[int | None] = []
    outages = AvailabilityTracker(
        source="kafka", on_status=lambda status: heard.append(status.lag), on_unavailable=lambda unavailable: None
    )
    outages.status(Status(lag=7))
    outages.status(Status(lag=7, unavailable={"source": "gone"}))
    outages.status(Status(lag=8, unavailable={"postgres": "gone"}))
    outages.note("kafka", UnavailableError("gone"))
    assert heard == [7, None, 8, None]
