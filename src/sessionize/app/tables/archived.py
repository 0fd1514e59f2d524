"""The tables of a pipeline that archives its events, as a reconciliation sees them (engine.reconciliation.Archive)."""

from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from sessionize.app.config.pipeline import PipelineConfig
from sessionize.app.locks import BusyError
from sessionize.app.tables.warehouse import Warehouse
from sessionize.engine.reconcile.diff import Replacement
from sessionize.engine.reconcile.job import Dates
from sessionize.errors import ConfigError
from sessionize.session import columns as col
from sessionize.session.definition import SessionDefinition

if TYPE_CHECKING:
    from sessionize.connectors.iceberg.reconcile_source import IcebergTable
    from sessionize.connectors.iceberg.row_rewrite import RowReplacer

OPERATION = "sessionize.operation"


@dataclass(slots=True)
class ArchivedTables:
    """The tables of a pipeline as they were when it began; sessions first, so that all their events are in the rest."""

    definition: SessionDefinition
    sessions_table: "IcebergTable"
    events_table: "IcebergTable"
    late: "IcebergTable | None"
    _last: str | None = field(init=False)  # the token of the last replacement that these rows are of

    def __post_init__(self) -> None:
        self._last = self._last_replacement(self.sessions_table)

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
        catalog, database = Warehouse.of(config, home=home).open(), config.output.database
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
        definition = config.definition(dialect.columns, dialect.user_name)
        for table in (sessions, events):
            if definition.user_name not in table.schema().column_names:
                theirs = iceberg.user_column_of(table)
                raise ConfigError(
                    "the tables were not made by this pipeline",
                    detail=f"{'.'.join(table.name())} has no user column {definition.user_name!r}"
                    + ("" if theirs is None else f", it is {theirs!r} there"),
                    hint="give the pipeline that made them",
                )
        return cls(definition, sessions, events, late)

    def horizon_ms(self, *, closed: Set[str] = frozenset()) -> int | None:
        """Up to where the sessions are final. An epoch writes them last, so all their events are in the archive.

        closed: writers that hold no open session.
        """
        from sessionize.connectors.iceberg import reconcile_source as archive

        return archive.horizon_of(self.sessions_table, self._both(), closed=closed)

    def newest_ms(self) -> int | None:
        """Archive.newest_ms."""
        from sessionize.connectors.iceberg import reconcile_source as archive

        latest = [archive.latest_time_of(table) for table in self._both()]
        return max((ms for ms in latest if ms is not None), default=None)

    def drained_before(self, end_ms: int) -> pa.Table:
        """Archive.drained_before."""
        from sessionize.connectors.iceberg import reconcile_source as archive

        return archive.drained_before(self.sessions_table, end_ms, user_name=self.definition.user_name)

    def late_after(self, sequence: int) -> pa.Table:
        """Archive.late_after."""
        from sessionize.connectors.iceberg import reconcile_source as archive

        if self.late is None:
            return archive.LATE.empty_table()
        return archive.late_after(self.late, sequence, user_name=self.definition.user_name)

    def events(
        self, users: pa.Array, buckets: frozenset[int], dates: Dates | None, *, rows_max: int | None
    ) -> pa.Table | None:
        """Archive.events; a boundary function of the user's sees all columns."""
        from sessionize.connectors.iceberg.reconcile_source import TooManyRowsError, Wanted, rows_of

        definition, wanted = self.definition, Wanted(users, buckets, dates)
        needed = {col.EVENT_TIME, col.EVENT_ID, col.EVENT_TYPE, col.PAGE, col.VALUE, definition.user_name}
        only = frozenset(needed) if definition.rules.boundary is None else None
        parts = []
        for table in self._both():
            try:
                rows = rows_of(
                    table, wanted, user_name=definition.user_name, date="event_date", only=only, rows_max=rows_max
                )
            except TooManyRowsError:
                return None
            if definition.user_name != col.USER and col.USER in rows.column_names:
                rows = rows.drop_columns([col.USER])
            parts.append(rows.rename_columns([col.USER if n == definition.user_name else n for n in rows.column_names]))
        return pa.concat_tables(parts, promote_options="permissive")

    def sessions(self, users: pa.Array, buckets: frozenset[int], dates: Dates | None) -> pa.Table:
        """Archive.sessions."""
        from sessionize.connectors.iceberg.reconcile_source import Wanted, rows_of

        definition = self.definition
        known = frozenset(definition.columns.schema(definition.user_name).names) | {col.REVISION}
        wanted = Wanted(users, buckets, dates)
        return rows_of(self.sessions_table, wanted, user_name=definition.user_name, date=col.SESSION_DATE, only=known)

    def replace(self, replacement: Replacement, *, token: str) -> None:
        """Archive.replace."""
        self._replacer().replace(
            replacement.removed,
            replacement.added,
            token=token,
            start_ms=replacement.removed_start_ms,
            snapshot_properties={OPERATION: "reconcile"},
            check=self._check_alone,
        )
        self._last = token

    def was_committed(self, token: str) -> bool:
        """Archive.landed."""
        return self._replacer().was_committed(token)

    def reconciled_position(self) -> int:
        """Archive.reconciled_position, which is a property of the sessions."""
        from sessionize.connectors.iceberg import reconcile_source as archive

        return 0 if self.late is None else archive.reconciled_to(self.sessions_table, self.late)

    def save_position(self, sequence: int) -> None:
        """Archive.save_position."""
        from sessionize.connectors.iceberg import reconcile_source as archive

        if self.late is not None:
            self._replacer().set_properties(archive.bookmark(self.late, sequence))

    def _check_alone(self, table: "IcebergTable") -> None:
        """Whoever has a catalog on a server may reconcile from another home: what was computed from rows that somebody
        replaced since would come to be there twice. Errors: BusyError.
        """
        if self._last_replacement(table) != self._last:
            raise BusyError(
                "another reconciliation changed the sessions meanwhile",
                detail=f"table {'.'.join(table.name())}",
                hint="nothing was changed, and the next time goes on; let one process at a time reconcile",
            )

    @staticmethod
    def _last_replacement(table: "IcebergTable") -> str | None:
        from sessionize.connectors.iceberg.row_rewrite import REPLACED

        return table.properties.get(REPLACED)

    def _both(self) -> "list[IcebergTable]":
        """What has events."""
        return [self.events_table] if self.late is None else [self.events_table, self.late]

    def _replacer(self) -> "RowReplacer":
        from sessionize.connectors.iceberg import user_sessions
        from sessionize.connectors.iceberg.row_rewrite import RowReplacer

        return RowReplacer(self.sessions_table, user_sessions(self.definition.user_name))
