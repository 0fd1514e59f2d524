"""The sink of a stream: each epoch reaches each table exactly once (ports.EpochSink), also after a crash.

The number of the last epoch of each writer is a property of the table, set by the same commit that adds the rows: it
survives when snapshots expire or another engine rewrites files. A commit holds only for the snapshot at which the
record was looked up, so two engines under one name cannot both write an epoch. The tables are committed one after
the other, sessions last: whoever sees a session finds its events.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyiceberg.table import Table

from sessionize.connectors.iceberg.catalog import DATABASE, Catalog
from sessionize.connectors.iceberg.data_files import StagedFiles
from sessionize.connectors.iceberg.layouts import LayoutName
from sessionize.connectors.iceberg.ownership import BEGUN, EPOCH, WATERMARK, Owner
from sessionize.connectors.iceberg.sink import IcebergSink
from sessionize.connectors.iceberg.tables import check_tables, table_layout
from sessionize.errors import ConfigError, SessionizeError, StateError
from sessionize.ports import EpochId, EpochOutput
from sessionize.session.columns import BUCKET_COUNT, USER
from sessionize.session.output_tables import (
    EVENTS,
    LATE_EVENTS,
    OUTPUT_TABLES,
    REJECTED_EVENTS,
    SESSIONS,
    Destinations,
    TableSpec,
)

# In a snapshot's summary, beside the epoch and the watermark.
WRITER = "sessionize.writer"
PLAN = "sessionize.plan"


# What is kept where nobody says otherwise, and what it is called.
DESTINATIONS = {spec.name: spec.name for spec in (SESSIONS, EVENTS, LATE_EVENTS, REJECTED_EVENTS)}


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

    user_name: what the input calls the user column. destinations: output table -> what it is called here,
    DESTINATIONS by default. specs: the tables that an output may have, in the order of writing. owner: whose the
    tables are to be. layout, buckets: as in layouts.Partitions. on_change: as in open_table. Not for several
    threads at once; no other sink should write under the same writer's name. Files of an attempt that was killed
    stay until `maintain` removes them.
    Errors: those of open_table and Destinations; UnavailableError when the catalog or the store is not there now.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        user_name: str = USER,
        database: str = DATABASE,
        destinations: Mapping[str, str] | None = None,
        specs: tuple[TableSpec, ...] = OUTPUT_TABLES,
        owner: Owner | None = None,
        layout: LayoutName | None = None,
        buckets: int = BUCKET_COUNT,
        on_change: Callable[[str], None] = lambda change: None,
    ) -> None:
        self._to = Destinations(DESTINATIONS if destinations is None else destinations, specs, user_name)
        self._to.check_apart()
        if not len(self._to):
            raise ConfigError("no Iceberg table is given to write to", hint="name at least one output table")
        kept = [(each.to, table_layout(each.spec, user_name, layout=layout, buckets=buckets)) for each in self._to]
        if owner is not None:
            # sessions first: what they say differs most tellingly
            check_tables(catalog, database, reversed(kept), owner=owner)
        made = [
            IcebergSink(catalog, its, table=name, database=database, owner=owner, on_change=on_change)
            for name, its in kept
        ]
        self._sinks = {each.spec.name: sink for each, sink in zip(self._to, made, strict=True)}
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

    @property
    def known_tables(self) -> frozenset[str]:
        """The tables whose specs it was given."""
        return self._to.names

    def write_epoch(self, epoch: EpochId, output: EpochOutput) -> None:
        """Commit the rows to every table that does not have the epoch yet. A table without rows is left alone; an
        epoch without rows for any of them is only noted, in the last table.

        Errors: StateError when a table has the epoch from another plan; UnavailableError when the same call may
        succeed later; OutputError for rows that do not fit.
        """
        given = {each.spec.name: rows for each, rows in self._to.rows(output.tables)}
        try:
            todo = self._without(epoch)
            for name in todo:
                staged = self.stage(name, given[name]) if name in given else None
                if staged is not None:
                    self._sinks[name].take(staged, keep=False)
            self._commit(epoch, todo, output.watermark_ms, has_rows=bool(given))
        except BaseException:
            self._drop()
            raise

    def stage(self, table: str, rows: pa.Table) -> StagedFiles | None:
        """Write rows of an output table to data files that no snapshot names yet; None when there are no rows.

        commit_files makes them visible, also in another process: what is returned pickles. `maintain` removes files
        that nobody commits. Errors: ConfigError for a table that is not written here; OutputError for rows that do not
        fit; UnavailableError.
        """
        sink = self._sink_of(table)
        try:
            sink.write(rows)
            return sink.hand_over()
        except BaseException:
            with contextlib.suppress(SessionizeError):
                sink.abort()
            raise

    def commit_files(
        self, epoch: EpochId, files: Mapping[str, Sequence[StagedFiles]], *, watermark_ms: int | None
    ) -> None:
        """Commit staged files of output tables as write_epoch commits rows: each table that has the epoch is left
        alone, and so is one without files.

        The files stay, whatever happens: the same call may be repeated, in this process or in another one.
        Errors: those of write_epoch and stage.
        """
        for name in files:
            self._sink_of(name)
        try:
            todo = self._without(epoch)
            for name, pieces in files.items():
                for staged in pieces if name in todo else ():
                    self._sinks[name].take(staged, keep=True)
            self._commit(epoch, todo, watermark_ms, has_rows=any(files.values()))
        finally:
            self._drop()

    def _sink_of(self, table: str) -> IcebergSink:
        sink = self._sinks.get(table)
        if sink is None:
            raise ConfigError(
                "an output table has no Iceberg table",
                detail=f"table {table!r}",
                hint=f"give it a destination; there are {', '.join(self._sinks)}",
            )
        return sink

    def _without(self, epoch: EpochId) -> list[str]:
        """The output tables that do not have the epoch; all tables are asked before any of them changes."""
        todo = [name for name, sink in self._sinks.items() if not _has(sink.refresh(), epoch)]
        _check_beginning(epoch, [sink.table for sink in self._sinks.values()])
        self._check(self._last.table.properties)
        return todo

    def _commit(self, epoch: EpochId, todo: Sequence[str], watermark_ms: int | None, *, has_rows: bool) -> None:
        """Commit what the sinks have of the epoch; an epoch without rows is noted in the last table of them."""
        for name in todo:
            sink = self._sinks[name]
            sink.commit(
                snapshot_properties=_summary(epoch, watermark_ms),
                table_properties=_record(epoch, watermark_ms),
                unless=self._unless(sink, epoch),
            )
        if todo and not has_rows:
            sink = self._sinks[todo[-1]]
            sink.note(_record(epoch, watermark_ms), unless=self._unless(sink, epoch))

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
    last = EpochId(epoch.writer, record.number, record.plan)
    if epoch.number < last.number and (plan := _plan_of(table, epoch)) is not None:
        last = EpochId(epoch.writer, epoch.number, plan)  # an earlier one, whose plan is still known
    return epoch.is_known(last, where=".".join(table.name()))


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
