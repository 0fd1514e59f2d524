"""Who is away, put together from those who notice."""

from sessionize.app.opening import Outages
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
