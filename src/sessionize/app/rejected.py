"""Rejected records: what there is, and those that the pipeline can read by now brought back as late events.

A retry makes two commits: the events into late_events, from where reconciling takes them into the sessions, then the
records out of rejected_events; the stores get both at once after them. Which records these are is written down before
the first commit, under a token that all of them carry, so that a retry that was killed in between is finished by the
next one: nothing lost, nothing doubled.
"""

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from sessionize.app.alone import alone
from sessionize.app.avro_input import avro_decoder
from sessionize.app.catalogs import has_local_catalog, open_catalog_of
from sessionize.app.config import PipelineConfig
from sessionize.app.table_rules import owner_of
from sessionize.engine.epoch import event_rows
from sessionize.engine.outputs import named_as_input
from sessionize.engine.unfinished import Unfinished
from sessionize.errors import ConfigError, StateError
from sessionize.formats.records import JsonRecords
from sessionize.session import columns as col

if TYPE_CHECKING:
    from sessionize.connectors.iceberg import Catalog, CatalogSettings, Owner

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
    those of which nothing was kept. finished: records of a retry that had been interrupted, removed first.
    """

    dry_run: bool = False
    looked_at: int = 0
    usable: int = 0
    unusable: dict[str, int] = field(default_factory=dict)
    finished: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The numbers by name."""
        return asdict(self)


class FollowingStore(Protocol):
    """What keeps late events and rejected records beside the tables."""

    def bring_back(self, rejected: pa.Table, late: pa.Table, *, token: str) -> None:
        """Remove these records and add these events, once for each token."""


def rejected_reasons(
    home: Path, *, database: str = "sessions", catalog: "CatalogSettings | None" = None
) -> list[ReasonCount]:
    """Every reason with its count and an example, the most frequent first. Errors: ConfigError without a table."""
    from sessionize.connectors.iceberg import open_catalog

    opened = open_catalog(home, settings=catalog, create=False)
    found: dict[str, ReasonCount] = {}
    for rows in _records(opened, database, reason=None):
        for value in pc.value_counts(rows["reason"]).to_pylist():
            reason, count = value["values"], value["counts"]
            if reason in found:
                found[reason].count += count
                continue
            first = rows.filter(pc.equal(rows["reason"], reason)).slice(0, 1).to_pylist()[0]
            found[reason] = ReasonCount(**{**first, "count": count})
    return sorted(found.values(), key=lambda each: (-each.count, each.reason))


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
    UnavailableError while another retry runs, or when the schema registry is away.
    """
    if config.output.kind != "iceberg":
        raise ConfigError(
            "only records in tables can be tried again",
            detail=f"output.kind = {config.output.kind}",
            hint="rejected records of files are in the .rejected.ndjson beside the output",
        )
    done = Retried(dry_run=dry_run)
    database = config.output.database
    if dry_run:
        for rows in _records(open_catalog_of(config, home=home, create=False), database, reason):
            _decoded(rows, config, now_ms, done)
        return done
    with alone(home, "rejected", "retry of rejected records", local=has_local_catalog(config)):
        catalog = open_catalog_of(config, home=home, create=False)
        done.finished = _finish_interrupted(home, catalog, config, stores)
        held: list[tuple[pa.Table, pa.Table]] = []
        for rows in _records(catalog, database, reason):
            events, records = _decoded(rows, config, now_ms, done)
            if records.num_rows:
                held.append((events, records))
            if sum(part.nbytes for pair in held for part in pair) > bytes_max:
                _move(home, catalog, config, held, stores)
                held = []
        if held:
            _move(home, catalog, config, held, stores)
    return done


def _records(catalog: "Catalog", database: str, reason: str | None) -> Iterator[pa.Table]:
    """The rejected records as they are now, some thousand at a time."""
    from sessionize.connectors.iceberg import REJECTED_EVENTS, load_table, readable

    seen = readable(load_table(catalog, database, REJECTED_EVENTS))
    data = ds.dataset(seen.data) if isinstance(seen.data, pa.Table) else seen.data
    keep = None if reason is None else ds.field("reason") == reason
    for batch in data.to_batches(columns=col.REJECTED_SCHEMA.names, filter=keep, batch_size=_BATCH_ROWS):
        if batch.num_rows:
            yield pa.Table.from_batches([batch]).cast(col.REJECTED_SCHEMA)


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
            "rejected records cannot be told apart", detail=f"{len(good)} records gave {decoded.events.num_rows} events"
        )
    done.looked_at += rows.num_rows
    done.usable += len(good)
    reasons = [*decoded.rejected["reason"].to_pylist(), *["no_bytes"] * (rows.num_rows - len(tried))]
    for why in reasons:
        done.unusable[why] = done.unusable.get(why, 0) + 1
    return decoded.events, rows.take(pa.array(good))


def _move(
    home: Path,
    catalog: "Catalog",
    config: PipelineConfig,
    parts: list[tuple[pa.Table, pa.Table]],
    stores: Sequence[FollowingStore],
) -> None:
    """Events into late_events, then their records out of rejected_events; then the same in the stores."""
    from sessionize.connectors.iceberg import LATE_EVENTS, IcebergSink, events

    user_name = config.dialect().user_name
    token = uuid.uuid4().hex
    records = pa.concat_tables([part[1] for part in parts]).select(list(_KEY))
    unfinished = Unfinished(home / _FOLDER)
    late = event_rows([decoded for decoded, _ in parts], user_name) if stores else None
    unfinished.write(token, {"records": records} if late is None else {"records": records, "events": late})
    database = config.output.database
    sink = IcebergSink(catalog, events(user_name), table=LATE_EVENTS, database=database, owner=_owner(catalog, config))
    try:
        for decoded, _ in parts:
            sink.write(named_as_input(decoded, user_name))
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
    _settle_loads(catalog, config, records)
    _remove(catalog, config, token, records)
    if late is not None:
        for store in stores:
            store.bring_back(records, late, token=token)
    unfinished.drop(token)


def _settle_loads(catalog: "Catalog", config: PipelineConfig, records: pa.Table) -> None:
    """Files of which every record was rejected are in the tables once some of them are events: another run over them is
    told so, as it would bring these a second time.
    """
    from sessionize.connectors.iceberg import known_files, load_table, note_loads, table_names

    database, table = config.output.database, config.output.table
    sources = set(pc.unique(records["source"]).to_pylist())
    waiting = {
        each.load_id for each in known_files(catalog, database, table) if not each.is_in and each.path in sources
    }
    if waiting and table in table_names(catalog, database):
        note_loads(load_table(catalog, database, table), waiting)


def _owner(catalog: "Catalog", config: PipelineConfig) -> "Owner | None":
    """The pipeline, where the records say whose they are; tables of before are nobody's until a run has noted it."""
    from sessionize.connectors.iceberg import REJECTED_EVENTS, load_table, pipeline_of

    known = pipeline_of(load_table(catalog, config.output.database, REJECTED_EVENTS))
    return None if known is None else replace(owner_of(config), elsewhere="give the --home of this pipeline")


