"""A stream that runs beside a test, which meanwhile breaks the world around it."""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from sessionize.engine.accounting import Accounting
from sessionize.engine.run_events import UNOBSERVED, Observer, Observers
from sessionize.engine.run_events.reports import EpochReport, Status
from sessionize.testing.observers import Calls

_TIMEOUT_S = 120.0
_LOOK_EVERY_S = 0.005


class BackgroundRun:
    """Opens and runs a stream in a thread, from start to its end.

    open_stream, config: what to run, app.streams.run.open_stream or something like it. observer: gets its events too.
    more: passed to open_stream. reports: the epochs committed so far. status: the last one. unavailable: every server
    that was reported as unavailable, and the last problem of each.
    """

    def __init__(
        self,
        open_stream: Callable[..., AbstractContextManager[Any]],
        config: Any,
        *,
        observer: Observer = UNOBSERVED,
        **more: Any,
    ) -> None:
        self.reports: list[EpochReport] = []
        self.status = Status()
        self.unavailable: dict[str, str] = {}
        self.stopping = threading.Event()
        self._accounting: Accounting | None = None
        self._error: BaseException | None = None

        def run() -> None:
            try:
                observers = Observers(Calls(status=self._note, epoch=self.reports.append), observer)
                with open_stream(config, stopping=self.stopping, observer=observers, **more) as opened:
                    self._accounting = opened.run()
            except BaseException as error:
                self._error = error

        self._thread = threading.Thread(target=run, name="background-run")
        self._thread.start()

    def wait_for(self, is_so: Callable[[], object], what: str, *, timeout_s: float = _TIMEOUT_S) -> None:
        """Return when it is so. Errors: the run's own, when it ended by one; AssertionError when it takes too long."""
        until = time.monotonic() + timeout_s
        while not is_so():
            if self._error is not None:
                raise self._error
            if time.monotonic() > until or not self._thread.is_alive():
                self.stopping.set()
                raise AssertionError(f"{what} has not come; {self.status}")
            threading.Event().wait(_LOOK_EVERY_S)

    def wait_for_epochs(self, more: int) -> None:
        """Return when so many more epochs are committed. Errors: those of wait_for."""
        wanted = len(self.reports) + more
        self.wait_for(lambda: len(self.reports) >= wanted, f"epoch {wanted} of this run")

    def has_read(self, records: int) -> bool:
        """Whether so many records were read, by the last status."""
        return self.status.consumed >= records

    def end(self, *, stop: bool = False) -> Accounting:
        """Wait for the end, after asking for it with `stop`. Errors: the run's own."""
        if stop:
            self.stopping.set()
        self._thread.join(_TIMEOUT_S)
        if self._thread.is_alive():
            raise AssertionError(f"the run does not end; {self.status}")
        if self._error is not None:
            raise self._error
        if self._accounting is None:
            raise AssertionError("the run came to nothing")
        return self._accounting

    def __enter__(self) -> "BackgroundRun":
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._thread.join(_TIMEOUT_S)

    def _note(self, status: Status) -> None:
        self.status = status
        self.unavailable.update(status.unavailable)
