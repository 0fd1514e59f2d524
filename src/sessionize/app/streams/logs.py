"""The log of a stream: one line for each event, as JSON, so that other programs can read it, or in words.

The program that writes a line counts it when stderr does not accept it; the next line that is written is followed by
the number of lines that were dropped.
"""

import logging
import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TextIO

from sessionize.app.extras import requires_extra
from sessionize.engine.run_events import (
    Event,
    LogLinesDropped,
    Observer,
    ServerRecovered,
    ServerUnavailable,
    SinkWarning,
    SourceWarning,
    StreamStopped,
)

with requires_extra("stream", "a stream"):
    import structlog

INPUTS = logging.getLogger("sessionize.input")  # sources warn by loggers below it
OUTPUTS = logging.getLogger("sessionize.output")  # and so do sinks
LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40}


class StreamLog:
    """An Observer that writes each event to stderr, or to `to`. level: DEBUG, INFO, WARNING or ERROR.

    outages: False where the status line shows which servers are unavailable. readable: lines for people, not JSON.
    dropped: how many lines could not be written so far.
    """

    def __init__(
        self,
        pipeline: str,
        *,
        level: str = "INFO",
        outages: bool = True,
        readable: bool = False,
        dropped: Callable[[], int] = lambda: 0,
        to: TextIO | None = None,
    ) -> None:
        self._outages, self._level = outages, LEVELS[level]
        self._dropped, self._dropped_reported = dropped, 0
        self._log = structlog.wrap_logger(
            structlog.PrintLogger(to or sys.stderr),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                _as_words if readable else structlog.processors.JSONRenderer(),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        ).bind(pipeline=pipeline)

    def on_event(self, event: Event, /) -> None:
        """Write the line of an event. Not for a signal's handler, which may interrupt another line."""
        if LEVELS[event.level.upper()] < self._level:
            return
        if not self._outages and isinstance(event, ServerUnavailable | ServerRecovered):
            return
        before = self._dropped()
        if isinstance(event, StreamStopped):
            event = replace(event, log_lines_dropped=before)
        self._write(event)
        count = self._dropped() - self._dropped_reported
        if count and self._dropped() == before:  # that line could be written, so this one can
            self._write(LogLinesDropped(count))
            self._dropped_reported += count

    def _write(self, event: Event) -> None:
        getattr(self._log, event.level)(event.name, **event.fields())


@contextmanager
def warnings_observed(observer: Observer) -> Iterator[None]:
    """In this block the observer also gets what sources and sinks warn of by their loggers."""
    handlers = {
        INPUTS: _Reports(lambda problem: observer.on_event(SourceWarning(problem))),
        OUTPUTS: _Reports(lambda problem: observer.on_event(SinkWarning(problem))),
    }
    for logger, handler in handlers.items():
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, handler in handlers.items():
            logger.removeHandler(handler)


def _as_words(logger: object, method: str, event: MutableMapping[str, Any]) -> str:
    """`12:03:44 error: all rejected (epoch 3, rejected_rows 100): is it the right dialect?`"""
    at = str(event.pop("timestamp"))[11:19]
    level, what = event.pop("level"), str(event.pop("event")).replace("_", " ")
    del event["pipeline"]  # a terminal shows only one
    sentences = [event.pop(name) for name in ("problem", "detail", "then", "hint") if name in event]
    values = ", ".join(f"{name} {value}" for name, value in event.items() if value is not None)
    words = [f"{what} ({values})" if values else what, *(str(each) for each in sentences if each)]
    text = f"{at} {level}: {': '.join(words[:2])}{''.join(f'; {word}' for word in words[2:])}"
    return "".join(char if char.isprintable() else "�" for char in text)


class _Reports(logging.Handler):
    """Passes each warning on as text."""

    def __init__(self, report: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        self._report(record.getMessage())
