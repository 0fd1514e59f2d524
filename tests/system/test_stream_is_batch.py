"""A pipeline over a real topic: whatever the partitions and the cut, the rows of the reference, and all books balanced.

What goes in is made up by the generator, or hostile by hand; what comes out is read from the tables, as a user would.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from sessionize.app.config.pipeline import PipelineConfig, load_pipeline
from sessionize.app.streams.run import open_stream
from sessionize.app.tables.warehouse import Warehouse
from sessionize.connectors.generator.settings import GeneratorSettings
from sessionize.connectors.generator.writer import write_lines
from sessionize.engine.accounting import Accounting
from sessionize.engine.run_events.reports import EpochReport
from sessionize.testing.observers import Calls
from sessionize.testing.oracle import Oracle
from sessionize.testing.records import FAR_OFF_MS, by_user
from sessionize.testing.services.kafka import KafkaServers
from sessionize.testing.tables import COMPARED, session_row
from tests.system.whole_runs import Crash, event, filled_topic


def pipeline(folder: Path, kafka: KafkaServers, topic: str, text: str = "", **overrides: object) -> PipelineConfig:
    path = folder / "p.toml"
    path.write_text('[input]\nkind = "kafka"\ndialect = "clickstream"\n' + text)
    keys = {key.replace("__", "."): value for key, value in overrides.items()}
    fixed = {
        "input.kafka.servers": kafka.servers,
        "input.kafka.topic": topic,
        "run.once": True,
        "run.home": str(folder / "home"),
        "rules.lateness": "5m",
        "stream.reconcile": "none",
        "stream.poll": "20ms",
    }
    return load_pipeline(str(path), overrides={**fixed, **keys}, environ={})


def run(config: PipelineConfig) -> tuple[Accounting, list[EpochReport]]:
    reports: list[EpochReport] = []
    with open_stream(config, stopping=threading.Event(), observer=Calls(epoch=reports.append)) as opened:
        accounting = opened.run()
    assert all(report.accounting.balanced for report in reports)
    return accounting, reports


def generated(count: int, **settings: Any) -> list[bytes]:
    out = BytesIO()
    write_lines(GeneratorSettings(profile="clickstream", events=count, **settings), out)
    return out.getvalue().splitlines()


def session_rows(config: PipelineConfig) -> Counter[tuple[Any, ...]]:
    found = Warehouse(config.home).query(f"SELECT uuid, {', '.join(COMPARED)} FROM user_sessions").to_pylist()
    return Counter(session_row(row["uuid"], row) for row in found)


def expected_rows(oracle: Oracle, config: PipelineConfig, *, late_too: bool = False) -> Counter[tuple[Any, ...]]:
    made = oracle.sessions(config.policy(), config.event_rules(), late_too=late_too)
    return Counter(session_row(row["user"], row) for row in made)


def count(config: PipelineConfig, table: str) -> int:
    (row,) = Warehouse(config.home).query(f"SELECT count(*) AS n FROM {table}").to_pylist()
    return int(row["n"])


@pytest.mark.parametrize(("partitions", "epoch_rows"), [(1, 10_000), (2, 200), (3, 700), (16, 400)])
def test_stream_batch_and_replay_are_the_same(
    tmp_path: Path, kafka: KafkaServers, partitions: int, epoch_rows: int
) -> None:
    records = generated(
        3_000,
        users=60,
        duration_ms=8 * 3_600_000,
        seed=partitions,
        out_of_order_ms=200_000,
        late_fraction=0.02,
        late_by_ms=1_000_000,
        duplicate_fraction=0.02,
        broken_fraction=0.01,
    )
    parts = by_user(records, partitions)
    topic = filled_topic(kafka, parts)
    config = pipeline(tmp_path, kafka, topic, stream__epoch_rows=epoch_rows)
    accounting, _ = run(config)
    oracle = Oracle.of_json(
        parts,
        config.dialect(),
        lateness_ms=config.rules.lateness_ms,
        watermark=config.rules.watermark,
        latest_ms=FAR_OFF_MS,
    )
    assert oracle.late
    assert session_rows(config) == expected_rows(oracle, config)
    assert (count(config, "events"), count(config, "late_events")) == (len(oracle.on_time), len(oracle.late))
    assert (count(config, "rejected_events"), accounting.rejected) == (oracle.rejected, oracle.rejected)
    assert accounting.consumed == sum(map(len, parts))
    # the same topic once more, into a new home: a replay
    again = pipeline(tmp_path, kafka, topic, stream__epoch_rows=777, run__home=str(tmp_path / "again"))
    run(again)
    assert session_rows(again) == session_rows(config)


def test_the_next_run_reads_only_what_is_new(tmp_path: Path, kafka: KafkaServers) -> None:
    start = 1_700_000_000_000
    first = [event(f"u{i % 5}", start + i * 1_000) for i in range(100)]
    topic = filled_topic(kafka, [first])
    config = pipeline(tmp_path, kafka, topic, stream__drain=False)
    assert run(config)[0].consumed == 100
    second = [event(f"u{i % 5}", start + 100_000 + i * 1_000) for i in range(50)]
    kafka.send(topic, second)
    accounting, reports = run(pipeline(tmp_path, kafka, topic))
    assert (accounting.consumed, sum(report.consumed for report in reports)) == (150, 50)
    oracle = Oracle.of_json(
        [first + second],
        config.dialect(),
        lateness_ms=config.rules.lateness_ms,
        watermark=config.rules.watermark,
        latest_ms=FAR_OFF_MS,
    )
    assert session_rows(config) == expected_rows(oracle, config)


@pytest.mark.parametrize("share", [0.005, 0.5])
def test_poison_is_set_aside_to_the_record(tmp_path: Path, kafka: KafkaServers, share: float) -> None:
    records = generated(2_000, users=30, seed=3, broken_fraction=share)
    parts = by_user(records, 2)
    config = pipeline(tmp_path, kafka, filled_topic(kafka, parts), stream__epoch_rows=500)
    accounting, _ = run(config)
    oracle = Oracle.of_json(
        parts,
        config.dialect(),
        lateness_ms=config.rules.lateness_ms,
        watermark=config.rules.watermark,
        latest_ms=FAR_OFF_MS,
    )
    assert accounting.rejected == count(config, "rejected_events") == oracle.rejected > 0
    assert session_rows(config) == expected_rows(oracle, config)
    raw = Warehouse(config.home).query("SELECT raw, source, line_number FROM rejected_events").to_pylist()
    for row in raw:  # each can be found again where it came from
        partition = int(row["source"].rpartition("[")[2].rstrip("]"))
        assert parts[partition][row["line_number"]].startswith(bytes(row["raw"]))


def test_the_year_2099_moves_no_watermark(tmp_path: Path, kafka: KafkaServers) -> None:
    start = 1_700_000_000_000
    records = [event("a", start + i * 60_000) for i in range(20)]
    records.insert(5, event("b", 4_070_908_800_000))
    config = pipeline(tmp_path, kafka, filled_topic(kafka, [records]))
    accounting, _ = run(config)
    assert (accounting.rejected, accounting.late) == (1, 0)
    assert accounting.rejected_by_reason == {"future_timestamp": 1}
    (row,) = Warehouse(config.home).query("SELECT uuid, event_count FROM user_sessions").to_pylist()
    assert row == {"uuid": "a", "event_count": 20}


def test_an_empty_partition_does_not_hold_the_others(tmp_path: Path, kafka: KafkaServers) -> None:
    start = 1_700_000_000_000
    records = [event("a", start), event("a", start + 3_600_000), event("b", start + 7_200_000)]
    config = pipeline(
        tmp_path,
        kafka,
        filled_topic(kafka, [records, []]),
        run__once=False,
        stream__epoch="50ms",
        stream__idle_after="100ms",
    )
    stopping = threading.Event()
    seen: list[EpochReport] = []

    def told(report: EpochReport) -> None:
        seen.append(report)
        if report.accounting.sessions:
            stopping.set()

    guard = threading.Timer(60, stopping.set)
    guard.start()
    with open_stream(config, stopping=stopping, observer=Calls(epoch=told)) as opened:
        opened.run()
    guard.cancel()
    assert count(config, "user_sessions") >= 1
    assert seen[-1].accounting.sessions >= 1


def test_one_user_with_very_many_events(tmp_path: Path, kafka: KafkaServers) -> None:
    start = 1_700_000_000_000
    records = [event("bot", start + i * 100) for i in range(30_000)]
    config = pipeline(tmp_path, kafka, filled_topic(kafka, [records]), stream__epoch_rows=4_000)
    accounting, _ = run(config)
    assert accounting.settled == 30_000
    found = Warehouse(config.home).query(
        "SELECT sum(event_count) AS n, max(session_duration_seconds) AS s FROM user_sessions"
    )
    (row,) = found.to_pylist()
    assert row["n"] == 30_000
    assert row["s"] < 2 * 3_600


def test_a_stopped_run_leaves_nothing_half_done(tmp_path: Path, kafka: KafkaServers) -> None:
    records = generated(4_000, users=40, seed=9, duration_ms=6 * 3_600_000)
    parts = by_user(records, 2)
    topic = filled_topic(kafka, parts)
    config = pipeline(tmp_path, kafka, topic, stream__epoch_rows=200)
    stopping = threading.Event()
    with open_stream(
        config, stopping=stopping, observer=Calls(epoch=lambda report: stopping.set() if report.epoch == 3 else None)
    ) as opened:
        part = opened.run()
    assert 0 < part.consumed < len(records)
    assert count(config, "events") + count(config, "late_events") == part.consumed - part.rejected
    accounting, _ = run(config)
    assert accounting.consumed == len(records)
    oracle = Oracle.of_json(
        parts,
        config.dialect(),
        lateness_ms=config.rules.lateness_ms,
        watermark=config.rules.watermark,
        latest_ms=FAR_OFF_MS,
    )
    assert session_rows(config) == expected_rows(oracle, config)


@contextmanager
def steady_traffic(kafka: KafkaServers, topic: str, partitions: int) -> Iterator[list[int]]:
    """Somebody who keeps writing, from another thread; yields how many records so far."""
    ending = threading.Event()
    written = [0]
    begun = threading.Event()

    def write() -> None:
        producer = Producer({"bootstrap.servers": kafka.servers, "linger.ms": 1})
        while not ending.is_set():
            for partition in range(partitions):
                producer.produce(topic, event(f"later{written[0] % 9}", 1_700_100_000_000), partition=partition)
                written[0] += 1
            producer.flush(10)
            begun.set()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert begun.wait(60)
        yield written
    finally:
        ending.set()
        thread.join()


def test_once_ends_under_steady_traffic_and_replays_exactly(tmp_path: Path, kafka: KafkaServers) -> None:
    start = 1_700_000_000_000
    parts = [[event(f"u{i % 7}", start + i * 1_000) for i in range(200)] for _ in range(3)]
    topic = filled_topic(kafka, parts)
    config = pipeline(tmp_path, kafka, topic, stream__epoch_rows=100, stream__drain=False, stream__epoch="1h")
    guard = threading.Event()
    stop_hanging = threading.Timer(60, guard.set)
    stop_hanging.start()

    def killed(step: str) -> None:
        steps.append(step)
        if steps.count("write iceberg") == 2 and step == "write iceberg":
            raise Crash

    steps: list[str] = []
    with (
        open_stream(config, stopping=guard, observer=Calls(step=killed)) as opened,
        steady_traffic(kafka, topic, 3),
        pytest.raises(Crash),
    ):
        opened.run()
    # the next run: what was planned again, then what was there when it began
    there = len(kafka.records(topic))
    with open_stream(config, stopping=guard) as opened, steady_traffic(kafka, topic, 3) as written:
        accounting = opened.run()
        assert written[0]
    stop_hanging.cancel()
    assert not guard.is_set()
    assert accounting.consumed == there > 600
    assert count(config, "events") + count(config, "late_events") == there
    final, _ = run(pipeline(tmp_path, kafka, topic))
    assert final.consumed == len(kafka.records(topic)) == there + written[0]


def test_once_takes_the_files_that_are_there_at_the_start(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.ndjson").write_bytes(event(f"u{number}", 1_700_000_000_000) + b"\n")
    path = tmp_path / "p.toml"
    path.write_text(f'[input]\nkind = "directory"\npaths = ["{folder}"]\ndialect = "clickstream"\n')
    fixed = {"run.once": True, "run.home": str(tmp_path / "home"), "stream.poll": "20ms"}
    config = load_pipeline(str(path), overrides=fixed, environ={})
    with open_stream(config, stopping=threading.Event()) as opened:
        (folder / "later.ndjson").write_bytes(event("u9", 1_700_000_000_000) + b"\n")
        assert opened.run().consumed == 3
    assert run(config)[0].consumed == 4
