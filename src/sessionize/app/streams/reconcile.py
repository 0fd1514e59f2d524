"""Reconciliation of a stream: beside a running one at intervals, and once after a run that ends by itself.

Beside a stream it works in small pieces on its own thread, and what fails is reported and retried the next time. After
a run that ends by itself it is part of the run: unavailable servers are retried, and an error fails the run.
"""

import threading
from collections.abc import Callable, Set

from sessionize.app.build import open_stores
from sessionize.app.config.pipeline import PipelineConfig
from sessionize.app.locks import Turn
from sessionize.app.streams.names import instance_of
from sessionize.app.tables.reconcile import ROWS_MAX, USERS_MAX, quiet, reconcile_tables
from sessionize.app.tables.warehouse import Warehouse
from sessionize.engine.accounting import Accounting
from sessionize.engine.reconcile.diff import check_columns
from sessionize.engine.reconcile.job import ReconcileProgress
from sessionize.engine.retry import Retrier
from sessionize.engine.run_events import (
    UNOBSERVED,
    Observer,
    PhaseChanged,
    ReconcileFailed,
    ReconcileFinished,
    ReconcileSkipped,
    ReconcileUnfinished,
)
from sessionize.engine.run_events.reports import Reconciled
from sessionize.engine.schedule import LookbackTiers, Scheduler
from sessionize.engine.stream.clocks import SystemClock
from sessionize.errors import BusyError
from sessionize.ports import Clock
from sessionize.session.definition import SessionDefinition

# Beside a stream: what is computed at once, so that it takes little memory and ends soon.
_USERS_MAX_BESIDE = 2_000
_ROWS_MAX_BESIDE = 500_000


class StreamReconciler:
    """Reconciles the tables of a stream and its stores as stream.reconcile says.

    writer: under which name the stream's epochs are recorded. every_s: from one time to the next. stopping: set when
    the run is to end. observer: gets what was done, what failed, and what the end of a run waits for.
    """

    def __init__(
        self,
        config: PipelineConfig,
        writer: str,
        *,
        every_s: float,
        stopping: threading.Event,
        observer: Observer = UNOBSERVED,
        clock: Clock | None = None,
    ) -> None:
        self._config, self._writer, self._stopping, self._observer = config, writer, stopping, observer
        self._turn = Turn(config.home, "reconciler")
        self._left_to_another = False
        self._periodic = Scheduler(
            self._look_back,
            every_s=every_s,
            tiers=LookbackTiers(config.stream.reconcile_tiers_ms),
            clock=clock or SystemClock(),
            stopping=stopping,
            on_error=lambda error: observer.on_event(ReconcileFailed(error)),
        )

    def around(self, run: Callable[[], Accounting]) -> Accounting:
        """The stream's run, with the reconciliation beside it, or after it when run.once.

        Errors: those of the run; after it those of reconcile_tables.
        """
        if not self._config.run.once:
            try:
                report = self._observer.on_event
                with self._periodic.beside(
                    ending=lambda: report(PhaseChanged("ending the reconciliation beside the stream")),
                    unfinished=lambda: report(ReconcileUnfinished()),
                ):
                    return run()
            finally:
                self._turn.give_back()
        accounting = run()
        if not self._stopping.is_set():
            self._finish()
        return accounting

    def _look_back(self, window_ms: int) -> None:
        """One process of a home does it for all; another one takes over when it has ended."""
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

    def _skip(self, reason: str) -> None:
        if not self._left_to_another:  # once, not every hour
            self._observer.on_event(ReconcileSkipped(reason))
        self._left_to_another = True

    def _finish(self) -> None:
        stream = self._config.stream
        retrier = Retrier(stream.outage_s, stopping=self._stopping, observer=self._observer)
        # after a drain nothing of this writer is open, also where it left no session that shows it
        closed = frozenset({self._writer} if stream.drain else ())
        self._observer.on_event(PhaseChanged("reconciling late events"))
        retrier.call(
            "reconcile",
            lambda: self._reconcile(closed=closed, stop=self._stopping.is_set, progress=self._report_progress),
        )
        self._observer.on_event(PhaseChanged(None))

    def _report_progress(self, done: int, total: int, so_far: Reconciled) -> None:
        del so_far
        self._observer.on_event(PhaseChanged(f"reconciling late events, {done:,} of {total:,} users"))

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
        self._observer.on_event(ReconcileFinished(window_ms=window_ms, result=done))


def stream_reconciler(
    config: PipelineConfig,
    writer: str,
    definition: SessionDefinition,
    *,
    stopping: threading.Event,
    observer: Observer = UNOBSERVED,
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
    return StreamReconciler(config, writer, every_s=every_s, stopping=stopping, observer=observer, clock=clock)
