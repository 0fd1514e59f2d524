"""A further output table from the engine to Iceberg, SQLite and a lake: its spec is here, and no sink knows it."""

import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sessionize import ConfigError
from sessionize.connectors.iceberg import IcebergEpochSink, load_table, open_catalog
from sessionize.connectors.parquet_lake import ParquetLakeSink
from sessionize.connectors.sql_store import StoreSink
from sessionize.connectors.sql_store.sqlite import SqliteDatabase
from sessionize.engine.stream.engine import LocalEngine
from sessionize.engine.stream.options import StreamOptions
from sessionize.ports import EpochSink
from sessionize.session.output_tables import OUTPUT_TABLES, SESSIONS, Derived, TableSpec, utc_dates
from sessionize.testing.streams import InMemoryEpochSink, InMemoryStreamSource
from tests.engine.stream_runs import Crash, Steps, engine, run
from tests.kernel.counting import Counts

# What the operator of tests/kernel/counting.py makes: events of a user by ten seconds and type.
EVENT_COUNTS = TableSpec(
    name="event_counts",
    schema=pa.schema(
        [
            pa.field("window_start_ms", pa.int64(), nullable=False),
            pa.field("user", pa.string(), nullable=False),
            pa.field("event_type", pa.string(), nullable=False),
            pa.field("count", pa.int64()),
        ]
    ),
    user_column="user",
    key=("user", "window_start_ms", "event_type"),
    derived=(Derived("window_date", pa.date32(), "window_start_ms", utc_dates),),
    partition_by=("window_date",),
    sort_by=("window_date", "user"),
)
ROWS = [{"user": f"u{i % 7}", "time": i * 1000, "id": str(i), "type": "ab"[i % 2]} for i in range(200)]
SPECS = (EVENT_COUNTS, *OUTPUT_TABLES)
TO = {SESSIONS.name: SESSIONS.name, EVENT_COUNTS.name: EVENT_COUNTS.name}


def sinks(home: Path) -> dict[str, EpochSink]:
    return {
        "sqlite": StoreSink(SqliteDatabase(home / "store.db"), destinations=TO, specs=SPECS),
        "iceberg": IcebergEpochSink(open_catalog(home), destinations=TO, specs=SPECS),
        "lake": ParquetLakeSink(home / "lake", destinations={EVENT_COUNTS.name: "counts"}, specs=SPECS),
    }


def found(home: Path) -> dict[str, Counter[tuple[Any, ...]]]:
    """(window_start_ms, user, event_type, count) by output."""
    names = EVENT_COUNTS.schema.names
    with closing(sqlite3.connect(home / "store.db")) as connection:
        stored = connection.execute(f"SELECT {', '.join(names)} FROM event_counts").fetchall()
    table = load_table(open_catalog(home), "sessions", "event_counts")
    assert [field.name for field in table.spec().fields] == ["window_date"]
    files = [pq.read_table(path, partitioning=None) for path in (home / "lake/counts").glob("window_date=*/*.parquet")]
    return {
        "sqlite": Counter(stored),
        "iceberg": Counter(zip(*table.scan().to_arrow().select(names).to_pydict().values(), strict=True)),
        "lake": Counter(zip(*pa.concat_tables(files).select(names).to_pydict().values(), strict=True)),
    }


@pytest.mark.parametrize("crash_at", ["write iceberg", "write lake", "commit"])
def test_a_further_table_comes_to_every_output_once(tmp_path: Path, crash_at: str) -> None:
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
        return engine(
            tmp_path / "state",
            InMemoryStreamSource([ROWS], piece_min=20),
            {**made, "kept": kept},
            on_step=step,
            options=StreamOptions(epoch_rows_max=40, poll_s=0, once=True),
            operators=[Counts("event_type", 10_000)],
        )

    run(make, crashes=True)
    for sink in opened:
        sink.close()
    assert crashes == []
    counts = Counter((row["time"] // 10_000 * 10_000, row["user"], row["type"]) for row in ROWS)
    once = Counter((*key, count) for key, count in counts.items())
    assert len(once) > 100
    assert found(tmp_path) == {"sqlite": once, "iceberg": once, "lake": once}
    assert kept.count(SESSIONS.name) == 7


class Revised(Counts):
    """The end of the input gives the windows of the last advance once more, with other counts."""

    def advance(self, watermark_ms: int) -> Mapping[str, pa.Table]:
        made = super().advance(watermark_ms)
        self._last = made["event_counts"]
        return made

    def flush(self, end_ms: int | None) -> Mapping[str, pa.Table]:
        at = self._last.column_names.index("count")
        revised = self._last.set_column(at, "count", pa.array([1000] * self._last.num_rows, pa.int64()))
        return {"event_counts": pa.concat_tables([super().flush(end_ms)["event_counts"], revised])}


def test_a_key_that_comes_in_two_steps_of_an_epoch_is_written_once(tmp_path: Path) -> None:
    """A drain advances, and then ends what is left."""
    kept, made = InMemoryEpochSink(), sinks(tmp_path)
    options = StreamOptions(poll_s=0, once=True)
    operators = [Revised("event_type", 10_000)]
    run(
        lambda: engine(
            tmp_path / "state",
            InMemoryStreamSource([ROWS]),
            {**made, "kept": kept},
            options=options,
            operators=operators,
        )
    )
    for sink in made.values():
        sink.close()
    assert [epoch.number for epoch, _ in kept.epochs] == [1]
    keys = Counter((row["time"] // 10_000 * 10_000, row["user"], row["type"]) for row in ROWS)
    again = found(tmp_path)
    for counts in again.values():
        assert Counter(key[:3] for key in counts.elements()) == Counter(dict.fromkeys(keys, 1))
    assert again["sqlite"] == again["iceberg"] == again["lake"]
    assert sum(key[3] == 1000 for key in again["lake"]) == kept.count("event_counts") - len(keys) > 50


@pytest.mark.parametrize("lacking", ["sqlite", "iceberg", "lake"])
def test_a_table_that_an_output_does_not_know_ends_the_run_before_anything_is_planned(
    tmp_path: Path, lacking: str
) -> None:
    """A plan would be repeated by every later run, whatever its operators are."""
    without: dict[str, EpochSink] = {
        "sqlite": StoreSink(SqliteDatabase(tmp_path / "other.db")),
        "iceberg": IcebergEpochSink(open_catalog(tmp_path / "other")),
        "lake": ParquetLakeSink(tmp_path / "other lake"),
    }
    outputs = {**sinks(tmp_path), lacking: without[lacking]}
    with pytest.raises(ConfigError, match="an output does not know") as caught:
        engine(tmp_path / "state", InMemoryStreamSource([ROWS]), outputs, operators=[Counts("event_type", 10_000)])
    assert f"operator counts, table 'event_counts'; {lacking} knows" in caught.value.detail
    for sink in (*outputs.values(), *without.values()):
        sink.close()
