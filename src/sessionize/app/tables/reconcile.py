"""`reconcile`: late events into the sessions of the tables, until they equal a batch over all archived events.

engine/reconcile/job.py does the work; here are the tables and stores of a pipeline, and who else may be at them.
"""

import contextlib
from collections.abc import Callable, Sequence, Set
from pathlib import Path

from sessionize.app.build import open_stores
from sessionize.app.config.pipeline import PipelineConfig
from sessionize.app.locks import engines_stopped, exclusive
from sessionize.app.options import load_with_overrides
from sessionize.app.tables.rules import by_the_tables
from sessionize.app.tables.warehouse import Warehouse
from sessionize.app.warn import Warn
from sessionize.engine.reconcile.intents import IntentLog
from sessionize.engine.reconcile.job import ReconcileJob, ReconcileProgress
from sessionize.engine.run_events.reports import Reconciled
from sessionize.errors import ConfigError
from sessionize.ports import Replacer
from sessionize.session.durations import parse_duration_ms

__all__ = ["ReconcileProgress", "Reconciled", "quiet", "reconcile_pipeline", "reconcile_tables"]

USERS_MAX = 20_000  # users of one group, and so of one commit
ROWS_MAX = 4_000_000  # events of a group in memory; a group that has more is divided


def quiet(done: int, total: int, so_far: Reconciled) -> None:
    """The progress of nobody."""


def reconcile_pipeline(
    pipeline: str | None,
    settings: list[str] | None,
    home: Path | None,
    *,
    window: str | None,
    drained: bool,
    dry_run: bool,
    progress: ReconcileProgress,
    warn: Warn,
) -> Reconciled:
    """Reconcile the tables and stores of a pipeline by the rules that the tables were made by.

    pipeline, settings, home: as load_with_overrides takes them. window: how far back to look, as text. warn: gets a
    text where the pipeline has other rules. Errors: those of load_with_overrides and reconcile_tables.
    """
    window_ms = None if window is None else parse_duration_ms(window, name="--window")
    config = by_the_tables(load_with_overrides(pipeline, settings, home), warn=warn)
    with open_stores(config) as stores:
        return reconcile_tables(
            config.home,
            config,
            window_ms=window_ms,
            drained=drained,
            dry_run=dry_run,
            stores=stores,
            progress=progress,
        )


def reconcile_tables(
    home: Path,
    config: PipelineConfig,
    *,
    window_ms: int | None = None,
    drained: bool = False,
    closed: Set[str] = frozenset(),
    dry_run: bool = False,
    stores: Sequence[Replacer] = (),
    progress: ReconcileProgress = quiet,
    stop: Callable[[], bool] = lambda: False,
    users_max: int = USERS_MAX,
    rows_max: int = ROWS_MAX,
) -> Reconciled:
    """Reconcile the tables of a pipeline; safe beside running engines, one reconciliation at a time.

    window_ms: look only at late events this far before the newest event; they are all looked at again by a call
    without it. drained: nothing is open, whatever the tables say, and no engine goes on in this home meanwhile;
    closed: nothing of these writers is. stores: get the same replacements after Iceberg, also those of a call that was
    interrupted in between; each has to hold what the tables hold. stop: asked from time to time whether to end early,
    which loses nothing.
    Errors: ConfigError where there is nothing that could be reconciled; StateError for drained beside an engine;
    UnavailableError while another one runs, or when something is not there now; OutputError.
    """
    if config.output.kind != "iceberg":
        raise ConfigError(
            "only tables can be reconciled",
            detail=f"output.kind = {config.output.kind}",
            hint="late events are archived only with output.kind = iceberg",
        )
    warehouse = Warehouse.of(config, home=home)
    from sessionize.connectors.iceberg.archive import IcebergArchive
    from sessionize.connectors.iceberg.errors import map_errors

    with (
        contextlib.nullcontext()
        if dry_run
        else exclusive(home, "reconcile", "reconciliation", local=warehouse.is_local),
        engines_stopped(home, "reconcile --drained") if drained else contextlib.nullcontext(),
        map_errors("the tables cannot be reconciled", warehouse.database),
    ):
        dialect = config.dialect()
        definition = config.definition(dialect.columns, dialect.user_name)
        archive = IcebergArchive.open(warehouse.open(), warehouse.database, config.output.table, definition)
        work = ReconcileJob(
            archive.definition,
            archive,
            stores=stores,
            unfinished=IntentLog(home / "reconcile-pending"),
            horizon_ms=None if drained else archive.horizon_ms(closed=closed),
            rows_max=rows_max,
            dry_run=dry_run,
            stop=stop,
        )
        return work.run(window_ms=window_ms, users_max=users_max, progress=progress)
