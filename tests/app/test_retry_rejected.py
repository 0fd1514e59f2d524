"""Rejected records tried again: what a changed pipeline can read comes into the sessions, once, whatever is killed."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sessionize.app.config.pipeline import PipelineConfig, load_pipeline
from sessionize.app.runs import plan
from sessionize.app.tables import retry_rejected as module
from sessionize.app.tables.maintain import MaintenanceSettings, maintain
from sessionize.app.tables.reconcile import reconcile_tables
from sessionize.app.tables.retry_rejected import rejected_reasons, retry_rejected
from sessionize.app.tables.warehouse import Warehouse
from sessionize.connectors.iceberg import IcebergSink, events, load_table, open_catalog, rejected_events
from sessionize.connectors.iceberg.row_rewrite import RowReplacer
from sessionize.connectors.sql_store import StoreSink
from sessionize.connectors.sql_store.sqlite import SqliteDatabase
from sessionize.engine.reconcile.intents import IntentLog
from sessionize.errors import ConfigError, UnavailableError
from sessionize.ports import EpochId
from sessionize.session import columns as col
from sessionize.testing.epoch_outputs import output

NOON = 1_704_110_400_000
GOOD = {"uuid": "ann", "event_timestamp": str(NOON), "page_name": "home", "event_id": "1"}
RECORDS: list[Any] = [
    GOOD,
    {**GOOD, "event_id": "2", "event_timestamp": "2024-01-01T12:05:00Z"},
    {**GOOD, "event_id": "3", "event_timestamp": "2024-01-01T12:10:00+00:00", "colour": "red"},
    {**GOOD, "event_id": "4", "event_timestamp": "yesterday"},
    {"event_timestamp": str(NOON), "page_name": "home"},
    {**GOOD, "uuid": "bob", "event_timestamp": str(NOON + 10 * 86_400_000)},
]


def pipeline(home: Path, time_format: str = "ms", **more: object) -> PipelineConfig:
    mapping = {"user": "uuid", "time": "event_timestamp", "event_id": "event_id", "page": "page_name"}
    settings: dict[str, object] = {f"input.mapping.{name}": value for name, value in mapping.items()}
    settings |= {"input.kind": "files", "input.paths": [str(home / "in.ndjson")], "run.home": str(home / "data")}
    path = home / "mine.toml"
    path.write_text('name = "mine"\n')
    return load_pipeline(str(path), overrides={**settings, "input.mapping.time_format": time_format, **more})


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    lines = [json.dumps(record) for record in RECORDS] + ['{"uuid": "ann",']
    (tmp_path / "in.ndjson").write_text("\n".join(lines) + "\n")
    made = pipeline(tmp_path)
    accounting = plan(made, now_ms=NOON).run()
    assert (accounting.settled, accounting.rejected) == (1, 6)
    more = IcebergSink(open_catalog(made.home), rejected_events(), table="rejected_events")
    pretty = json.dumps({**GOOD, "event_id": "5"}, indent=1).encode()
    rows = [(pretty, "topic-0", 7, "some_reason", "…"), (None, "topic-0", 8, "corrupt_gzip", "…")]
    more.write(pa.Table.from_pylist([dict(zip(col.REJECTED_SCHEMA.names, r, strict=True)) for r in rows]))
    more.commit()
    return made


def counts(config: PipelineConfig) -> tuple[int, int]:
    """Rows of late_events and of rejected_events."""
    sql = "SELECT (SELECT count(*) FROM late_events) AS late, (SELECT count(*) FROM rejected_events) AS rejected"
    row = Warehouse(config.home).query(sql).to_pylist()[0]
    return row["late"], row["rejected"]


def test_reasons_with_counts_and_an_example(config: PipelineConfig) -> None:
    found = rejected_reasons(Warehouse(config.home))
    assert [(each.reason, each.count) for each in found] == [
        ("invalid_time", 3),
        ("corrupt_gzip", 1),
        ("future_timestamp", 1),
        ("invalid_json", 1),
        ("missing_user", 1),
        ("some_reason", 1),
    ]
    assert json.loads(found[0].raw or b"") == RECORDS[1]
    assert found[0].line_number == 2


def test_what_is_readable_now_comes_into_the_sessions(config: PipelineConfig, tmp_path: Path) -> None:
    changed = pipeline(tmp_path, "auto")
    would = retry_rejected(changed.home, changed, dry_run=True, now_ms=NOON)
    assert counts(changed) == (0, 8)
    done = retry_rejected(changed.home, changed, now_ms=NOON)
    assert {**done.as_dict(), "dry_run": True} == would.as_dict()
    assert (done.looked_at, done.usable, done.finished) == (8, 3, 0)
    assert done.unusable == {
        "invalid_time": 1,
        "missing_user": 1,
        "future_timestamp": 1,
        "invalid_json": 1,
        "no_bytes": 1,
    }
    assert counts(changed) == (3, 5)
    assert Warehouse(changed.home).query("SELECT colour FROM late_events WHERE event_id = '3'").to_pylist() == [
        {"colour": "red"}
    ]
    assert retry_rejected(changed.home, changed, now_ms=NOON).usable == 0
    assert reconcile_tables(changed.home, changed).replaced == 1
    assert Warehouse(changed.home).query("SELECT event_count, revision FROM user_sessions").to_pylist() == [
        {"event_count": 4, "revision": 1}
    ]


def test_one_reason_and_a_later_present(config: PipelineConfig) -> None:
    done = retry_rejected(config.home, config, reason="future_timestamp", now_ms=NOON + 10 * 86_400_000)
    assert (done.looked_at, done.usable) == (1, 1)
    assert counts(config) == (1, 7)


def test_small_portions_move_the_same(config: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH_ROWS", 1)
    changed = pipeline(tmp_path, "auto")
    assert retry_rejected(changed.home, changed, now_ms=NOON, bytes_max=1).usable == 3
    assert counts(changed) == (3, 5)


@pytest.mark.parametrize("killed_at", ["before the first commit", "between the commits", "after the second commit"])
def test_a_kill_neither_loses_nor_doubles(
    config: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    changed = pipeline(tmp_path, "auto")

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    deadly: dict[str, tuple[type, str]] = {
        "before the first commit": (IcebergSink, "commit"),
        "between the commits": (RowReplacer, "replace"),
        "after the second commit": (IntentLog, "drop"),
    }
    with monkeypatch.context() as patched:
        patched.setattr(*deadly[killed_at], killed)
        with pytest.raises(KeyboardInterrupt):
            retry_rejected(changed.home, changed, now_ms=NOON)
    expected = {
        "before the first commit": ((0, 8), 3, 0),
        "between the commits": ((3, 8), 0, 3),
        "after the second commit": ((3, 5), 0, 3),
    }
    before, usable, finished = expected[killed_at]
    assert counts(changed) == before
    # the pipeline was changed back meanwhile: what was begun is finished all the same
    again = config if usable == 0 else changed
    done = retry_rejected(changed.home, again, now_ms=NOON)
    assert (done.usable, done.finished) == (usable, finished)
    assert counts(changed) == (3, 5)
    assert retry_rejected(changed.home, changed, now_ms=NOON).finished == 0
    assert counts(changed) == (3, 5)


def test_a_killed_retry_is_known_after_its_snapshot_has_expired(
    config: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = pipeline(tmp_path, "auto")

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RowReplacer, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            retry_rejected(changed.home, changed, now_ms=NOON)
    another = IcebergSink(open_catalog(changed.home), events("uuid"), table="late_events")
    another.write(pa.table({"uuid": ["zoe"], "event_time_ms": [NOON]}))
    another.commit()
    maintain(Warehouse(changed.home), MaintenanceSettings(keep_s=0, keep_snapshots=1))
    assert counts(changed) == (4, 8)
    done = retry_rejected(changed.home, changed, now_ms=NOON)
    assert (done.usable, done.finished) == (0, 3)
    assert counts(changed) == (4, 5)


@pytest.fixture
def store(config: PipelineConfig) -> Iterator[StoreSink]:
    """A store with what the stream rejected, beside a record that the tables do not have."""
    sink = StoreSink(SqliteDatabase(config.home / "store.sqlite"), user_name="uuid")
    nothing = pa.table({"uuid": pa.array([], pa.string()), "event_time_ms": pa.array([], pa.int64())})
    kept = load_table(open_catalog(config.home), "sessions", "rejected_events").scan().to_arrow()
    other = pa.Table.from_pylist(
        [{"raw": b"{}", "source": "topic-1", "line_number": 1, "reason": "missing_user", "detail": ""}],
        schema=col.REJECTED_SCHEMA,
    )
    rejected = pa.concat_tables([kept.select(col.REJECTED_SCHEMA.names).cast(col.REJECTED_SCHEMA), other])
    sink.write_epoch(
        EpochId("w", 1, "p"),
        output(user_sessions=nothing, events=nothing, late_events=nothing, rejected_events=rejected),
    )
    yield sink
    sink.close()


def in_store(config: PipelineConfig) -> tuple[list[tuple[str, str | None]], int]:
    """(event_id, properties) of late events, and the number of rejected records."""
    with closing(sqlite3.connect(config.home / "store.sqlite")) as connection:
        late = connection.execute("SELECT event_id, properties FROM late_events ORDER BY event_id").fetchall()
        (rejected,) = connection.execute("SELECT count(*) FROM rejected_events").fetchone()
    return late, rejected


BROUGHT_BACK = [("2", None), ("3", '{"colour":"red"}'), ("5", None)]


def test_stores_follow_a_retry(config: PipelineConfig, tmp_path: Path, store: StoreSink) -> None:
    changed = pipeline(tmp_path, "auto")
    assert in_store(changed) == ([], 9)
    retry_rejected(changed.home, changed, dry_run=True, now_ms=NOON, stores=[store])
    assert in_store(changed) == ([], 9)
    assert retry_rejected(changed.home, changed, now_ms=NOON, stores=[store]).usable == 3
    assert in_store(changed) == (BROUGHT_BACK, 6)
    assert retry_rejected(changed.home, changed, now_ms=NOON, stores=[store]).usable == 0
    assert in_store(changed) == (BROUGHT_BACK, 6)


@pytest.mark.parametrize("when", ["before the store", "after the store"])
def test_a_store_that_was_away_gets_it_from_the_next_retry_once(
    config: PipelineConfig, tmp_path: Path, store: StoreSink, when: str
) -> None:
    changed = pipeline(tmp_path, "auto")

    class Away:
        def bring_back(self, rejected: pa.Table, late: pa.Table, *, token: str) -> None:
            if when == "after the store":
                store.bring_back(rejected, late, token=token)
            raise UnavailableError("the store cannot be reached now")

    with pytest.raises(UnavailableError, match="cannot be reached"):
        retry_rejected(changed.home, changed, now_ms=NOON, stores=[Away()])
    assert counts(changed) == (3, 5)
    done = retry_rejected(changed.home, changed, now_ms=NOON, stores=[store])
    assert (done.usable, done.finished) == (0, 3)
    assert counts(changed) == (3, 5)
    assert in_store(changed) == (BROUGHT_BACK, 6)


def test_only_tables_can_be_retried(config: PipelineConfig, tmp_path: Path) -> None:
    files = pipeline(tmp_path, **{"output.kind": "parquet", "output.path": "o.parquet"})
    with pytest.raises(ConfigError, match="only records in tables"):
        retry_rejected(config.home, files)
