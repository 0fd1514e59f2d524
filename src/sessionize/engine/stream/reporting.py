"""How a run stands, reported from the thread that polls and from the one that writes."""

import threading
from dataclasses import replace

from sessionize.engine.accounting import Accounting
from sessionize.engine.run_events import CheckpointMergeFailed, EpochCommitted, Observer, StatusChanged
from sessionize.engine.run_events.reports import EpochReport, Status
from sessionize.engine.stream.checkpoints import Checkpoints
from sessionize.kernel.sessionizer import Sessionizer


class StatusReporter:
    """Reports to an observer the status after each poll, every committed epoch, and merges of checkpoints that fail."""

    def __init__(self, observer: Observer, checkpoints: Checkpoints) -> None:
        self._observer, self._checkpoints = observer, checkpoints
        self._status, self._guard = Status(), threading.Lock()
        self._last_merge_error = checkpoints.merge_error

    def polled(self, accounting: Accounting, sessionizer: Sessionizer, *, rate: float, lag: int | None) -> None:
        """Report the status. rate: records a second in this epoch. lag: records left to read, None when unknown."""
        with self._guard:
            self._status = replace(
                self._status,
                consumed=accounting.consumed,
                rate=rate,
                lag=lag,
                watermark_ms=sessionizer.watermark_ms,
                open_sessions=sessionizer.open_sessions,
                sessions=accounting.sessions,
                pending=accounting.pending,
                late=accounting.late,
                rejected=accounting.rejected,
            )
            self._observer.on_event(StatusChanged(self._status))

    def committed(self, report: EpochReport) -> None:
        """Report an epoch that every sink and the checkpoint have."""
        with self._guard:
            self._status = replace(self._status, last_epoch=report)
        self._observer.on_event(EpochCommitted(report))

    def merge_error(self) -> None:
        """Report the error of the last merge, once for each merge that failed; the next ones try again."""
        error = self._checkpoints.merge_error
        if error is not None and error is not self._last_merge_error:
            self._observer.on_event(CheckpointMergeFailed(str(error)))
        self._last_merge_error = error
