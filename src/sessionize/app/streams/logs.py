"""The log of a stream: one line for each epoch, outage and stop; JSON, so that other programs can read it, or words.

A line that cannot be written is dropped and counted by whoever writes it; the next one that can be written says so.
"""

import logging
import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from sessionize.app.extras import requires_extra
from sessionize.engine.stream.status import EpochReport
from sessionize.errors import SessionizeError

with requires_extra("stream", "a stream"):
    import structlog

if TYPE_CHECKING:
    from sessionize.connectors.kafka.oversized import Unfit

INPUTS = logging.getLogger("sessionize.input")  # sources warn by loggers below it
OUTPUTS = logging.getLogger("sessionize.output")  # and so do sinks
LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40}


class StreamLog:
    """Writes to stderr, or to `to`. level: DEBUG, INFO, WARNING or ERROR.

    outages: False where somebody else shows which servers are unavailable. dialect: what the records are read as.
    readable: lines for people, not JSON. dropped: how many lines could not be written so far.
    """

    def __init__(
        self,
        pipeline: str,
        *,
        level: str = "INFO",
        outages: bool = True,
        dialect: str | None = None,
        readable: bool = False,
        dropped: Callable[[], int] = lambda: 0,
        to: TextIO | None = None,
    ) -> None:
        self._outages, self._dialect = outages, dialect
        self._dropped, self._dropped_told = dropped, 0
        self._log = structlog.wrap_logger(
            structlog.PrintLogger(to or sys.stderr),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                _as_words if readable else structlog.processors.JSONRenderer(),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        ).bind(pipeline=pipeline)
        self._away: dict[str, str] = {}

    def epoch(self, report: EpochReport) -> None:
        """An epoch was committed; one in which nothing could be used, or most events are late, is worth a warning."""
        self._write("info", "epoch", **report.as_log())
        if report.all_rejected:
            self._write(
                "warning",
                "all rejected",
                epoch=report.epoch,
                rejected=report.rejected,
                reason=max(report.reasons, key=lambda reason: report.reasons[reason], default=None),
                dialect=self._dialect,
                then="is it the right dialect, or are the fields named right? `sessionize rejected` shows the records",
            )
        if report.mostly_late:
            self._write(
                "warning",
                "mostly late",
                epoch=report.epoch,
                late=report.late,
                records=report.consumed,
                watermark_ms=report.watermark_ms,
                then="are the clocks of the senders right, is rules.lateness long enough, or is this a backfill? late "
                "events are kept in late_events, and `sessionize reconcile` merges them into the sessions",
            )

    def unavailable(self, unavailable: dict[str, str]) -> None:
        """Which servers are away now, and what they said; logged when it changes."""
        if not self._outages:
            return
        for who in unavailable.keys() - self._away.keys():
            self._write("warning", "away", server=who, problem=unavailable[who], then="trying again")
        for who in self._away.keys() - unavailable.keys():
            self._write("warning", "back", server=who)
        self._away = dict(unavailable)

    def unfit(self, unfit: "Unfit") -> None:
        """Rows of an epoch were larger than their topic takes, and went out shortened, or not at all."""
        self._write(
            "warning",
            "rows shortened" if unfit.shortened else "rows skipped",
            topic=unfit.topic,
            rows=unfit.count,
            limit_bytes=unfit.limit_bytes,
            largest=[row.as_log() for row in unfit.shown],
            then="the tables and stores have the whole rows; raise max.message.bytes of the topic for those to come",
        )

    def failed(self, event: str, error: Exception) -> None:
        """Something beside the stream failed, which goes on."""
        if isinstance(error, SessionizeError):
            self._write("warning", event, problem=error.message, detail=error.detail, hint=error.hint)
        else:
            self._write("error", event, problem=f"{type(error).__name__}: {error}")

    def warning(self, what: str, which: str) -> None:
        """Something that the run does without (stream_options.Listeners.warning), as a warning `state-<what>`."""
        self._write("warning", f"state-{what}", problem=which)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """In this block, what sources and outputs warn of is in the log too."""
        told = {
            INPUTS: _Told(lambda problem: self._write("warning", "input", problem=problem)),
            OUTPUTS: _Told(lambda problem: self._write("warning", "output", problem=problem)),
        }
        for logger, handler in told.items():
            logger.addHandler(handler)
        try:
            yield
        finally:
            for logger, handler in told.items():
                logger.removeHandler(handler)

    def note(self, event: str, **fields: object) -> None:
        """Anything else worth a line. Not for a signal's handler, which may interrupt another line."""
        self._write("info", event, **fields)

    def _write(self, level: str, event: str, **fields: object) -> None:
        before = self._dropped()
        getattr(self._log, level)(event, **fields)
        count = self._dropped() - self._dropped_told
        if count and self._dropped() == before:  # that one could be written: so can this
            self._log.warning("log lines dropped", count=count)
            self._dropped_told += count


def _as_words(logger: object, method: str, event: MutableMapping[str, Any]) -> str:
    """`12:03:44 warning: all rejected (epoch 3, rejected 100): is it the right dialect?`"""
    at = str(event.pop("timestamp"))[11:19]
    level, what = event.pop("level"), event.pop("event")
    del event["pipeline"]  # there is one on a terminal
    sentences = [event.pop(name) for name in ("problem", "detail", "then", "hint") if name in event]
    values = ", ".join(f"{name} {value}" for name, value in event.items() if value is not None)
    words = [f"{what} ({values})" if values else str(what), *(str(each) for each in sentences if each)]
    text = f"{at} {level}: {': '.join(words[:2])}{''.join(f'; {word}' for word in words[2:])}"
    return "".join(char if char.isprintable() else "�" for char in text)


class _Told(logging.Handler):
    """Hands each warning on."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(record.getMessage())
