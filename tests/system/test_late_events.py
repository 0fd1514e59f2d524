"""Late events through a whole pipeline over Kafka: worked in beside the stream, behind it, or by the command, every
table equals a batch over all events; the topics for late and rejected records get each of them once.
"""

import fcntl
import io
import json
import os
import re
import sqlite3
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from sessionize.app.build import open_stores
from sessionize.app.config.pipeline import PipelineConfig, load_pipeline
from sessionize.app.streams import reconcile as stream_reconciling
from sessionize.app.streams.logs import StreamLog
from sessionize.app.streams.run import open_stream
from sessionize.app.tables.reconcile import reconcile_tables
from sessionize.app.tables.retry_rejected import retry_rejected
from sessionize.app.tables.warehouse import Warehouse
from sessionize.cli.app import app
from sessionize.cli.terminal.status_line import StatusLine
from sessionize.engine import schedule as periodic
from sessionize.engine.accounting import Accounting
from sessionize.engine.run_events.reports import Status
from sessionize.errors import ConfigError, OutputError, UnavailableError
from sessionize.testing.records import by_user, clickstream
from sessionize.testing.services.kafka import KafkaServers
from tests.system.whole_runs import Crash, crash_before, filled_topic, oracle_of, run

DAY_MS = 86_400_000
COLUMNS = "uuid, session_id, session_start_time_ms, session_end_time_ms, event_count, start_reason, end_reason"
NAMES = COLUMNS.replace("uuid", "user").split(", ")
TEXT = """
name = "web"
[input]
kind = "kafka"
dialect = "clickstream"
[output.sqlite]
path = "store.sqlite"
"""


def pipeline(folder: Path, kafka: KafkaServers, topic: str, text: str = "", **overrides: object) -> PipelineConfig:
    path = folder / "web.toml"
    path.write_text(
        f"""{TEXT}{text}
[input.kafka]
servers = "{kafka.servers}"
topic = "{topic}"
[run]
home = "{folder / "home"}"
[rules]
lateness = "5m"
"""
    )
    fixed = {"run.once": True, "stream.poll": "20ms", "stream.epoch_rows": 600, "stream.reconcile": "none"}
    keys = {key.replace("__", "."): value for key, value in overrides.items()}
    return load_pipeline(str(path), overrides={**fixed, **keys}, environ={})


def generated(count: int, *, partitions: int, seed: int) -> list[list[bytes]]:
    """By user; a twentieth late, some broken."""
    hostile = {"late_fraction": 0.05, "late_by_ms": 3_000_000, "duplicate_fraction": 0.01, "broken_fraction": 0.02}
    records = clickstream(count, seed=seed, users=40, duration_ms=10 * 3_600_000, out_of_order_ms=100_000, **hostile)
    return by_user(records, partitions)


def batch_of(config: PipelineConfig, parts: list[list[bytes]], *, late_too: bool = True) -> Counter[Any]:
    oracle = oracle_of(config, parts)
    assert oracle.late
    made = oracle.sessions(config.policy(), config.event_rules(), late_too=late_too)
    return Counter(tuple(row[name] for name in NAMES) for row in made)


def in_tables(config: PipelineConfig) -> Counter[Any]:
    found = Warehouse(config.home).query(f"SELECT {COLUMNS} FROM user_sessions").to_pylist()
    return Counter(tuple(row.values()) for row in found)


def in_store(config: PipelineConfig, columns: str = COLUMNS) -> Counter[Any]:
    with sqlite3.connect(config.home / "store.sqlite", timeout=30) as store:
        return Counter(store.execute(f"SELECT {columns} FROM user_sessions").fetchall())


def test_the_command_makes_every_table_equal_a_batch(tmp_path: Path, kafka: KafkaServers) -> None:
    parts = generated(2_000, partitions=3, seed=1)
    config = pipeline(tmp_path, kafka, filled_topic(kafka, parts))
    run(config)
    assert in_tables(config) == in_store(config) == batch_of(config, parts, late_too=False)
    command = ["reconcile", str(tmp_path / "web.toml"), "--json"]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert json.loads(done.stdout)["waiting"] == 0
    assert in_tables(config) == in_store(config) == batch_of(config, parts)
    revisions = Warehouse(config.home).query("SELECT uuid, session_id, revision FROM user_sessions").to_pylist()
    assert in_store(config, "uuid, session_id, revision") == Counter(tuple(row.values()) for row in revisions)
    assert max(row["revision"] for row in revisions) == 1
    again = json.loads(CliRunner().invoke(app, command, catch_exceptions=False).stdout)
    assert (again["replaced"], again["added"]) == (0, 0)


