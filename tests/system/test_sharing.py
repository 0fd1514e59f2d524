"""The number of processes changes on a topic that goes on: every record once, and an overlap is refused."""

import threading
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import Producer

from sessionize.app.config.pipeline import PipelineConfig
from sessionize.app.streams.run import open_stream
from sessionize.app.tables.reconcile import reconcile_tables
from sessionize.app.tables.warehouse import Warehouse
from sessionize.errors import StateError
from sessionize.testing.services.kafka import KafkaServers
from tests.system.test_stream_is_batch import pipeline, run
from tests.system.whole_runs import event, filled_topic

MINUTE = 60_000
START_MS = 1_785_585_600_000
PARTITIONS = 6
USERS = [f"u{number}" for number in range(PARTITIONS)]


def send(kafka: KafkaServers, topic: str, minutes: range) -> None:
    """One event a minute of each user, each in a partition of its own."""
    producer = Producer({"bootstrap.servers": kafka.servers})
    for minute in minutes:
        for number, user in enumerate(USERS):
            record = event(user, START_MS + minute * MINUTE, event_id=f"{user}-{minute}")
            producer.produce(topic, record, key=user, partition=number)
    assert producer.flush(30) == 0


def sharing(folder: Path, kafka: KafkaServers, topic: str, number: int, total: int, **more: object) -> PipelineConfig:
    share = {"input__kafka__instance": number, "input__kafka__instances": total} if total > 1 else {}
    return pipeline(folder, kafka, topic, **{**share, **more})


def archived(config: PipelineConfig) -> Counter[str]:
    """Late ones too: what comes within the gap after a process has ended its sessions is late for that process."""
    sql = "SELECT event_id FROM events UNION ALL SELECT event_id FROM late_events"
    return Counter(Warehouse(config.home).query(sql)["event_id"].to_pylist())


def expected(minutes: int) -> Counter[str]:
    return Counter(f"{user}-{minute}" for user in USERS for minute in range(minutes))


@pytest.fixture
def topic(kafka: KafkaServers) -> str:
    return filled_topic(kafka, [[] for _ in range(PARTITIONS)])


def test_the_number_of_processes_changes_and_every_record_counts_once(
    tmp_path: Path, kafka: KafkaServers, topic: str
) -> None:
    send(kafka, topic, range(10))
    whole = sharing(tmp_path, kafka, topic, 0, 1)
    run(whole)
    for count, (begin, total) in enumerate([(10, 2), (20, 4), (30, 3), (40, 1)], start=1):
        before = archived(whole)
        assert before == expected(begin)
        send(kafka, topic, range(begin, begin + 10))
        processes = [sharing(tmp_path, kafka, topic, number, total) for number in range(total)]
        for each in processes:
            with pytest.raises(StateError, match="the topic is split otherwise"):
                run(each)
        assert archived(whole) == before, count
        for number in range(total):
            run(sharing(tmp_path, kafka, topic, number, total, input__kafka__take_over=True))
        assert archived(whole) == expected(begin + 10)
        for each in processes:  # once more without the option: nothing is left to read
            run(each)
        assert archived(whole) == expected(begin + 10)
    reconcile_tables(whole.home, whole, drained=True)
    rows = Warehouse(whole.home).query("SELECT uuid, event_count FROM user_sessions").to_pylist()
    assert Counter((row["uuid"], row["event_count"]) for row in rows) == Counter((user, 50) for user in USERS)


def test_a_process_with_open_sessions_is_not_taken_over(tmp_path: Path, kafka: KafkaServers, topic: str) -> None:
    send(kafka, topic, range(10))
    old = sharing(tmp_path, kafka, topic, 0, 1, stream__drain=False)
    run(old)
    new = sharing(tmp_path, kafka, topic, 0, 2, input__kafka__take_over=True)
    with pytest.raises(StateError, match="has not ended with its sessions"):
        run(new)
    run(sharing(tmp_path, kafka, topic, 0, 1))  # which drains
    run(new)
    with pytest.raises(StateError, match="the topic is split otherwise"):
        run(old)
    run(sharing(tmp_path, kafka, topic, 1, 2))
    assert archived(old) == expected(10)


def test_one_that_still_runs_notices_that_its_share_is_another_ones(
    tmp_path: Path, kafka: KafkaServers, topic: str
) -> None:
    send(kafka, topic, range(5))
    old = sharing(tmp_path, kafka, topic, 0, 1)
    run(old)
    going_on = sharing(tmp_path, kafka, topic, 0, 1, run__once=False, stream__epoch="200ms")
    with open_stream(going_on, stopping=threading.Event()) as opened:  # it has begun again, and has read nothing so far
        for number in range(2):
            run(sharing(tmp_path, kafka, topic, number, 2, input__kafka__take_over=True))
        send(kafka, topic, range(5, 10))
        with pytest.raises(StateError, match="was taken over by others"):
            opened.run()
    for number in range(2):
        run(sharing(tmp_path, kafka, topic, number, 2))
    assert archived(old) == expected(10)
