"""Rejected records: what there is, and those that the pipeline can read by now brought back as late events.

A retry makes two commits: the events into late_events, from where reconciling takes them into the sessions, then the
records out of rejected_events; the stores get both at once after them. Which records these are is written down before
the first commit, under a token that all of them carry, so that a retry that was killed in between is finished by the
next one: nothing lost, nothing doubled.

Records of files whose load was cut off stay as they are: the next run over these files replaces them. A load that
rejected every record counts as in from the first of them that a retry brings back. docs/adr/0013.
"""

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from sessionize.app.build import open_stores
from sessionize.app.config.pipeline import PipelineConfig
from sessionize.app.locks import exclusive, in_turn
from sessionize.app.options import load_with_overrides
from sessionize.app.streams.avro_input import avro_decoder
from sessionize.app.tables.rules import by_the_tables, owner_of
from sessionize.app.tables.warehouse import Warehouse
from sessionize.app.warn import Warn
from sessionize.engine.event_columns import with_user_name
from sessionize.engine.reconcile.intents import IntentLog
from sessionize.engine.stream.epoch import event_rows
from sessionize.errors import ConfigError, StateError
from sessionize.formats.records import JsonRecords
from sessionize.ports import FollowingStore
from sessionize.session import columns as col

if TYPE_CHECKING:
    from sessionize.connectors.iceberg import Catalog, OpenLoad, Owner

RETRY = "sessionize.retry"
BYTES_MAX = 256 << 20  # of records in one pair of commits
_FOLDER = "rejected-retry"
_KEY = ("raw", "source", "line_number", "reason")
_BATCH_ROWS = 16_384


@dataclass(slots=True)
class ReasonCount:
    """A reason, how many records have it, and the first of them."""

    reason: str
    count: int
    source: str
    line_number: int
    detail: str
    raw: bytes | None


@dataclass(slots=True)
class Retried:
    """What a retry looked at and did; with dry_run: what it would do.

    usable: records that are events now. unusable: records that stay, by what is wrong with them now; `no_bytes` are
    those of which nothing was kept. finished: records of a retry that had been interrupted, removed first. cut_off:
    records that were not looked at, by their file, as its load was cut off or is under way.
    """

    dry_run: bool = False
    looked_at: int = 0
    usable: int = 0
    unusable: dict[str, int] = field(default_factory=dict)
    finished: int = 0
    cut_off: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The numbers by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Tables:
    """Where records are moved. loads: those that left rejected records and are not in. stores: what follows."""

    home: Path
    catalog: "Catalog"
    config: PipelineConfig
    loads: "list[OpenLoad]"
    stores: Sequence[FollowingStore]


@dataclass(frozen=True, slots=True)
class _Part:
    """Records and the events that they are. load: that which rejected every record, and these among them."""

    events: pa.Table
    records: pa.Table
    load: str | None

    @property
    def nbytes(self) -> int:
        """In memory."""
        return int(self.events.nbytes + self.records.nbytes)


def rejected_reasons(warehouse: Warehouse) -> list[ReasonCount]:
    """Every reason with its count and an example, the most frequent first. Errors: ConfigError without a table."""
    found: dict[str, ReasonCount] = {}
    for rows in _records(warehouse.open(), warehouse.database):
        for value in pc.value_counts(rows["reason"]).to_pylist():
            reason, count = value["values"], value["counts"]
            if reason in found:
                found[reason].count += count
                continue
            first = rows.filter(pc.equal(rows["reason"], reason)).slice(0, 1).to_pylist()[0]
            found[reason] = ReasonCount(**{**first, "count": count})
    return sorted(found.values(), key=lambda each: (-each.count, each.reason))


def retry_pipeline(
    pipeline: str | None,
    settings: list[str] | None,
    home: Path | None,
    *,
    reason: str | None,
    dry_run: bool,
    warn: Warn,
) -> Retried:
    """retry_rejected for the tables and stores of a pipeline, by the rules that the tables were made by.

    pipeline, settings, home: as load_with_overrides takes them. warn: gets a text where the pipeline has other rules.
    """
    config = by_the_tables(load_with_overrides(pipeline, settings, home), warn=warn)
    with open_stores(config) as stores:
        return retry_rejected(config.home, config, reason=reason, dry_run=dry_run, stores=stores)


def retry_rejected(
    home: Path,
    config: PipelineConfig,
    *,
    reason: str | None = None,
    dry_run: bool = False,
    now_ms: int | None = None,
    stores: Sequence[FollowingStore] = (),
    bytes_max: int = BYTES_MAX,
) -> Retried:
    """Decode rejected records again, by the pipeline as it is now; what is good joins late_events.

    reason: only these. now_ms: the present for rules.max_future, default the clock. stores: get the same after the
    tables, also what a retry that was interrupted in between has done. Records are taken as Avro where
    the pipeline reads Avro, else as JSON, so rows of CSV files stay. Errors: ConfigError without tables;
    UnavailableError while another retry runs, or when the schema registry is unavailable; StateError when files are
    loaded again meanwhile.
    """
    if config.output.kind != "iceberg":
        raise ConfigError(
            "only records in tables can be retried",
            detail=f"output.kind = {config.output.kind}",
            hint="rejected records of files are in the .rejected.ndjson beside the output",
        )
    done = Retried(dry_run=dry_run)
    if dry_run:
        tables = _tables(home, config, stores)
        for rows, _ in _of_loads(tables, reason, done):
            _decoded(rows, config, now_ms, done)
        return done
    warehouse = Warehouse.of(config, home=home)
    with exclusive(home, "rejected", "retry of rejected records", local=warehouse.is_local):
        warehouse.open()  # nothing is made where there are no tables
        with in_turn(home, "loads"):
            _retry(_tables(home, config, stores), reason, now_ms, bytes_max, done)
    return done


