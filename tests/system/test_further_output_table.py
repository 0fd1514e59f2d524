"""A further output table from the engine to Iceberg, SQLite and a lake: its spec is here, and no sink knows it."""

import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sessionize.connectors.iceberg import IcebergEpochSink, load_table, open_catalog
from sessionize.connectors.lake import ParquetLakeSink
from sessionize.connectors.store import StoreSink
from sessionize.connectors.store.sqlite import SqliteDatabase
from sessionize.engine.stream.engine import LocalEngine
from sessionize.engine.stream.options import StreamOptions
from sessionize.ports import EpochSink
from sessionize.session.tables import EVENTS, OUTPUT_TABLES, SESSIONS, Derived, TableSpec, utc_dates
from sessionize.testing.streams import InMemoryEpochSink, InMemoryStreamSource
from tests.engine.local_runs import VISITS, Crash, Steps, engine, run

# How many events of a user an epoch has; one row for each, so a repetition that is written twice is seen.
VISIT_COUNTS = TableSpec(
    name="visit_counts",
    schema=pa.schema(
        [
            pa.field("user", pa.string(), nullable=False),
            pa.field("first_ms", pa.int64(), nullable=False),
            pa.field("visits", pa.int64()),
        ]
    ),
    user_column="user",
    key=("user", "first_ms"),
    derived=(Derived("visit_date", pa.date32(), "first_ms", utc_dates),),
    partition_by=("visit_date",),
    sort_by=("visit_date", "user"),
)
SPECS = (VISIT_COUNTS, *OUTPUT_TABLES)
TO = {SESSIONS.name: SESSIONS.name, VISIT_COUNTS.name: VISIT_COUNTS.name}


class Counting(LocalEngine):
    """The engine, which makes one more table of the events of each epoch."""

    def _advance(self, epoch: Any, plan: Any) -> Any:
        outgoing = super()._advance(epoch, plan)
        events = outgoing.output.tables[EVENTS.name]
        groups = events.group_by("user").aggregate([("event_time_ms", "min"), ("event_time_ms", "count")])
        counts = groups.rename_columns({"event_time_ms_min": "first_ms", "event_time_ms_count": "visits"})
        return replace(outgoing, output=outgoing.output.with_tables({VISIT_COUNTS.name: counts}))


def sinks(home: Path) -> dict[str, EpochSink]:
    return {
        "sqlite": StoreSink(SqliteDatabase(home / "store.db"), destinations=TO, specs=SPECS),
        "iceberg": IcebergEpochSink(open_catalog(home), destinations=TO, specs=SPECS),
        "lake": ParquetLakeSink(home / "lake", destinations={VISIT_COUNTS.name: "visits"}, specs=SPECS),
    }


def found(home: Path) -> dict[str, Counter[tuple[Any, ...]]]:
    """(user, first_ms, visits) by output."""
    names = VISIT_COUNTS.schema.names
    with closing(sqlite3.connect(home / "store.db")) as connection:
        stored = connection.execute(f"SELECT {', '.join(names)} FROM visit_counts").fetchall()
    table = load_table(open_catalog(home), "sessions", "visit_counts")
    assert [field.name for field in table.spec().fields] == ["visit_date"]
    files = [pq.read_table(path, partitioning=None) for path in (home / "lake/visits").glob("visit_date=*/*.parquet")]
    return {
        "sqlite": Counter(stored),
        "iceberg": Counter(zip(*table.scan().to_arrow().select(names).to_pydict().values(), strict=True)),
        "lake": Counter(zip(*pa.concat_tables(files).select(names).to_pydict().values(), strict=True)),
    }


@pytest.mark.parametrize("crash_at", ["write iceberg", "write lake", "commit"])
def test_a_further_table_comes_to_every_output_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_at: str
) -> None:
    monkeypatch.setattr("tests.engine.local_runs.LocalEngine", Counting)
    kept, opened, crashes = InMemoryEpochSink(), list[EpochSink](), [2, 4]
    steps = Steps()

    def step(name: str) -> None:
        steps(name)
        if crashes and name == crash_at and steps.seen.count(name) == crashes[0]:
            crashes.pop(0)
            raise Crash(name)

    def make() -> LocalEngine:
        made = sinks(tmp_path)
        opened.extend(made.values())
        options = StreamOptions(epoch_rows_max=40, poll_s=0, once=True)
        source = InMemoryStreamSource([VISITS], piece_min=20)
        return engine(tmp_path / "state", source, {**made, "kept": kept}, on_step=step, options=options)

    run(make, crashes=True)
    for sink in opened:
        sink.close()
    assert crashes == []
    rows = [row for table in kept.rows(VISIT_COUNTS.name) for row in table.to_pylist()]
    expected = Counter(tuple(row[name] for name in VISIT_COUNTS.schema.names) for row in rows)
    assert sum(row["visits"] for row in rows) == len(VISITS)
    assert len(expected) > 7
    assert found(tmp_path) == {"sqlite": expected, "iceberg": expected, "lake": expected}
