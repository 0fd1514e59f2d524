"""Records made to stop a pipeline, over the whole road: decoders, the core, the engine with crashes, every output.

Nothing raises, every record is accounted for, and every output has the sessions of the reference. The outputs that need
a server get such records in test_hostile_servers.py.
"""

import csv
import io
import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessionize import Policy, Sessionizer
from sessionize.connectors.console import ConsoleSink
from sessionize.connectors.iceberg import IcebergEpochSink, open_catalog
from sessionize.connectors.parquet_lake import ParquetLakeSink
from sessionize.connectors.sql_store import StoreSink
from sessionize.connectors.sql_store.sqlite import SqliteDatabase
from sessionize.formats.avro import AvroRecords
from sessionize.formats.csv_text.decoder import CsvLines
from sessionize.formats.json_rows import json_rows
from sessionize.formats.records import JsonRecords
from sessionize.formats.tabular import Tabular
from sessionize.formats.tabular_layout import Layout
from sessionize.formats.validation import Decoded
from sessionize.kernel.changes import merge_changes
from sessionize.ports import EpochId, EpochOutput, EpochSink
from sessionize.testing.comparison import EVENT_FIELDS, expected_sessions, sorted_rows
from sessionize.testing.hostile import HOSTILE, lines, records
from sessionize.testing.streams import InMemoryEpochSink
from sessionize.testing.tables import iceberg_rows, session_row
from tests.system.hostile_runs import COLUMNS, RULES, Row, check_store, events_of, expected_of, run

gaps = st.sampled_from([Policy(gap_ms=10), Policy(gap_ms=10, max_duration_ms=25, max_duration_mode="rolling")])


def as_rows(events: pa.Table) -> list[Row]:
    """Events as the reference knows them."""
    return [
        {EVENT_FIELDS[name]: value for name, value in row.items() if name in EVENT_FIELDS} for row in events.to_pylist()
    ]


def in_order(rows: Sequence[Row]) -> list[Row]:
    keys = ("user", "session_start_time_ms", "session_end_time_ms", "session_id")
    return sorted(rows, key=lambda row: tuple(row[key] for key in keys))


# Decoders and the core.


def from_csv(rows: Sequence[Row]) -> Decoded:
    names = ["u", "t", "id", "type", "page", "value", "product", "category", "x\nX"]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[row.get(name) for name in names] for row in rows])
    decoder = CsvLines(b'u,t,id,type,page,value,product,category,"x"', HOSTILE, source="f", extras=True)
    decoder.add(text.getvalue().encode("utf-8", "surrogatepass"), source="f")
    decoder.flush()
    return decoder.take()


SCHEMA = {
    "type": "record",
    "name": "Hostile",
    "fields": [
        {"name": "u", "type": "string"},
        {"name": "t", "type": "long"},
        *({"name": n, "type": ["null", "string"]} for n in ("id", "type", "page", "product", "category")),
        {"name": "value", "type": ["null", "double", "long", "string"]},
        {"name": "more", "type": {"type": "map", "values": ["null", "string"]}},
    ],
}


def from_avro(rows: Sequence[Row]) -> Decoded:
    schema, values = fastavro.parse_schema(SCHEMA), list[bytes | None]()
    for row in rows:
        stream = io.BytesIO()
        more = {name: value for name, value in row.items() if isinstance(value, str)}
        fastavro.schemaless_writer(stream, schema, {"value": None, **dict.fromkeys(TEXTS), **row, "more": more})
        values.append(stream.getvalue())
    decoder = AvroRecords(HOSTILE, schema=json.dumps(SCHEMA), extras=True)
    return decoder.decode(values, np.arange(len(values)), source="f", latest_ms=None)


TEXTS = ("id", "type", "page", "product", "category")


def from_table(rows: Sequence[Row]) -> Decoded:
    columns = {
        name: pa.array([row.get(name) for row in rows], pa.string()).dictionary_encode() for name in ("u", *TEXTS)
    }
    values = [None if isinstance(value := row.get("value"), str) else value for row in rows]
    table = pa.table(
        {**columns, "t": pa.array([row["t"] for row in rows], pa.int64()), "value": pa.array(values, pa.float64())}
    )
    layout = Layout.of(table.schema, HOSTILE, source="f", columns=None, extras=True)
    return Tabular(layout, HOSTILE, latest_ms=None).decode(table, source="f", line_number=int)


def from_json(rows: Sequence[Row]) -> Decoded:
    values = [json.dumps(row).encode() for row in rows]
    return JsonRecords(HOSTILE, extras=True).decode(values, np.arange(len(values)), source="f", latest_ms=None)


