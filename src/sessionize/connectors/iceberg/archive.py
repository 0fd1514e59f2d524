"""The tables of a pipeline that archives its events, as the Archive of a reconciliation (ports/)."""

import json
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from sessionize.connectors.iceberg import reconcile_source as archive
from sessionize.connectors.iceberg.catalog import Catalog, load_table, table_names
from sessionize.connectors.iceberg.ownership import spec_of, user_column_of
from sessionize.connectors.iceberg.reconcile_source import IcebergTable, TooManyRowsError, Wanted, rows_of
from sessionize.connectors.iceberg.row_rewrite import REPLACED, RowReplacer
from sessionize.connectors.iceberg.tables import EVENTS, LATE_EVENTS, user_sessions
from sessionize.errors import BusyError, ConfigError
from sessionize.kernel.payload import as_type
from sessionize.ports import Dates, Replacement
from sessionize.session import columns as col
from sessionize.session.columns import SessionColumns
from sessionize.session.definition import SessionDefinition, rule_columns
from sessionize.session.expressions import FIELD_TYPES

OPERATION = "sessionize.operation"


@dataclass(slots=True)
class IcebergArchive:
    """The tables of a pipeline at the start; sessions are read first, so that the others have all their events.

    definition: with the session columns of all runs that wrote the table, so that a replaced row keeps them.
    """

    definition: SessionDefinition
    sessions_table: IcebergTable
    events_table: IcebergTable
    late: IcebergTable | None
    _last: str | None = field(init=False)  # the token of the last replacement in these rows

    def __post_init__(self) -> None:
        self._last = self._last_replacement(self.sessions_table)

    @classmethod
    def open(cls, catalog: Catalog, database: str, table: str, definition: SessionDefinition) -> Self:
        """table: the sessions table. Errors: ConfigError for missing tables, or another user column."""
        sessions = load_table(catalog, database, table)
        names = table_names(catalog, database)
        if EVENTS not in names:
            raise ConfigError(
                "the events were not archived",
                detail=f"the table {database}.{EVENTS} does not exist",
                hint="run the pipeline with output.events = true",
            )
        late = load_table(catalog, database, LATE_EVENTS) if LATE_EVENTS in names else None
        events = load_table(catalog, database, EVENTS)
        user_name = definition.user_name
        for each in (sessions, events):
            if user_name not in each.schema().column_names:
                theirs = user_column_of(each)
                raise ConfigError(
                    "the tables were not made by this pipeline",
                    detail=f"{'.'.join(each.name())} has no user column {user_name!r}"
                    + ("" if theirs is None else f"; there it is {theirs!r}"),
                    hint="give the pipeline that made them",
                )
        if (spec := spec_of(sessions)) is not None:
            of_all = definition.columns.joined(SessionColumns(spec.columns, spec.own))
            definition = replace(definition, columns=of_all)
        return cls(definition, sessions, events, late)

    def horizon_ms(self, *, closed: Set[str] = frozenset()) -> int | None:
        """The time below which sessions are final. An epoch writes them last, so the archive has all their events.

        closed: writers without open sessions.
        """
        return archive.horizon_of(self.sessions_table, self._both(), closed=closed)

    def newest_ms(self) -> int | None:
        """Archive.newest_ms."""
        latest = [archive.latest_time_of(table) for table in self._both()]
        return max((ms for ms in latest if ms is not None), default=None)

    def drained_before(self, end_ms: int) -> pa.Table:
        """Archive.drained_before."""
        return archive.drained_before(self.sessions_table, end_ms, user_name=self.definition.user_name)

    def late_after(self, sequence: int) -> pa.Table:
        """Archive.late_after."""
        if self.late is None:
            return archive.LATE.empty_table()
        return archive.late_after(self.late, sequence, user_name=self.definition.user_name)

    def events(
        self, users: pa.Array, buckets: frozenset[int], dates: Dates | None, *, rows_max: int | None
    ) -> pa.Table | None:
        """Archive.events; a custom boundary function gets all columns."""
        user_name, wanted = self.definition.user_name, Wanted(users, buckets, dates)
        needed = {col.EVENT_TIME, col.EVENT_ID, col.EVENT_TYPE, col.PAGE, col.VALUE, user_name}
        fields = {n: FIELD_TYPES[k] for n, k in self.definition.columns.own.fields if n not in col.EVENT_TYPES}
        needed |= self.definition.columns.event_columns - {col.USER} | ({col.PROPERTIES} if fields else set())
        needed |= rule_columns(self.definition.policy, self.definition.rules)
        only = frozenset(needed) if self.definition.rules.boundary is None else None
        parts = []
        for table in self._both():
            try:
                rows = rows_of(table, wanted, user_name=user_name, date="event_date", only=only, rows_max=rows_max)
            except TooManyRowsError:
                return None
            if user_name != col.USER and col.USER in rows.column_names:
                rows = rows.drop_columns([col.USER])
            rows = rows.rename_columns([col.USER if n == user_name else n for n in rows.column_names])
            parts.append(_with_fields(rows, fields))
        return pa.concat_tables(parts, promote_options="permissive")

    def sessions(self, users: pa.Array, buckets: frozenset[int], dates: Dates | None) -> pa.Table:
        """Archive.sessions."""
        known = frozenset(self.definition.columns.schema(self.definition.user_name).names) | {col.REVISION}
        wanted = Wanted(users, buckets, dates)
        return rows_of(
            self.sessions_table, wanted, user_name=self.definition.user_name, date=col.SESSION_DATE, only=known
        )

    def replace(self, replacement: Replacement, *, token: str) -> None:
        """Archive.replace."""
        self._replacer().replace(
            replacement.removed,
            replacement.added,
            token=token,
            start_ms=replacement.removed_start_ms,
            snapshot_properties={OPERATION: "reconcile"},
            check=self._check_not_replaced,
        )
        self._last = token

    def was_committed(self, token: str) -> bool:
        """Archive.was_committed."""
        return self._replacer().was_committed(token)

    def reconciled_position(self) -> int:
        """Archive.reconciled_position, a property of the sessions table."""
        return 0 if self.late is None else archive.reconciled_to(self.sessions_table, self.late)

    def save_position(self, sequence: int) -> None:
        """Archive.save_position."""
        if self.late is not None:
            self._replacer().set_properties(archive.position_property(self.late, sequence))

    def _check_not_replaced(self, table: IcebergTable) -> None:
        """Refuse to replace rows that another home has replaced through a shared catalog: they would be duplicated.

        Errors: BusyError.
        """
        if self._last_replacement(table) != self._last:
            raise BusyError(
                "another reconciliation changed the sessions at the same time",
                detail=f"table {'.'.join(table.name())}",
                hint="nothing was changed, and the next run continues; let only one process reconcile at a time",
            )

    @staticmethod
    def _last_replacement(table: IcebergTable) -> str | None:
        return table.properties.get(REPLACED)

    def _both(self) -> list[IcebergTable]:
        """The tables with events."""
        return [self.events_table] if self.late is None else [self.events_table, self.late]

    def _replacer(self) -> RowReplacer:
        return RowReplacer(self.sessions_table, user_sessions(self.definition.user_name))


def _with_fields(events: pa.Table, fields: Mapping[str, pa.DataType]) -> pa.Table:
    """The events with these fields in these types.

    A value is in `properties` where the table had a column of that name in another type before the field was mapped.
    """
    for name, kind in fields.items():
        values = as_type(events, name, kind)
        if col.PROPERTIES in events.column_names:
            aside = pc.match_substring(events[col.PROPERTIES], json.dumps(name, ensure_ascii=False))
            aside = pc.and_(pc.fill_null(aside, False), pc.is_null(values))
            if pc.any(aside).as_py():
                found = [_member(text, name) for text in events[col.PROPERTIES].filter(aside).to_pylist()]
                found = as_type(pa.table({name: pa.array(found, pa.string())}), name, kind)
                values = pc.replace_with_mask(values.combine_chunks(), aside.combine_chunks(), found.combine_chunks())
        rest = events.drop_columns([name]) if name in events.column_names else events
        events = rest.append_column(name, values)
    return events


def _member(text: str, name: str) -> str | None:
    """A value of a JSON object as text."""
    value = json.loads(text).get(name)
    return value if isinstance(value, str | None) else json.dumps(value)
