"""Maintenance of the tables beside a running stream, as stream.maintain says: compaction, and removal of old files.

It has its own thread and never delays the stream: one process of a home does it while the others skip it, an error is
reported and ends nothing, and it ends between two pieces of work when the run does.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sessionize.app.config.pipeline import PipelineConfig
from sessionize.app.locks import exclusive
from sessionize.app.streams.names import instance_of
from sessionize.app.tables.warehouse import Warehouse
from sessionize.engine.accounting import Accounting
from sessionize.engine.run_events import (
    UNOBSERVED,
    MaintenanceFailed,
    MaintenanceFinished,
    MaintenanceUnfinished,
    Observer,
    OrphansKept,
)
from sessionize.engine.schedule import LookbackTiers, Scheduler
from sessionize.engine.stream.clocks import SystemClock
from sessionize.errors import UnavailableError
from sessionize.ports import Clock
from sessionize.session.output_tables import warehouse_names

if TYPE_CHECKING:
    from sessionize.app.tables.maintain import MaintenanceSettings

# Soon after the start, because a process that is restarted often would never get to it otherwise.
_FIRST_S = 300.0


class StreamMaintainer:
    """Maintains the tables of a stream.

    every_s: from one time to the next. stopping: set when the run is to end. observer: gets what was done and what
    failed. settings: what may be done; None: the defaults of `maintain`.
    """

    def __init__(
        self,
        config: PipelineConfig,
        *,
        every_s: float,
        stopping: threading.Event,
        observer: Observer = UNOBSERVED,
        clock: Clock | None = None,
        settings: "MaintenanceSettings | None" = None,
    ) -> None:
        self._config, self._observer, self._settings = config, observer, settings
        self._periodic = Scheduler(
            self._maintain,
            every_s=every_s,
            first_s=min(every_s, _FIRST_S),
            tiers=LookbackTiers([0]),
            clock=clock or SystemClock(),
            stopping=stopping,
            on_error=lambda error: observer.on_event(MaintenanceFailed(error)),
        )

    def around(self, run: Callable[[], Accounting]) -> Accounting:
        """The stream's run, with maintenance beside it. Errors: those of the run."""
        with self._periodic.beside(unfinished=lambda: self._observer.on_event(MaintenanceUnfinished())):
            return run()

    def _maintain(self, _window_ms: int) -> None:
        from sessionize.app.tables.maintain import MaintenanceSettings, maintain

        warehouse = Warehouse.of(self._config)
        with _turn(warehouse) as is_ours:
            if not is_ours:
                return
            done = maintain(
                warehouse,
                self._settings or MaintenanceSettings(),
                tables=_tables_of(self._config, warehouse),
                stop=self._periodic.ending,
            )
        for table in done:
            self._observer.on_event(
                MaintenanceFinished(
                    table=table.table,
                    files=table.files_after,
                    compacted=table.packed,
                    compacted_into=table.packed_into,
                    snapshots_expired=table.snapshots_expired,
                    removed_files=table.freed + table.orphans,
                    removed_bytes=table.freed_bytes + table.orphan_bytes,
                )
            )
            if (problem := table.warning()) is not None:
                self._observer.on_event(OrphansKept(problem))


@contextmanager
def _turn(warehouse: Warehouse) -> Iterator[bool]:
    """Whether this process may do it now; another one of the home may be at it."""
    held = exclusive(warehouse.home, "maintain", "maintenance", local=warehouse.is_local)
    try:
        held.__enter__()
    except UnavailableError:
        yield False
        return
    try:
        yield True
    finally:
        held.__exit__(None, None, None)


def _tables_of(config: PipelineConfig, warehouse: Warehouse) -> list[str]:
    """The pipeline's tables that are there; the database may have others."""
    there = warehouse.tables()
    return [name for name in warehouse_names(config.output.table) if name in there]


def stream_maintainer(
    config: PipelineConfig,
    *,
    stopping: threading.Event,
    observer: Observer = UNOBSERVED,
    clock: Clock | None = None,
) -> StreamMaintainer | None:
    """What maintains the tables beside this process's stream; None when nothing does, when the run ends by itself, or
    when another process of the same topic does. clock: None for the machine's.
    """
    every_s = config.stream.maintain_s
    if every_s is None or config.run.once or config.output.kind != "iceberg":
        return None
    share = instance_of(config)
    # tables in a shared catalog are one process's to maintain; those in a home belong to who writes there
    if share is not None and share[0] > 0 and not Warehouse.of(config).is_local:
        return None
    return StreamMaintainer(config, every_s=every_s, stopping=stopping, observer=observer, clock=clock)
