"""The sink of a stream: each epoch reaches each table exactly once (ports.EpochSink), also after a crash.

The number of the last epoch of each writer is a property of the table, set by the same commit that adds the rows: it
survives when snapshots expire or another engine rewrites files. A commit holds only for the snapshot at which the
record was looked up, so two engines under one name cannot both write an epoch. The tables are committed one after
the other, sessions last: whoever sees a session finds its events.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pyiceberg.table import Table

from sessionize.connectors.iceberg.catalog import DATABASE, Catalog
from sessionize.connectors.iceberg.layouts import LayoutName
from sessionize.connectors.iceberg.ownership import BEGUN, EPOCH, WATERMARK, Owner
from sessionize.connectors.iceberg.sink import IcebergSink
from sessionize.connectors.iceberg.tables import (
    EVENTS,
    LATE_EVENTS,
    REJECTED_EVENTS,
    USER_SESSIONS,
    check_tables,
    events,
    rejected_events,
    user_sessions,
)
from sessionize.errors import SessionizeError, StateError
from sessionize.ports import EpochId, EpochRows
from sessionize.session.columns import BUCKET_COUNT, USER

# In a snapshot's summary, beside the epoch and the watermark.
WRITER = "sessionize.writer"
PLAN = "sessionize.plan"


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochTables:
    """What the tables of a stream are called; None: the rows are not kept."""

    sessions: str | None = USER_SESSIONS
    events: str | None = EVENTS
    late: str | None = LATE_EVENTS
    rejected: str | None = REJECTED_EVENTS


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """What a table knows of a writer: the last epoch it has, that epoch's plan, and the watermark then."""

    number: int
    plan: str
    watermark_ms: int | None


def epoch_records(table: Table) -> dict[str, EpochRecord]:
    """By writer: the last epoch that the table has. Errors: StateError for a record that cannot be read."""
    records = {}
    for name, value in table.properties.items():
        if name.startswith(f"{EPOCH}."):
            writer = name.removeprefix(f"{EPOCH}.")
            records[writer] = _parsed(table, writer, value, table.properties.get(f"{WATERMARK}.{writer}"))
    return records


class IcebergEpochSink:
    """Writes epochs to Iceberg tables (ports.EpochSink), which it makes when they are not there.

    user_name: what the input calls the user column. owner: whose the tables are to be. layout, buckets: as in
    layouts.Partitions. on_change: as in open_table. Not for several threads at once; no other sink should write under
    the same writer's name. Files of an attempt that was killed stay until `maintain` removes them.
    Errors: those of open_table; UnavailableError when the catalog or the store is not there now.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        user_name: str = USER,
        database: str = DATABASE,
        tables: EpochTables | None = None,
        owner: Owner | None = None,
        layout: LayoutName | None = None,
        buckets: int = BUCKET_COUNT,
        on_change: Callable[[str], None] = lambda change: None,
    ) -> None:
        tables = tables or EpochTables()
        by_time = events(user_name, layout=layout)
        wanted = (
            ("rejected", tables.rejected, rejected_events()),
            ("late", tables.late, by_time),
            ("events", tables.events, by_time),
            ("sessions", tables.sessions, user_sessions(user_name, layout=layout, buckets=buckets)),
        )
        kept = [(kind, name, its) for kind, name, its in wanted if name is not None]
        if owner is not None:
            # sessions first: what they say differs most tellingly
            check_tables(catalog, database, [(name, its) for _, name, its in reversed(kept)], owner=owner)
        self._sinks = {
            kind: IcebergSink(catalog, its, table=name, database=database, owner=owner, on_change=on_change)
            for kind, name, its in kept
        }
        *_, self._last = self._sinks.values()
        self._check: Callable[[Mapping[str, str]], None] = lambda properties: None

    def before_each_epoch(self, check: Callable[[Mapping[str, str]], None]) -> None:
        """Look at the properties of the last table before any table gets an epoch, and again when it gets it itself."""
        self._check = check

    def note(self, decide: Callable[[Mapping[str, str], Mapping[str, int]], Mapping[str, str]]) -> None:
        """Set properties of the last table. decide: given its properties as they are, and the last epoch that any table
        has of each writer; what it raises ends the call. Errors: those of IcebergSink.note.
        """
        others = [sink.refresh() for sink in self._sinks.values()][:-1]

        def decided(table: Table) -> Mapping[str, str]:
            epochs: dict[str, int] = {}
            for writer, record in (item for each in (*others, table) for item in epoch_records(each).items()):
                epochs[writer] = max(record.number, epochs.get(writer, 0))
            return decide(table.properties, epochs)

        self._last.note(decided, unless=lambda table: False)

    def write_epoch(self, epoch: EpochId, rows: EpochRows) -> None:
        """Commit the rows to every table that does not have the epoch yet. A table without rows is left alone; an
        epoch without rows for any of them is only noted, in the last table.

        Errors: StateError when a table has the epoch from another plan; UnavailableError when the same call may
        succeed later; OutputError for rows that do not fit.
        """
        tables = {"rejected": rows.rejected, "late": rows.late, "events": rows.events, "sessions": rows.sessions}
        try:
            # All tables are asked before any of them changes.
            todo = [(sink, tables[kind]) for kind, sink in self._sinks.items() if not _has(sink.refresh(), epoch)]
            _check_beginning(epoch, [sink.table for sink in self._sinks.values()])
            self._check(self._last.table.properties)
            with_rows = [(sink, its) for sink, its in todo if its.num_rows]
            for sink, its in with_rows:
                sink.write(its)
                sink.finish()
            for sink, _ in with_rows:
                sink.commit(
                    snapshot_properties=_summary(epoch, rows.watermark_ms),
                    table_properties=_record(epoch, rows.watermark_ms),
                    unless=self._unless(sink, epoch),
                )
            if todo and not any(tables[kind].num_rows for kind in self._sinks):
                sink = todo[-1][0]
                sink.note(_record(epoch, rows.watermark_ms), unless=self._unless(sink, epoch))
        except BaseException:
            self._drop()
            raise

    def _unless(self, sink: IcebergSink, epoch: EpochId) -> Callable[[Table], bool]:
        def has(table: Table) -> bool:
            if sink is self._last:
                self._check(table.properties)
            return _has(table, epoch)

        return has

    def last_epoch(self, writer: str) -> int:
        """The last epoch that any of the tables has: one that has no rows for a table is not noted there.

        Errors: StateError for a record that cannot be read; UnavailableError, OutputError.
        """
        records = [epoch_records(sink.refresh()).get(writer) for sink in self._sinks.values()]
        return max((record.number for record in records if record is not None), default=0)

    def close(self) -> None:
        """Remove what is staged and not committed."""
        self._drop()

    def _drop(self) -> None:
        for sink in self._sinks.values():
            # Files that would not go are no reason to hide the first error: no snapshot names them.
            with contextlib.suppress(SessionizeError):
                sink.abort()


def _has(table: Table, epoch: EpochId) -> bool:
    """Whether the table has the epoch, or a later one. Errors: StateError when it was another plan's."""
    value = table.properties.get(f"{EPOCH}.{epoch.writer}")
    if value is None:
        return False
    record = _parsed(table, epoch.writer, value, None)
    if record.number < epoch.number:
        return False
    known = record.plan if record.number == epoch.number else _plan_of(table, epoch)
    if known is not None and known != epoch.plan:
        raise StateError(
            "a table has this epoch from another plan",
            detail=f"{'.'.join(table.name())}: epoch {epoch.number} of writer {epoch.writer!r} has the plan {known}, "
            f"now it is {epoch.plan}",
            hint="two engines run under one name, or the state was removed and the tables were not; "
            "give this one another name, or its state back",
        )
    return True


