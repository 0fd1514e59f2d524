"""A pipeline's configuration → the source, the outputs and the rules of a run. The composition root of `run`."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sessionize.app.config.pipeline import PipelineConfig, explain_config
from sessionize.app.output_paths import check_output_places
from sessionize.app.tables.rules import owner_of
from sessionize.app.tables.warehouse import Warehouse
from sessionize.engine.accounting import Accounting, Progress, ignore
from sessionize.engine.batch.generated import run_generated
from sessionize.engine.batch.outputs import Outputs
from sessionize.engine.batch.sessions import run_batch
from sessionize.ports import Sink, Source
from sessionize.session import columns as col
from sessionize.session.definition import SessionDefinition

if TYPE_CHECKING:
    from sessionize.app.tables.loading import Load, LoadSource
    from sessionize.connectors import iceberg


@dataclass(frozen=True, slots=True)
class PipelinePlan:
    """A run of a pipeline, before anything is opened. now_ms: what counts as the present for the whole run."""

    config: PipelineConfig
    now_ms: int

    def lines(self) -> list[tuple[str, str, str]]:
        """Every setting that is in force: key, value, where it came from."""
        return explain_config(self.config)

    def open(self, on_change: Callable[[str], None] = lambda change: None) -> "PipelineRun":
        """Open source and outputs. on_change: hears in words what changes in tables that are there.

        Errors: ConfigError, also for a file output that lies among the input; InputError, OutputError.
        """
        config = self.config
        source = self._source()
        definition = config.definition(source.event_columns, source.user_name)
        if config.output.kind != "iceberg":
            from sessionize.app.tables.loading import warn_of_twins

            warn_of_twins(source, on_change)
            return PipelineRun(config, source, self._file_outputs(source, definition), definition)
        return self._into_tables(source, definition, on_change)

    def _source(self) -> "LoadSource":
        config = self.config
        if config.input.kind == "generator":
            from sessionize.app.tables.generated_loads import GeneratedInput

            return GeneratedInput(config.generator(), max_future_ms=config.rules.max_future_ms, now_ms=self.now_ms)
        from sessionize.connectors.files.source import FileSource

        return FileSource(
            list(config.input_paths()),
            dialect=config.dialect(),
            extras=True,
            max_future_ms=config.rules.max_future_ms,
            now_ms=self.now_ms,
        )

    def _file_outputs(self, source: Source, definition: SessionDefinition) -> Outputs:
        from sessionize.connectors.files.sink import FileSink
        from sessionize.connectors.files.source import FileSource

        output = self.config.output
        path = Path(output.path or "")
        rejects = path.with_name(f"{path.stem}.rejected.ndjson")
        if isinstance(source, FileSource):
            check_output_places(self.config.input_paths(), source.files, [path, rejects] if output.rejected else [path])
        sessions = FileSink(path, definition.columns.schema(definition.user_name))
        if not output.rejected:
            return Outputs(sessions=sessions)
        try:
            rejected = FileSink(rejects, col.REJECTED_SCHEMA)
        except BaseException:
            sessions.abort()
            raise
        return Outputs(sessions=sessions, rejected=rejected)

    def _into_tables(
        self, source: "LoadSource", definition: SessionDefinition, on_change: Callable[[str], None]
    ) -> "PipelineRun":
        from sessionize.connectors import iceberg

        output = self.config.output
        catalog, owner, user_name = (
            Warehouse.of(self.config).open(create=True),
            owner_of(self.config),
            definition.user_name,
        )
        sessions_in = iceberg.user_sessions(user_name, layout=output.layout, buckets=output.buckets)
        layouts = {output.table: sessions_in}
        if output.events:
            layouts |= dict.fromkeys(
                (iceberg.EVENTS, iceberg.LATE_EVENTS), iceberg.events(user_name, layout=output.layout)
            )
        if output.rejected:
            layouts[iceberg.REJECTED_EVENTS] = iceberg.rejected_events()
        # all of them are asked before any is made
        iceberg.check_tables(catalog, output.database, layouts.items(), owner=owner)

        load = self._load(source, owner, catalog, tuple(layouts), on_change)

        def sink(table: str) -> Sink | None:
            if table not in layouts:
                return None
            made = iceberg.IcebergSink(
                catalog,
                layouts[table],
                table=table,
                database=output.database,
                overwrite=owner.overwrite,
                owner=owner,
                load=load.mark,
                on_change=on_change,
            )
            return load.sink(made, last=table == output.table)

        written = sink(output.table)
        assert written is not None
        outputs = Outputs(
            sessions=written,
            events=sink(iceberg.EVENTS),
            late=sink(iceberg.LATE_EVENTS),
            rejected=sink(iceberg.REJECTED_EVENTS),
            retried=True,
        )
        return PipelineRun(self.config, source, outputs, definition, load)

    def _load(
        self,
        source: "LoadSource",
        owner: "iceberg.Owner",
        catalog: "iceberg.Catalog",
        tables: tuple[str, ...],
        tell: Callable[[str], None],
    ) -> "Load":
        """What is loaded, files or generated events. Errors: those of begin_load."""
        from sessionize.app.tables.loading import Destination, begin_load

        to = Destination(
            catalog=catalog,
            database=self.config.output.database,
            table=owner.sessions,
            others=tables,
            home=self.config.home,
            pipeline=self.config.name,
            replacing=owner.replacing or "",
            replaces=owner.overwrite,
        )
        return begin_load(source, to, known=self.config.input.known_files, tell=tell)


@dataclass(frozen=True, slots=True)
class PipelineRun:
    """An opened pipeline."""

    config: PipelineConfig
    source: Source
    outputs: Outputs
    definition: SessionDefinition
    load: "Load | None" = None

    def run(self, progress: Progress = ignore, stop: Callable[[], bool] = lambda: False) -> Accounting:
        """Do it. On an error no output shows anything of the run.

        Files are there as a whole, so they are run as a batch, in which nothing is late. Generated events come as from
        a live system: the lateness decides, and stop() ends them early.
        """
        if self.load is not None:
            progress = self.load.watching(progress)
        if self.config.input.kind == "files":
            return run_batch(self.source, self.outputs, self.definition, self.config.batch_options(), progress=progress)
        rules = self.config.rules
        return run_generated(
            self.source,
            self.outputs,
            self.definition,
            lateness_ms=rules.lateness_ms,
            watermark=rules.watermark,
            progress=progress,
            stop=stop,
        )


def plan_pipeline(config: PipelineConfig, *, now_ms: int | None = None) -> PipelinePlan:
    """Plan a run; the present is the system's clock unless given.

    Errors: ConfigError for a user column that is called like one of ours.
    """
    keeps_events = config.output.kind == "iceberg" and config.output.events
    col.check_user_name(config.dialect().user_name, events=keeps_events)
    return PipelinePlan(config, time.time_ns() // 1_000_000 if now_ms is None else now_ms)