@pytest.mark.parametrize("decode", [from_json, from_csv, from_avro, from_table])
@given(rows=st.lists(records(), max_size=12), policy=gaps, data=st.data())
def test_from_any_decoder_through_the_core(decode: Any, rows: list[Row], policy: Policy, data: st.DataObject):
    """Each record is an event or rejected; in any batches, with every call of the core in between."""
    decoded = decode(rows)
    assert decoded.events.num_rows + decoded.rejected.num_rows == len(rows)
    assert decode is from_csv or not decoded.rejected.num_rows
    events = decoded.events.take(np.argsort(decoded.events["event_time_ms"].to_numpy(), kind="stable"))
    core = Sessionizer(policy, rules=RULES, columns=COLUMNS, track_changes=True)
    parts, made, at = [core.changes()], list[Row](), 0
    while at < events.num_rows:
        batch = events.slice(at, data.draw(st.integers(1, 6), label="batch"))
        at += batch.num_rows
        assert core.push(batch).num_rows == 0
        assert len(core.pushed_session_ids()) >= batch.num_rows
        assert core.live_many(core.users()).num_rows >= bool(core.counts.pending)
        made += sorted_rows(core.advance(batch["event_time_ms"][0].as_py()))
        if data.draw(st.booleans(), label="snapshot"):
            core = Sessionizer.restore(core.snapshot(), policy, rules=RULES, track_changes=True)
            parts = []
        elif parts:
            parts.append(core.changes())
            whole = merge_changes(parts, whole=True)
            core = Sessionizer.restore_tables(whole.header, whole.tables, policy, rules=RULES, track_changes=True)
        counts = core.counts
        assert counts.consumed == at == counts.settled + counts.pending + counts.duplicate + counts.excluded
    made += sorted_rows(core.flush())
    assert in_order(made) == in_order(expected_sessions(as_rows(events), policy, RULES))


# The engine and the outputs.


class Messages:
    """What goes to topics, as far as it needs no server."""

    known_tables = None

    def write_epoch(self, epoch: EpochId, rows: EpochOutput) -> None:
        for name in ("user_sessions", "enriched_events", "late_events"):
            for message in json_rows(rows.tables[name]):
                json.loads(message)
        assert len(json_rows(rows.tables["rejected_events"], opaque=["raw"])) == rows.count("rejected_events")

    def last_epoch(self, writer: str) -> None:
        return None

    def close(self) -> None:
        pass


def counted(rows: Sequence[Row]) -> Counter[tuple[Any, ...]]:
    return Counter((row["u"], row["event_time_ms"], row["event_id"], row["page"], row["value"]) for row in rows)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    parts=st.lists(st.lists(lines(), max_size=20), min_size=1, max_size=2),
    policy=gaps,
    size=st.integers(1, 6),
    crash_at=st.integers(1, 30),
)
def test_a_stream_into_every_output(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[bytes]], policy: Policy, size: int, crash_at: int
):
    folder, kept = tmp_path_factory.mktemp("hostile"), InMemoryEpochSink()

    def opened() -> dict[str, EpochSink]:
        return {
            "kept": kept,
            "sqlite": StoreSink(SqliteDatabase(folder / "store.sqlite"), user_name="u"),
            "iceberg": IcebergEpochSink(open_catalog(folder), user_name="u"),
            "lake": ParquetLakeSink(folder / "lake"),
            "messages": Messages(),
            "console": ConsoleSink(io.StringIO()),
        }

    accounting = run(folder, parts, opened, policy, size=size, crash_at=crash_at).accounting
    assert accounting.balanced
    assert accounting.consumed == sum(map(len, parts))
    assert (kept.count("rejected_events"), kept.count("late_events"), accounting.pending) == (
        accounting.rejected,
        accounting.late,
        0,
    )

    events, late, expected = events_of(kept, "events"), events_of(kept, "late_events"), expected_of(kept, policy)
    made = [{"user": row["u"], **row} for table in kept.rows("user_sessions") for row in sorted_rows(table, "u")]
    assert in_order([{n: v for n, v in row.items() if n != "u"} for row in made]) == in_order(expected)

    stored = iceberg_rows(folder, "user_sessions")
    assert Counter(session_row(row["u"], row) for row in stored) == Counter(
        session_row(row["user"], row) for row in expected
    )
    assert counted(iceberg_rows(folder, "events")) == counted(events)
    assert counted(iceberg_rows(folder, "late_events")) == counted(late)
    assert len(iceberg_rows(folder, "rejected_events")) == accounting.rejected
    with closing(sqlite3.connect(folder / "store.sqlite")) as database:
        check_store(lambda query: database.execute(query).fetchall(), expected, late, accounting.rejected)
    lake = ds.dataset(str(folder / "lake"), format="parquet", partitioning="hive", exclude_invalid_files=True)
    if events:
        columns = ["u", "event_time_ms", "event_id", "page", "value"]
        assert counted(lake.to_table(columns=columns).to_pylist()) == counted(events)
