"""Observers for tests: one that records the events of a run, and one that calls functions, which may fail the test."""

from collections.abc import Callable
from typing import TypeVar

from sessionize.engine.run_events import EpochCommitted, Event, StatusChanged, StepReached
from sessionize.engine.run_events.reports import EpochReport, Status

E = TypeVar("E", bound=Event)


class RecordedEvents(list[Event]):
    """An Observer that keeps every event, in the order in which they came."""

    def on_event(self, event: Event, /) -> None:
        """Keep it."""
        self.append(event)

    def of(self, kind: type[E]) -> list[E]:
        """The events of one class."""
        return [event for event in tuple(self) if isinstance(event, kind)]

    def names(self, *kinds: type[Event]) -> list[str]:
        """The names of the events of these classes, or of all but progress."""
        return [
            event.name for event in tuple(self) if isinstance(event, kinds) or (not kinds and event.level != "debug")
        ]


class FailedObserver(BaseException):
    """A function of Calls raised an error; the run ends, though it continues when an observer raises an Exception."""


class Calls:
    """An Observer that calls functions: with every step's name, epoch's report, status, event.

    Errors: FailedObserver for an Exception of theirs, so that an assertion in one fails the test.
    """

    def __init__(
        self,
        *,
        step: Callable[[str], object] | None = None,
        epoch: Callable[[EpochReport], object] | None = None,
        status: Callable[[Status], object] | None = None,
        event: Callable[[Event], object] | None = None,
    ) -> None:
        self._step, self._epoch, self._status, self._event = step, epoch, status, event

    def on_event(self, event: Event, /) -> None:
        """Call those that it is for."""
        try:
            match event:
                case StepReached(step) if self._step is not None:
                    self._step(step)
                case EpochCommitted(report) if self._epoch is not None:
                    self._epoch(report)
                case StatusChanged(status) if self._status is not None:
                    self._status(status)
            if self._event is not None:
                self._event(event)
        except Exception as error:
            raise FailedObserver from error
