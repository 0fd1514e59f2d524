"""The lines that say how a stream stands."""

import io

from rich.console import Console

from sessionize.cli.terminal.status_line import StatusLine, lasted, short
from sessionize.engine.accounting import Accounting
from sessionize.engine.run_events.reports import EpochReport, Status

NOON_MS = 1_704_110_400_000  # 2024-01-01 12:00 UTC
BUSY = Status(
    consumed=12_345_678,
    rate=98_765.4,
    lag=1_234,
    pending=654_321,
    watermark_ms=NOON_MS - 1000,
    open_sessions=40_000,
    sessions=1_234_567,
    late=12,
    rejected=3,
)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


def line_of(*statuses: Status, clock: Clock | None = None) -> StatusLine:
    line = StatusLine(now_s=clock or Clock(), now_ms=lambda: NOON_MS)
    for status in statuses:
        line.show(status)
    return line


def shown(line: StatusLine, width: int = 80) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(line)
    return [text.rstrip() for text in out.getvalue().splitlines()]


def committed(epoch: int) -> EpochReport:
    return EpochReport(
        epoch=epoch, plan="", consumed=0, sessions=0, late=0, rejected=0, seconds=1, write_s=0, watermark_ms=None,
        open_sessions=0, lag=0, accounting=Accounting(),
    )  # fmt: skip


def test_it_says_all_that_matters_in_two_lines_of_eighty_columns() -> None:
    clock = Clock()
    line = StatusLine(now_s=clock, now_ms=lambda: NOON_MS)
    clock.s += 3725
    line.show(Status(last_epoch=committed(1_234)))
    clock.s += 4
    line.show(Status(**{name: getattr(BUSY, name) for name in BUSY.__slots__} | {"last_epoch": committed(1_234)}))
    assert shown(line) == [
        "up 1h02m  records 12.3M  98,765/s  lag 1,234  pending 654,321  open 40,000",
        "sessions 1.23M  late 12  rejected 3  watermark 11:59:59  epoch 1,234, 4s ago",
    ]


def test_a_narrow_terminal_gets_more_lines_and_loses_nothing() -> None:
    wide = " ".join(shown(line_of(BUSY), 200)).split()
    for width in (20, 34, 41, 60):
        lines = shown(line_of(BUSY), width)
        assert max(map(len, lines)) <= width
        assert " ".join(lines).split() == wide


def test_before_the_first_status_it_is_starting() -> None:
    assert shown(line_of()) == ["starting …"]


def test_a_lag_that_is_not_known_is_not_shown_as_one() -> None:
    clock = Clock()
    line = line_of(BUSY, clock=clock)
    assert "lag 1,234" in shown(line)[0]
    clock.s += 20
    line.show(Status(lag=None, unavailable={"kafka": "Kafka cannot be reached"}))
    clock.s += 2
    lines = shown(line)
    assert "lag unknown (1,234 22s ago)" in lines[0]
    assert "lag 1,234" not in " ".join(lines)
    line.show(BUSY)
    assert "lag 1,234" in shown(line)[0]


def test_the_lag_of_long_ago_is_not_shown_as_that_of_now() -> None:
    """The engine is held up by something, so it says nothing new."""
    clock = Clock()
    line = line_of(BUSY, clock=clock)
    clock.s += 7
    assert "lag unknown (1,234 7s ago)" in shown(line)[0]


def test_a_source_that_never_knows_its_lag_shows_none() -> None:
    lines = " ".join(shown(line_of(Status())))
    assert "lag" not in lines
    assert "lag unknown" in " ".join(shown(line_of(Status(unavailable={"kafka": "no answer yet"}))))


def test_a_server_that_is_unavailable_is_named_with_the_reason() -> None:
    clock = Clock()
    unavailable = Status(watermark_ms=0, unavailable={"kafka": "Kafka cannot be reached [why]"})
    line = line_of(unavailable, clock=clock)
    clock.s += 75
    line.show(unavailable)
    lines = shown(line)
    assert "watermark 1970-01-01 00:00:00" in " ".join(lines)
    assert lines[-1] == "kafka is unavailable, retrying for 1m15s: Kafka cannot be reached [why]"


def test_what_is_done_after_the_stream_is_said() -> None:
    text = "reconciling late events, 5 of 10 users"
    assert shown(line_of(Status(phase=text)))[-1] == text
    waiting = Status(phase="reconciling late events", unavailable={"reconcile": "another one is running"})
    assert shown(line_of(waiting))[-2:] == [
        "reconciling late events",
        "reconcile is waiting, retrying for 0s: another one is running",
    ]


def test_numbers_are_short() -> None:
    assert [short(n) for n in (0, 999_999, 1_000_000, 12_345_678, 999_600_000, 10**12)] == [
        "0", "999,999", "1M", "12.3M", "1G", "1T",
    ]  # fmt: skip
    assert [lasted(s) for s in (0.9, 59, 60, 3_725, 100_000)] == ["0s", "59s", "1m00s", "1h02m", "1d03h"]


def test_rows_that_were_too_large_are_counted() -> None:
    assert shown(line_of(Status(unfit=(1_200, 3))))[-1] == "too large for Kafka: 1,200 rows shortened, 3 skipped"
    assert "too large" not in " ".join(shown(line_of(Status())))