def test_records_tried_again_come_into_the_store_as_into_the_tables(tmp_path: Path, kafka: KafkaServers) -> None:
    """Also when the store was away while reconcile told it."""
    parts = generated(1_500, partitions=2, seed=9)
    for part in parts:
        for number in range(0, len(part), 7):
            part[number] = re.sub(rb'"event_timestamp":"(\d+)"', as_text, part[number])
    topic = filled_topic(kafka, parts)
    names = {"user": "uuid", "time": "event_timestamp", "event_id": "event_id", "page": "page_name"}
    mapping = {f"input__mapping__{name}": field for name, field in names.items()}
    first = pipeline(tmp_path, kafka, topic, input__mapping__time_format="ms", **mapping)
    assert run(first).rejected_by_reason["invalid_time"] > 150
    changed = pipeline(tmp_path, kafka, topic, input__mapping__time_format="auto", **mapping)
    home, database = changed.home, changed.home / "store.sqlite"
    stored = in_store(first)
    assert retry_rejected(home, changed).usable > 150
    assert in_tables(first) == in_store(first) == stored  # it is reconciling that makes sessions of them

    os.rename(database, tmp_path / "away")
    database.mkdir()  # nothing that could be opened
    with pytest.raises(OutputError), open_stores(changed) as stores:
        reconcile_tables(home, changed, stores=stores)
    database.rmdir()
    os.rename(tmp_path / "away", database)
    assert in_tables(first) != in_store(first)
    with open_stores(changed) as stores:
        assert reconcile_tables(home, changed, stores=stores, drained=True).waiting == 0
    assert in_tables(changed) == in_store(changed) == batch_of(changed, parts) != stored
    accounting = run(changed)
    assert accounting.balanced
    assert in_tables(changed) == in_store(changed) == batch_of(changed, parts)


def as_text(found: re.Match[bytes]) -> bytes:
    at = datetime.fromtimestamp(int(found[1]) / 1000, UTC)
    return b'"event_timestamp":"%s"' % at.isoformat(timespec="milliseconds").encode()


