"""The log of a stream hears what sources warn of, as lines of its own, as long as the run lasts."""

import io
import json
import logging

from sessionize.app.streams.logs import StreamLog
from sessionize.engine.accounting import Accounting
from sessionize.engine.stream.status import EpochReport
from sessionize.errors import ConfigError


def test_warnings_of_sources_are_lines_of_the_log() -> None:
    written = io.StringIO()
    log = StreamLog("web", level="WARNING", to=written)
    source = logging.getLogger("sessionize.input.kafka")
    with log.listening():
        source.warning("%s: records from offset %d on are gone", "t[0]", 7)
    source.error("nobody listens any more")
    (line,) = map(json.loads, written.getvalue().splitlines())
    assert (line["event"], line["level"], line["problem"]) == (
        "input",
        "warning",
        "t[0]: records from offset 7 on are gone",
    )


def words_of(log_level: str = "WARNING") -> tuple[StreamLog, io.StringIO]:
    written = io.StringIO()
    return StreamLog("web", level=log_level, readable=True, to=written), written


def test_for_people_a_warning_is_a_sentence() -> None:
    log, written = words_of()
    log.warning("damaged", "checkpoint 7\x1b[31m")
    error = ConfigError("it cannot be", detail="here", hint="do that")
    log.failed("reconcile", error)
    log.unavailable({"kafka": "gone"})
    lines = [line.partition(" ") for line in written.getvalue().splitlines()]
    assert all(len(time) == 8 and time.count(":") == 2 for time, _, _ in lines)
    assert [words for _, _, words in lines] == [
        "warning: state-damaged: checkpoint 7�[31m",
        "warning: reconcile: it cannot be; here; do that",
        "warning: away (server kafka): gone; trying again",
    ]


def test_an_epoch_of_bad_records_says_why_and_what_to_do() -> None:
    log, written = words_of()
    report = EpochReport(
        epoch=3, plan="", consumed=20, sessions=0, late=0, rejected=20, seconds=1.0, write_s=0.0, watermark_ms=None,
        open_sessions=0, lag=None, accounting=Accounting(), reasons={"missing_user": 15, "missing_time": 5},
    )  # fmt: skip
    log.epoch(report)
    (line,) = written.getvalue().splitlines()
    assert "warning: all rejected (epoch 3, rejected 20, reason missing_user): is it the right dialect" in line


def test_lines_that_could_not_be_written_are_told_with_the_next_one_that_can() -> None:
    dropped = 0
    written = io.StringIO()
    log = StreamLog("web", to=written, dropped=lambda: dropped)
    log.note("one")
    dropped = 3
    log.note("two")
    log.note("three")
    told = [(line["event"], line.get("count")) for line in map(json.loads, written.getvalue().splitlines())]
    assert told == [("one", None), ("two", None), ("log lines dropped", 3), ("three", None)]


def test_the_count_waits_while_nothing_can_be_written() -> None:
    class Full(io.StringIO):
        lost = 0

        def write(self, text: str) -> int:
            Full.lost += 1
            return len(text)

    log = StreamLog("web", to=Full(), dropped=lambda: Full.lost)
    for _ in range(5):
        log.note("lost")
    assert Full.lost == 10  # the line and its end, and no word about them
