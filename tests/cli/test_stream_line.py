"""The line that says how a stream stands."""

import io
import time

from rich.console import Console

from sessionize.cli.streaming import drawing
from sessionize.engine.status import Status


def shown(status: Status) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=80).print(drawing(status))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_it_fits_into_eighty_columns_and_says_what_waits() -> None:
    now_ms = time.time_ns() // 1_000_000
    busy = Status(
        consumed=12_345_678,
        rate=98_765.4,
        behind=1_234,
        pending=654_321,
        watermark_ms=now_ms,
        open_sessions=40_000,
        late=12,
        rejected=3,
    )
    head, row = shown(busy)
    names = ["records", "/s", "behind", "pending", "watermark", "open", "late", "rejected", "epoch"]
    assert head.split() == names
    assert row.split()[:4] == ["12,345,678", "98,765", "1,234", "654,321"]
    assert row.split()[4].count(":") == 2  # the time alone: it is today


def test_who_is_away_is_named_with_the_reason() -> None:
    lines = shown(Status(watermark_ms=0, away={"kafka": "Kafka cannot be reached [why]"}))
    assert "1970-01-01 00:00:00" in lines[1]
    assert lines[2].strip() == "kafka is away: Kafka cannot be reached [why], trying again"


def test_what_is_done_after_the_stream_is_said() -> None:
    text = "reconciling late events, 5 of 10 users"
    assert shown(Status(doing=text))[2].strip() == text
    waiting = shown(Status(doing="reconciling late events", away={"reconcile": "another one is running"}))
    assert " ".join(" ".join(waiting[2:]).split()) == (
        "reconciling late events; reconcile waits: another one is running, trying again"
    )


def test_rows_that_were_too_large_are_counted() -> None:
    assert "too large for Kafka: 1,200 rows shortened, 3 skipped" in " ".join(shown(Status(unfit=(1_200, 3))))
    assert "too large" not in " ".join(shown(Status()))
