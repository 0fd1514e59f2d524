"""The tables of a pipeline that archives its events: what reconciling reads, and how their sessions are made."""

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sessionize.app.catalogs import open_catalog_of
from sessionize.app.config import PipelineConfig
from sessionize.engine.batch import Job
from sessionize.errors import ConfigError

if TYPE_CHECKING:
    from sessionize.connectors.iceberg.archive import IcebergTable


@dataclass(slots=True)
class ArchivedTables:
    """The tables of a pipeline as they were when it began; sessions first, so that all their events are in the rest."""

    job: Job
    sessions: "IcebergTable"
    events: "IcebergTable"
    late: "IcebergTable | None"

    @classmethod
    def of(cls, home: Path, config: PipelineConfig) -> "ArchivedTables":
        """Open them. Errors: ConfigError for tables that are not there or of another pipeline."""
        from sessionize.connectors import iceberg

        if config.output.kind != "iceberg":
            raise ConfigError(
                "only tables can be reconciled",
                detail=f"output.kind = {config.output.kind}",
                hint="events that came late are archived with output.kind = iceberg alone",
            )
        catalog, database = open_catalog_of(config, home=home, create=False), config.output.database
        sessions = iceberg.load_table(catalog, database, config.output.table)
        names = iceberg.table_names(catalog, database)
        if iceberg.EVENTS not in names:
            raise ConfigError(
                "the events were not archived",
                detail=f"there is no table {database}.{iceberg.EVENTS}",
                hint="run the pipeline with output.events = true",
            )
        late = iceberg.load_table(catalog, database, iceberg.LATE_EVENTS) if iceberg.LATE_EVENTS in names else None
        events = iceberg.load_table(catalog, database, iceberg.EVENTS)
        dialect = config.dialect()
        job = config.job(dialect.columns, dialect.user_name)
        for table in (sessions, events):
            if job.user_name not in table.schema().column_names:
                theirs = iceberg.user_column_of(table)
                raise ConfigError(
                    "the tables were not made by this pipeline",
                    detail=f"{'.'.join(table.name())} has no user column {job.user_name!r}"
                    + ("" if theirs is None else f", it is {theirs!r} there"),
                    hint="give the pipeline that made them",
                )
        return cls(job, sessions, events, late)

    def horizon_ms(self, *, closed: Set[str] = frozenset()) -> int | None:
        """Up to where the sessions are final. An epoch writes them last, so all their events are in the archive.

        closed: writers that hold no open session.
        """
        from sessionize.connectors.iceberg import archive

        return archive.horizon_of(self.sessions, [t for t in (self.events, self.late) if t is not None], closed=closed)