def test_a_run_that_ends_by_itself_reconciles_at_its_end(tmp_path: Path, kafka: KafkaServers) -> None:
    parts = generated(2_000, partitions=2, seed=2)
    topic = filled_topic(kafka, [part[: len(part) // 2] for part in parts])
    config = pipeline(tmp_path, kafka, topic, stream__reconcile="1h")
    run(config)
    assert in_tables(config) == in_store(config) == batch_of(config, [part[: len(part) // 2] for part in parts])
    for number, part in enumerate(parts):
        kafka.send(topic, part[len(part) // 2 :], partition=number)
    # what the drain closed is late for the second run, and nothing but a batch over everything is right afterwards
    run(config)
    assert in_tables(config) == in_store(config) == batch_of(config, parts)


def test_what_the_end_of_a_run_waits_for_is_on_the_status_line(tmp_path: Path, kafka: KafkaServers) -> None:
    parts = generated(1_000, partitions=2, seed=6)
    config = pipeline(tmp_path, kafka, filled_topic(kafka, parts), stream__reconcile="1h")
    lines: list[str] = []

    def show(status: Status) -> None:
        line = io.StringIO()
        drawn = StatusLine()
        drawn.show(status)
        Console(file=line, width=1_000).print(drawn)
        lines.append(" ".join(line.getvalue().split()))
        if "another reconciliation is running" in lines[-1]:
            held.close()

    config.home.mkdir()
    with open(config.home / "reconcile.lock", "wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        run(config, on_status=show)
        assert held.closed, "nobody was told"
    users = len({row["user"] for row in oracle_of(config, parts).late})
    assert any(line.endswith("reconciling late events") for line in lines)
    assert any(f"reconciling late events, {users} of {users} users" in line for line in lines)
    assert "reconcil" not in lines[-1]
    assert in_tables(config) == in_store(config) == batch_of(config, parts)


def test_reconciling_between_the_writes_of_an_epoch(tmp_path: Path, kafka: KafkaServers) -> None:
    parts = generated(3_000, partitions=1, seed=5)  # of two, one might be read to its end before the other
    config = pipeline(tmp_path, kafka, filled_topic(kafka, parts), stream__epoch_rows=250)
    replaced = 0
    for step in ("write sqlite", "write iceberg", "commit") * 2:
        with pytest.raises(Crash):
            run(config, on_step=crash_before(step, 2))
        with open_stores(config) as stores:
            replaced += reconcile_tables(config.home, config, stores=stores).replaced
    assert replaced > 10
    run(pipeline(tmp_path, kafka, config.input.kafka.topic, stream__reconcile="1h"))
    assert in_tables(config) == in_store(config) == batch_of(config, parts)


def pushed(user: str, time_ms: int) -> bytes:
    record = {"uuid": user, "event_timestamp": str(time_ms), "event_id": uuid.uuid4().hex, "page_name": "home"}
    return json.dumps(record).encode()


def until(true: Callable[[], bool], *, seconds: float = 180) -> bool:
    """Whether it became true in time."""
    end, tick = time.monotonic() + seconds, threading.Event()
    while not true():
        if time.monotonic() > end:
            return False
        tick.wait(0.5)
    return True


def test_beside_a_running_stream(tmp_path: Path, kafka: KafkaServers, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = generated(2_000, partitions=2, seed=3)
    topic = filled_topic(kafka, parts)
    config = pipeline(
        tmp_path,
        kafka,
        topic,
        run__once=False,
        stream__epoch="100ms",
        stream__epoch_rows=200,
        stream__idle_after="100ms",
        stream__reconcile="200ms",
        stream__reconcile_tiers=["30d"],
        rules__watermark="maximum",  # one event in each partition is to make all before it final
    )
    outages = [UnavailableError("the disk is asleep"), ValueError("a mistake")]

    def at_first_away(*arguments: Any, **options: Any) -> Any:
        if outages:
            raise outages.pop(0)
        return reconcile_tables(*arguments, **options)

    monkeypatch.setattr(stream_reconciling, "reconcile_tables", at_first_away)
    stopping, written, ended = threading.Event(), io.StringIO(), list[Accounting]()
    log = StreamLog("web", level="INFO", to=written)

    def stream() -> None:
        with open_stream(config, stopping=stopping, observer=log) as opened:
            ended.append(opened.run())

    running = threading.Thread(target=stream)
    running.start()
    try:
        # an event long after in every partition: all that came before is final, and what comes now is late
        latest = max(row["time"] for row in oracle_of(config, parts).on_time)
        markers = [pushed(f"marker-{number}", latest + DAY_MS) for number in range(len(parts))]
        for number, marker in enumerate(markers):
            kafka.send(topic, [marker], partition=number)
            kafka.send(topic, generated(100, partitions=2, seed=30)[number], partition=number)
            parts[number] += [marker, *generated(100, partitions=2, seed=30)[number]]
        wanted = batch_of(config, parts)
        for number in range(len(parts)):  # still open
            wanted = Counter({row: n for row, n in wanted.items() if row[0] != f"marker-{number}"})
        reached = until(
            lambda: "reconcile_finished" in written.getvalue() and in_tables(config) == in_store(config) == wanted
        )
    finally:
        asked = time.monotonic()
        stopping.set()
        running.join(60)
    assert ended, written.getvalue()
    assert time.monotonic() - asked < periodic._END_S  # it has not waited for a reconciliation to be left
    assert reached, written.getvalue()[-6000:]
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    failed = [(line["level"], line["problem"]) for line in lines if line["event"] == "reconcile_failed"]
    assert failed[:2] == [("warning", "the disk is asleep"), ("error", "ValueError: a mistake")]
    assert {line["window_ms"] for line in lines if line["event"] == "reconcile_finished"} == {30 * DAY_MS}
    assert all(line["balanced"] for line in lines if line["event"] == "epoch_committed")
    # the next run, to its end
    run(pipeline(tmp_path, kafka, topic, stream__reconcile="1h"))
    assert in_tables(config) == in_store(config) == batch_of(config, parts)


def test_sessions_that_cannot_be_reconciled_are_told_at_the_start(tmp_path: Path, kafka: KafkaServers) -> None:
    topic = filled_topic(kafka, [[]])
    with pytest.raises(ConfigError, match="not kept"):
        pipeline(tmp_path, kafka, topic, stream__reconcile="1h", output__events=False)
    config = pipeline(tmp_path, kafka, topic, stream__reconcile="1h", output__columns=["event_count"])
    with pytest.raises(ConfigError, match="cannot be reconciled"):
        run(config)


def sent_to(kafka: KafkaServers, topic: str) -> list[dict[str, Any]]:
    """What a reader of committed records finds in a topic of one partition."""
    return [json.loads(value) for value in kafka.committed(topic)]


def test_late_and_rejected_records_go_to_their_topics_once(tmp_path: Path, kafka: KafkaServers) -> None:
    parts = generated(2_000, partitions=2, seed=4)
    topic = filled_topic(kafka, parts)
    names = {kind: kafka.create_topic(f"{topic}-{kind}", 1) for kind in ("late", "rejected")}
    text = f'[output.kafka]\nlate = "{names["late"]}"\nrejected = "{names["rejected"]}"\n'
    config = pipeline(tmp_path, kafka, topic, text, stream__epoch_rows=300)

    # the second epoch fails before its topics are written, the fourth after that; each is repeated
    for step, times in (("write kafka", 2), ("commit", 3)):
        with pytest.raises(Crash):
            run(config, on_step=crash_before(step, times))
    accounting = run(config)
    assert accounting.consumed == sum(map(len, parts))
    oracle = oracle_of(config, parts)
    late = sent_to(kafka, names["late"])
    seen = Counter((row["uuid"], row["event_time_ms"], row["event_id"]) for row in late)
    assert seen == Counter((row["user"], row["time"], row["id"]) for row in oracle.late)
    rejected = sent_to(kafka, names["rejected"])
    assert len(rejected) == oracle.rejected == accounting.rejected > 10
    assert len({(row["source"], row["line_number"]) for row in rejected}) == oracle.rejected
    in_table = Warehouse(config.home).query("SELECT source, line_number, reason FROM rejected_events").to_pylist()
    assert Counter((row["source"], row["line_number"], row["reason"]) for row in rejected) == Counter(
        tuple(row.values()) for row in in_table
    )
