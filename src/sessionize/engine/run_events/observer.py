"""Who observes a run, and how several observers get its events without harm to the run or to each other."""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar

from sessionize.engine.run_events.base import Event, Level

E = TypeVar("E", bound=Event)

_LOG = logging.getLogger("sessionize.observers")


@dataclass(frozen=True, slots=True)
class LogLinesDropped(Event):
    """Lines of the log could not be written before this one. count: so many since the last event of this kind."""

    name: ClassVar[str] = "log_lines_dropped"
    default_level: ClassVar[Level] = "warning"
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserverFailed(Event):
    """An observer raised an error, and may lack events; reported once for each observer."""

    name: ClassVar[str] = "observer_failed"
    default_level: ClassVar[Level] = "error"
    observer: str
    problem: str


class Observer(Protocol):
    """Takes every event of a run.

    It is called on the thread where the event happens, also on several at once, and the run waits for it: it keeps what
    it needs and returns. What it raises ends nothing (Observers).
    """

    def on_event(self, event: Event, /) -> None:
        """Take one event."""


class Unobserved:
    """The Observer that does nothing."""

    def on_event(self, event: Event, /) -> None:
        """Nothing."""


UNOBSERVED = Unobserved()


class Observers:
    """Gives each event to every one of these observers, in this order.

    An Exception of one is caught, and the others get an ObserverFailed, once for each observer. Where there is no
    other, the error goes to the logger `sessionize.observers`. An observer that failed still gets the events that
    follow. A BaseException, such as KeyboardInterrupt, passes through.
    """

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers
        self._failed: set[int] = set()
        self._guard = threading.Lock()

    def on_event(self, event: Event, /) -> None:
        """Give it to all."""
        for number, observer in enumerate(self._observers):
            try:
                observer.on_event(event)
            except Exception as error:
                self._report(number, error)

    def _report(self, number: int, error: Exception) -> None:
        with self._guard:
            if number in self._failed:
                return
            self._failed.add(number)
            others = [other for at, other in enumerate(self._observers) if at not in self._failed]
        failed = ObserverFailed(
            observer=type(self._observers[number]).__name__, problem=f"{type(error).__name__}: {error}"
        )
        if not others:
            _LOG.error("observer %s failed: %s", failed.observer, failed.problem, exc_info=error)
        for other in others:
            with suppress(Exception):  # it is reported by the next event that it fails with
                other.on_event(failed)


class Handler(Generic[E]):
    """An Observer that calls a function with the events of one class."""

    def __init__(self, kind: type[E], call: Callable[[E], None]) -> None:
        self._kind, self._call = kind, call

    def on_event(self, event: Event, /) -> None:
        """Call the function, if the event is of that class."""
        if isinstance(event, self._kind):
            self._call(event)
