"""Runs that end by themselves: files or made-up events, to one file or to tables; whole, or not at all."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sessionize.app.output_paths import check_output_places
from sessionize.engine.accounting import Accounting, Progress, ignore
from sessionize.engine.batch.outputs import Outputs, abort_all
from sessionize.ports import Sink, Source
from sessionize.session import columns as col

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sessionize.app.config.pipeline import PipelineConfig
    from sessionize.app.hooks import Hooks
    from sessionize.app.inputs import LoadSource
    from sessionize.app.tables.loading import Load
    from sessionize.session.definition import SessionDefinition


@dataclass(slots=True)
class BatchRun:
    """An opened run; when its block is left by an error, no output shows anything of it.

    work: the engine, which reports progress and ends early when asked. stop: asked for that from time to time.
    cut_short: it ended early, with the sessions of what it had read.
    """

    source: Source
    outputs: Outputs
    work: Callable[[Progress, Callable[[], bool]], Accounting]
    load: "Load | None" = None
    stop: Callable[[], bool] = lambda: False
    cut_short: bool = False
    _guard: "AbstractContextManager[None] | None" = field(default=None, init=False)

    @property
    def size_bytes(self) -> int | None:
        """How much there is to read; None when unknown."""
        return self.source.size_bytes

    @property
    def open_sessions(self) -> None:
        """None is open after it."""
        return None

    @property
    def watermark_ms(self) -> None:
        """Everything is final after it."""
        return None

    def run(self, progress: Progress = ignore) -> Accounting:
        """Do it. On an error no output shows anything of the run."""
        if self.load is not None:
            progress = self.load.watching(progress)
        return self.work(progress, self._asked)

    def _asked(self) -> bool:
        self.cut_short = self.stop()
        return self.cut_short

    def __enter__(self) -> Self:
        self._guard = self.outputs.aborted_on_error()
        self._guard.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._guard is not None
        self._guard.__exit__(kind, error, traceback)


def open_batch(config: "PipelineConfig", hooks: "Hooks", *, now_ms: int | None = None) -> BatchRun:
    """Open source and outputs of a pipeline. now_ms: what counts as the present for the whole run, default the clock.

    hooks.on_note gets a text for each change of existing tables, and for files that come twice. Errors:
    ConfigError, also for a file output that lies among the input and a user column called like one of ours;
    InputError, OutputError; StateError for tables of other rules.
    """
    from sessionize.app.build import SOURCES

    keeps_events = config.output.kind == "iceberg" and config.output.events
    col.check_user_name(config.dialect().user_name, events=keeps_events)
    source = SOURCES[config.input.kind](config, time.time_ns() // 1_000_000 if now_ms is None else now_ms)
    definition = config.definition(source.event_columns, source.user_name)
    load = None
    if config.output.kind == "iceberg":
        outputs, load = _tables(config, source, definition, hooks.on_note)
    else:
        from sessionize.app.tables.loading import warn_of_twins

        warn_of_twins(source, hooks.on_note)
        outputs = _file(config, source, definition)

    def work(progress: Progress, stop: Callable[[], bool]) -> Accounting:
        """Files are there as a whole, so they are run as a batch, in which nothing is late. Generated events come as
        from a live system: the lateness decides, and stop() ends them early.
        """
        if config.input.kind == "files":
            from sessionize.engine.batch.sessions import run_batch

            return run_batch(source, outputs, definition, config.batch_options(), progress=progress)
        from sessionize.engine.batch.generated import run_generated

        rules = config.rules
        return run_generated(
            source,
            outputs,
            definition,
            lateness_ms=rules.lateness_ms,
            watermark=rules.watermark,
            progress=progress,
            stop=stop,
        )

    return BatchRun(source, outputs, work, load, stop=hooks.stopping.is_set)


def rejects_beside(path: Path) -> Path:
    """Where the rejected records of a file output go."""
    return path.with_name(f"{path.stem}.rejected.ndjson")


def _file(config: "PipelineConfig", source: "LoadSource", definition: "SessionDefinition") -> Outputs:
    from sessionize.app.table_inputs import local_inputs
    from sessionize.connectors.files.sink import FileSink

    path = Path(config.output.path or "")
    rejects = rejects_beside(path) if config.output.rejected else None
    if config.input.kind == "files":
        outputs = [path] if rejects is None else [path, rejects]
        check_output_places(local_inputs(config.input_paths()), source.files, outputs)
    sessions = FileSink(path, definition.columns.schema(definition.user_name))
    return with_rejects(sessions, rejects)


def with_rejects(sessions: Sink, rejects: Path | None) -> Outputs:
    """A sink of rows, and a file of rejected records beside it. Errors: those of FileSink; then neither is there."""
    from sessionize.connectors.files.sink import FileSink

    try:
        rejected = None if rejects is None else FileSink(rejects, col.REJECTED_SCHEMA)
    except BaseException as error:
        abort_all([sessions], error)
        raise
    return Outputs(sessions=sessions, rejected=rejected)


def _tables(
    config: "PipelineConfig", source: "LoadSource", definition: "SessionDefinition", on_note: Callable[[str], None]
) -> "tuple[Outputs, Load]":
    from sessionize.app.tables.loading import Destination, begin_load
    from sessionize.app.tables.rules import owner_of
    from sessionize.app.tables.warehouse import Warehouse

    warehouse, owner, output = Warehouse.of(config), owner_of(config), config.output
    catalog = warehouse.open(create=True)
    from sessionize.connectors import iceberg

    user_name = definition.user_name
    layouts = {output.table: iceberg.user_sessions(user_name, layout=output.layout, buckets=output.buckets)}
    if output.events:
        layouts |= dict.fromkeys((iceberg.EVENTS, iceberg.LATE_EVENTS), iceberg.events(user_name, layout=output.layout))
    if output.rejected:
        layouts[iceberg.REJECTED_EVENTS] = iceberg.rejected_events()
    # all of them are asked before any is made
    iceberg.check_tables(catalog, warehouse.database, layouts.items(), owner=owner)
    to = Destination(
        catalog=catalog,
        database=warehouse.database,
        table=output.table,
        others=tuple(layouts),
        home=warehouse.home,
        pipeline=config.name,
        replacing=owner.replacing or "",
        replaces=owner.overwrite,
    )
    load = begin_load(source, to, known=config.input.known_files, on_note=on_note)

    def sink(table: str) -> Sink:
        made = iceberg.IcebergSink(
            catalog,
            layouts[table],
            table=table,
            database=warehouse.database,
            overwrite=owner.overwrite,
            owner=owner,
            load=load.mark,
            on_change=on_note,
        )
        return load.sink(made, last=table == output.table)

    sinks = {table: sink(table) for table in layouts}
    outputs = Outputs(
        sessions=sinks[output.table],
        events=sinks.get(iceberg.EVENTS),
        late=sinks.get(iceberg.LATE_EVENTS),
        rejected=sinks.get(iceberg.REJECTED_EVENTS),
        retried=True,
    )
    return outputs, load