def _retry(tables: _Tables, reason: str | None, now_ms: int | None, bytes_max: int, done: Retried) -> None:
    """No load of this home is committed meanwhile."""
    done.finished = _finish_interrupted(tables)
    held: list[_Part] = []
    for rows, load in _of_loads(tables, reason, done):
        events, records = _decoded(rows, tables.config, now_ms, done)
        if records.num_rows:
            held.append(_Part(events, records, load))
        if sum(part.nbytes for part in held) > bytes_max:
            _move(tables, held)
            held = []
    if held:
        _move(tables, held)


def _tables(home: Path, config: PipelineConfig, stores: Sequence[FollowingStore]) -> _Tables:
    from sessionize.connectors.iceberg import REJECTED_EVENTS, load_table, open_loads

    catalog, database = Warehouse.of(config, home=home).open(), config.output.database
    rejected = load_table(catalog, database, REJECTED_EVENTS)
    loads = open_loads(catalog, database, rejected, last=config.output.table)
    return _Tables(home, catalog, config, loads, stores)


def _records(catalog: "Catalog", database: str) -> Iterator[pa.Table]:
    """The rejected records as they are now, some thousand at a time."""
    from sessionize.connectors.iceberg import REJECTED_EVENTS, load_table, readable

    seen = readable(load_table(catalog, database, REJECTED_EVENTS))
    data = ds.dataset(seen.data) if isinstance(seen.data, pa.Table) else seen.data
    for batch in data.to_batches(columns=col.REJECTED_SCHEMA.names, batch_size=_BATCH_ROWS):
        if batch.num_rows:
            yield pa.Table.from_batches([batch]).cast(col.REJECTED_SCHEMA)


def _of_loads(tables: _Tables, reason: str | None, done: Retried) -> Iterator[tuple[pa.Table, str | None]]:
    """The rejected records that can be tried again, some thousand at a time, with the load that rejected every record.

    Those of loads that were cut off are counted. A load's records are those of its data files; where its files cannot
    be told from others any more, those with the path of a file that it read.
    """
    from sessionize.connectors.iceberg import REJECTED_EVENTS, load_table
    from sessionize.connectors.iceberg.dataset import by_files, is_plain

    table = load_table(tables.catalog, tables.config.output.database, REJECTED_EVENTS)
    known = [load for load in tables.loads if load.files is not None]
    pieces: Iterator[tuple[int | None, pa.Table]] = (
        by_files(table, [load.files or frozenset() for load in known])
        if is_plain(table)
        else ((None, rows) for rows in _records(tables.catalog, tables.config.output.database))
    )
    for index, piece in pieces:
        rows = piece.select(col.REJECTED_SCHEMA.names).cast(col.REJECTED_SCHEMA)
        if reason is not None:
            rows = rows.filter(pc.equal(rows["reason"], reason))
        for load, its in _by_source(tables.loads, rows) if index is None else [(known[index], rows)]:
            if load is not None and not load.all_rejected:
                for each in pc.value_counts(its["source"]).to_pylist():
                    done.cut_off[each["values"]] = done.cut_off.get(each["values"], 0) + each["counts"]
                continue
            for start in range(0, its.num_rows, _BATCH_ROWS):
                yield its.slice(start, _BATCH_ROWS), None if load is None else load.id


def _by_source(loads: "list[OpenLoad]", rows: pa.Table) -> "Iterator[tuple[OpenLoad | None, pa.Table]]":
    """Rows of files that are of no load, as far as is known, by the path that they were read from."""
    unknown = [load for load in loads if load.files is None]
    for load in sorted(unknown, key=lambda load: load.all_rejected):  # cut off first: what stays is not lost
        mine = pc.is_in(rows["source"], value_set=pa.array(sorted(load.sources), pa.string()))
        yield load, rows.filter(mine)
        rows = rows.filter(pc.invert(mine))
    yield None, rows


