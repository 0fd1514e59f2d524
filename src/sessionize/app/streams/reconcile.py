"""Reconciling that belongs to a stream: beside a running one at intervals, and once behind one that came to its end.

Beside a stream it works in small pieces on a thread of its own, and whatever fails is told and tried again the next
time. Behind a run that ends by itself it is part of the run: servers that are away are waited for, and an error counts.
"""

import threading
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sessionize.app.config.pipeline import PipelineConfig
from sessionize.app.locks import Turn
from sessionize.app.streams.build import instance_of, open_stores
from sessionize.app.streams.startup import AvailabilityTracker
from sessionize.app.tables.reconcile import ROWS_MAX, USERS_MAX, quiet, reconcile_tables
from sessionize.app.tables.warehouse import Warehouse
from sessionize.engine.accounting import Accounting
from sessionize.engine.reconcile.diff import check_columns
from sessionize.engine.reconcile.job import Reconciled, ReconcileProgress
from sessionize.engine.retry import Retrier
from sessionize.engine.schedule import LookbackTiers, Scheduler
from sessionize.engine.stream.clocks import SystemClock
from sessionize.errors import BusyError
from sessionize.ports import Clock
from sessionize.session.definition import SessionDefinition

if TYPE_CHECKING:
    from sessionize.app.streams.logs import StreamLog

# Beside a stream: what is computed in one go, so that it neither takes much memory nor ends late.
_USERS_MAX_BESIDE = 2_000
_ROWS_MAX_BESIDE = 500_000


class StreamReconciler:
    """Reconciles the tables of a stream and its stores as stream.reconcile says.

    writer: under which name the stream's epochs are recorded. every_s: from one time to the next. stopping: set when
    the run is to end. log: hears what was done and what went wrong. outages: hear what the end of a run waits for.
    """

    def __init__(
        self,
        config: PipelineConfig,
        writer: str,
        *,
        every_s: float,
        stopping: threading.Event,
        outages: AvailabilityTracker,
        log: "StreamLog | None" = None,
        clock: Clock | None = None,
    ) -> None:
        self._config, self._writer, self._stopping, self._log = config, writer, stopping, log
        self._outages = outages
        self._turn = Turn(config.home, "reconciler")
        self._left_to_another = False
        self._periodic = Scheduler(
            self._look_back,
            every_s=every_s,
            tiers=LookbackTiers(config.stream.reconcile_tiers_ms),
            clock=clock or SystemClock(),
            stopping=stopping,
            on_error=self._failed,
        )

    def around(self, run: Callable[[], Accounting]) -> Accounting:
        """The stream's run, with reconciling beside it, or behind it when run.once. Errors: those of the run; behind
        it those of reconcile_tables.
        """
        if not self._config.run.once:
            try:
                with self._beside():
                    return run()
            finally:
                self._turn.give_back()
        accounting = run()
        if not self._stopping.is_set():
            self._finish()
        return accounting

    @contextmanager
    def _beside(self) -> Iterator[None]:
        self._periodic.start()
        try:
            yield
        except KeyboardInterrupt:
            self._periodic.close(wait_s=0)  # asked for twice: what is under way is finished by the next time
            raise
        except BaseException:
            self._periodic.cancel()
            raise
        self._outages.note_doing("ending the reconciliation beside the stream")
        if not self._periodic.close() and self._log is not None:
            self._log.note("reconcile left", problem="it takes long to end; the next run finishes it")

    def _look_back(self, window_ms: int) -> None:
        """One process of a home does it for all; the others take over when it has ended."""
        if not self._turn.is_mine():
            self._skip("another process of this home reconciles")
            return
        self._left_to_another = False
        try:
            self._reconcile(
                window_ms=window_ms, stop=self._periodic.ending, users_max=_USERS_MAX_BESIDE, rows_max=_ROWS_MAX_BESIDE
            )
        except BusyError as error:
            self._skip(error.message)

    def _skip(self, why: str) -> None:
        if self._log is not None and not self._left_to_another:  # once, not every hour
            self._log.note("reconcile skipped", why=why)
        self._left_to_another = True

    def _finish(self) -> None:
        stream = self._config.stream
        retrier = Retrier(stream.outage_s, stopping=self._stopping, on_unavailable=self._outages.note)
        # after a drain nothing of this writer is open, also where no session was left to say so
        closed = frozenset({self._writer} if stream.drain else ())
        self._outages.note_doing("reconciling late events")
        retrier.call(
            "reconcile",
            lambda: self._reconcile(closed=closed, stop=self._stopping.is_set, progress=self._tell_progress),
        )
        self._outages.note_doing(None)

    def _tell_progress(self, done: int, total: int, so_far: Reconciled) -> None:
        del so_far
        self._outages.note_doing(f"reconciling late events, {done:,} of {total:,} users")

    def _reconcile(
        self,
        *,
        stop: Callable[[], bool],
        window_ms: int | None = None,
        closed: Set[str] = frozenset(),
        progress: ReconcileProgress = quiet,
        users_max: int = USERS_MAX,
        rows_max: int = ROWS_MAX,
    ) -> None:
        config = self._config
        with open_stores(config) as stores:
            done = reconcile_tables(
                config.home,
                config,
                window_ms=window_ms,
                closed=closed,
                stores=stores,
                progress=progress,
                stop=stop,
                users_max=users_max,
                rows_max=rows_max,
            )
        if self._log is not None:
            self._log.note("reconciled", window_ms=window_ms, **done.as_dict())

    def _failed(self, error: Exception) -> None:
        if self._log is not None:
            self._log.failed("reconcile failed", error)


def stream_reconciler(
    config: PipelineConfig,
    writer: str,
    definition: SessionDefinition,
    *,
    stopping: threading.Event,
    outages: AvailabilityTracker,
    log: "StreamLog | None" = None,
    clock: Clock | None = None,
) -> StreamReconciler | None:
    """What reconciles beside this process's stream; None when nothing does, or another process of the same topic does.

    clock: None for the machine's. Errors: ConfigError for sessions that cannot be reconciled.
    """
    every_s = config.reconcile_s
    if every_s is None:
        return None
    check_columns(definition)
    share = instance_of(config)
    # tables in a shared catalog are one process's to reconcile; those in a home belong to who writes there
    if share is not None and share[0] > 0 and not Warehouse.of(config).is_local:
        return None
    return StreamReconciler(config, writer, every_s=every_s, stopping=stopping, outages=outages, log=log, clock=clock)