def _remove(catalog: "Catalog", config: PipelineConfig, token: str, records: pa.Table) -> None:
    from sessionize.connectors.iceberg import REJECTED_EVENTS, load_table, rejected_events
    from sessionize.connectors.iceberg.replacing import RowReplacer

    table = load_table(catalog, config.output.database, REJECTED_EVENTS)
    nothing = col.REJECTED_SCHEMA.empty_table()
    RowReplacer(table, rejected_events(), key=_KEY, missing_ok=True).replace(
        records, nothing, token=token, snapshot_properties={RETRY: token}
    )


def _finish_interrupted(
    home: Path, catalog: "Catalog", config: PipelineConfig, stores: Sequence[FollowingStore]
) -> int:
    """Remove the records whose events are in late_events already; the others were never taken up."""
    from sessionize.connectors.iceberg import LATE_EVENTS, load_table, table_names

    removed = 0
    unfinished, database = Unfinished(home / _FOLDER), config.output.database
    for token in unfinished.tokens():
        landed = False
        if LATE_EVENTS in table_names(catalog, database):
            late = load_table(catalog, database, LATE_EVENTS)
            # the property names the last retry and outlives its snapshot
            landed = late.properties.get(RETRY) == token or any(
                each.summary is not None and each.summary[RETRY] == token for each in late.snapshots()
            )
        if landed:
            begun = unfinished.read(token)
            records = begun["records"]
            _settle_loads(catalog, config, records)
            _remove(catalog, config, token, records)
            for store in stores if "events" in begun else ():
                store.bring_back(records, begun["events"], token=token)
            removed += records.num_rows
        unfinished.drop(token)
    return removed