def _decoded(rows: pa.Table, config: PipelineConfig, now_ms: int | None, done: Retried) -> tuple[pa.Table, pa.Table]:
    """The events that the records are now, and those records."""
    present_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    future_ms = config.rules.max_future_ms
    latest_ms = None if future_ms is None else present_ms + future_ms
    raws = rows["raw"].to_pylist()
    there = np.array([bool((raw or b"").strip(b" \t\r\n")) for raw in raws], bool)
    tried = np.flatnonzero(there)
    decoder = avro_decoder(config, extras=True) or JsonRecords(config.dialect(), extras=True)
    decoded = decoder.decode([raws[at] for at in tried], np.arange(len(tried)), source="", latest_ms=latest_ms)
    bad = tried[decoded.rejected["line_number"].to_numpy()]
    good = np.setdiff1d(tried, bad)
    if len(good) != decoded.events.num_rows:
        raise StateError(
            "rejected records cannot be matched to events",
            detail=f"{len(good)} records gave {decoded.events.num_rows} events",
        )
    done.looked_at += rows.num_rows
    done.usable += len(good)
    reasons = [*decoded.rejected["reason"].to_pylist(), *["no_bytes"] * (rows.num_rows - len(tried))]
    for why in reasons:
        done.unusable[why] = done.unusable.get(why, 0) + 1
    return decoded.events, rows.take(pa.array(good))


def _move(tables: _Tables, parts: list[_Part]) -> None:
    """Events into late_events, then their records out of rejected_events; then the same in the stores.

    Before that the loads that rejected every record count as in, so that from here on another run over their files is
    refused: it would bring these events a second time. A retry that is killed then leaves records for the next one.
    """
    from sessionize.connectors.iceberg import LATE_EVENTS, IcebergSink, events

    catalog, config, stores = tables.catalog, tables.config, tables.stores
    user_name = config.dialect().user_name
    token = uuid.uuid4().hex
    records = pa.concat_tables([part.records for part in parts]).select(list(_KEY))
    unfinished = IntentLog(tables.home / _FOLDER)
    late = event_rows([part.events for part in parts], user_name) if stores else None
    _settle_loads(tables, {part.load for part in parts if part.load is not None})
    unfinished.write(token, {"records": records} if late is None else {"records": records, "events": late})
    database = config.output.database
    sink = IcebergSink(catalog, events(user_name), table=LATE_EVENTS, database=database, owner=_owner(catalog, config))
    try:
        for part in parts:
            sink.write(with_user_name(part.events, user_name))
    except BaseException:
        sink.abort()
        unfinished.drop(token)
        raise
    try:
        sink.commit(snapshot_properties={RETRY: token}, table_properties={RETRY: token})
    except BaseException:
        # only the table can tell whether it happened: the next retry asks it
        sink.abort()
        raise
    _remove(tables, token, records)
    if late is not None:
        for store in stores:
            store.bring_back(records, late, token=token)
    unfinished.drop(token)


def _settle_loads(tables: _Tables, loads: set[str]) -> None:
    """Errors: StateError when another load is replacing one of these."""
    from sessionize.connectors.iceberg import load_table, record_loads, table_names

    database, table = tables.config.output.database, tables.config.output.table
    if loads and table in table_names(tables.catalog, database):
        record_loads(load_table(tables.catalog, database, table), loads)


def _owner(catalog: "Catalog", config: PipelineConfig) -> "Owner | None":
    """The pipeline, where the records say whose they are; tables of before are nobody's until a run has noted it."""
    from sessionize.connectors.iceberg import REJECTED_EVENTS, load_table, pipeline_of

    known = pipeline_of(load_table(catalog, config.output.database, REJECTED_EVENTS))
    return None if known is None else replace(owner_of(config), elsewhere="give the --home of this pipeline")


def _remove(tables: _Tables, token: str, records: pa.Table) -> None:
    """Out of all files but those that loads have left that were cut off: the next load replaces these as a whole."""
    from sessionize.connectors.iceberg import REJECTED_EVENTS, load_table, rejected_events
    from sessionize.connectors.iceberg.row_rewrite import RowReplacer

    table = load_table(tables.catalog, tables.config.output.database, REJECTED_EVENTS)
    leave = frozenset(path for load in tables.loads if not load.all_rejected for path in load.files or ())
    nothing = col.REJECTED_SCHEMA.empty_table()
    RowReplacer(table, rejected_events(), key=_KEY, missing_ok=True, leave=leave).replace(
        records, nothing, token=token, snapshot_properties={RETRY: token}
    )


def _finish_interrupted(tables: _Tables) -> int:
    """Remove the records whose events are in late_events already; the others were never taken up."""
    from sessionize.connectors.iceberg import LATE_EVENTS, load_table, table_names

    removed = 0
    catalog, database = tables.catalog, tables.config.output.database
    unfinished = IntentLog(tables.home / _FOLDER)
    for token in unfinished.tokens():
        was_committed = False
        if LATE_EVENTS in table_names(catalog, database):
            late = load_table(catalog, database, LATE_EVENTS)
            # the property names the last retry and outlives its snapshot
            was_committed = late.properties.get(RETRY) == token or any(
                each.summary is not None and each.summary[RETRY] == token for each in late.snapshots()
            )
        if was_committed:
            begun = unfinished.read(token, ("records",))
            records = begun["records"]
            _remove(tables, token, records)
            for store in tables.stores if "events" in begun else ():
                store.bring_back(records, begun["events"], token=token)
            removed += records.num_rows
        unfinished.drop(token)
    return removed