def _check_beginning(epoch: EpochId, tables: list[Table]) -> None:
    """Errors: StateError for a first epoch that is not the one which the tables began with.

    They may be far past it, and its snapshot gone: then all that an empty state writes would be passed over in silence.
    """
    for table in tables if epoch.number == 1 else ():
        plan = table.properties.get(f"{BEGUN}.{epoch.writer}", epoch.plan)
        if plan != epoch.plan:
            raise StateError(
                "a table has this epoch from another plan",
                detail=f"{'.'.join(table.name())}: the first epoch of writer {epoch.writer!r} had the plan {plan}, "
                f"now it is {epoch.plan}",
                hint="the state was removed and the tables were not; "
                "bring the state back, or begin under another name and with other tables",
            )


def _plan_of(table: Table, epoch: EpochId) -> str | None:
    """The plan of an earlier epoch, as long as its snapshot is kept."""
    for snapshot in table.metadata.snapshots:
        summary = snapshot.summary
        if summary is not None and summary[WRITER] == epoch.writer and summary[EPOCH] == str(epoch.number):
            return summary[PLAN]
    return None


def _parsed(table: Table, writer: str, value: str, watermark: str | None) -> EpochRecord:
    number, _, plan = value.partition(" ")
    try:
        return EpochRecord(int(number), plan, int(watermark) if watermark is not None else None)
    except ValueError as error:
        raise StateError(
            "a table's record of epochs cannot be read",
            detail=f"{'.'.join(table.name())}: property {EPOCH}.{writer} is {value!r}",
            hint="something else changed it; set it to '<number of the last epoch> <digest of its plan>'",
        ) from error


def _record(epoch: EpochId, watermark_ms: int | None) -> Mapping[str, str]:
    """What the table keeps for good."""
    record = {f"{EPOCH}.{epoch.writer}": f"{epoch.number} {epoch.plan}"}
    if epoch.number == 1:
        record[f"{BEGUN}.{epoch.writer}"] = epoch.plan
    return record if watermark_ms is None else {**record, f"{WATERMARK}.{epoch.writer}": str(watermark_ms)}


def _summary(epoch: EpochId, watermark_ms: int | None) -> Mapping[str, str]:
    """What the snapshot says about itself."""
    summary = {WRITER: epoch.writer, EPOCH: str(epoch.number), PLAN: epoch.plan}
    return summary if watermark_ms is None else {**summary, WATERMARK: str(watermark_ms)}
