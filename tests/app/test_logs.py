"""The log of a stream: a line for each event, for programs or for people."""

import io
import json
import logging

from sessionize.app.streams.logs import StreamLog, warnings_observed
from sessionize.app.streams.startup import AvailabilityTracker
from sessionize.engine.accounting import Accounting
from sessionize.engine.run_events import (
    CheckpointDamaged,
    EpochCommitted,
    ReconcileFailed,
    ServerUnavailable,
    StreamStopped,
    TableLayoutChanged,
)
from sessionize.engine.run_events.reports import EpochReport
from sessionize.errors import ConfigError


def test_warnings_of_sources_are_lines_of_the_log() -> None:
    written = io.StringIO()
    log = StreamLog("web", level="WARNING", to=written)
    source, sink = logging.getLogger("sessionize.input.kafka"), logging.getLogger("sessionize.output.kafka")
    with warnings_observed(log):
        source.warning("%s: records from offset %d on are gone", "t[0]", 7)
        sink.warning("the topic was created again")
    source.error("nobody listens any more")
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [(line["event"], line["level"], line["problem"]) for line in lines] == [
        ("source_warning", "warning", "t[0]: records from offset 7 on are gone"),
        ("sink_warning", "warning", "the topic was created again"),
    ]


def words_of(log_level: str = "WARNING") -> tuple[StreamLog, io.StringIO]:
    written = io.StringIO()
    return StreamLog("web", level=log_level, readable=True, to=written), written


def test_for_people_a_warning_is_a_sentence() -> None:
    log, written = words_of()
    log.on_event(CheckpointDamaged("checkpoint 7\x1b[31m"))
    log.on_event(ReconcileFailed(ConfigError("it cannot be", detail="here", hint="do that")))
    log.on_event(ServerUnavailable(server="kafka", problem="gone"))
    lines = [line.partition(" ") for line in written.getvalue().splitlines()]
    assert all(len(time) == 8 and time.count(":") == 2 for time, _, _ in lines)
    assert [words for _, _, words in lines] == [
        "warning: checkpoint damaged: checkpoint 7�[31m",
        "warning: reconcile failed: it cannot be; here; do that",
        "warning: server unavailable (server kafka): gone; retrying",
    ]


def test_an_epoch_of_bad_records_says_why_and_what_to_do() -> None:
    log, written = words_of()
    report = EpochReport(
        epoch=3, plan="", consumed=20, sessions=0, late=0, rejected=20, seconds=1.0, write_s=0.0, watermark_ms=None,
        open_sessions=0, lag=None, accounting=Accounting(), reasons={"missing_user": 15, "missing_time": 5},
    )  # fmt: skip
    AvailabilityTracker(log, source="kafka", dialect="clicks").on_event(EpochCommitted(report))
    (line,) = written.getvalue().splitlines()
    words = (
        "error: all rejected (epoch 3, rejected_rows 20, reason missing_user, dialect clicks): is it the right dialect"
    )
    assert words in line


def test_lines_that_could_not_be_written_are_reported_after_the_next_one_that_can() -> None:
    dropped = 0
    written = io.StringIO()
    log = StreamLog("web", to=written, dropped=lambda: dropped)
    log.on_event(TableLayoutChanged("one"))
    dropped = 3
    log.on_event(TableLayoutChanged("two"))
    log.on_event(TableLayoutChanged("three"))
    log.on_event(StreamStopped())
    told = [(line["event"], line.get("count")) for line in map(json.loads, written.getvalue().splitlines())]
    changed = ("table_layout_changed", None)
    assert told == [changed, changed, ("log_lines_dropped", 3), changed, ("stream_stopped", None)]
    assert json.loads(written.getvalue().splitlines()[-1])["log_lines_dropped"] == 3


def test_a_level_leaves_out_what_is_below_it() -> None:
    log, written = words_of("ERROR")
    log.on_event(ServerUnavailable(server="kafka", problem="gone"))
    log.on_event(ReconcileFailed(ConfigError("it cannot be")))
    assert written.getvalue() == ""
    log.on_event(ReconcileFailed(ValueError("a mistake")))
    assert "error: reconcile failed: ValueError: a mistake" in written.getvalue()


def test_the_count_waits_while_nothing_can_be_written() -> None:
    class Full(io.StringIO):
        lost = 0

        def write(self, text: str) -> int:
            Full.lost += 1
            return len(text)

    log = StreamLog("web", to=Full(), dropped=lambda: Full.lost)
    for _ in range(5):
        log.on_event(TableLayoutChanged("lost"))
    assert Full.lost == 10  # the line and its end, and no word about them
