"""The sink against a real broker: each epoch is seen once and as a whole, whatever happens in between."""

import base64
import json
import logging
import random
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pyarrow as pa
import pytest
from confluent_kafka import Producer

from sessionize.connectors.kafka.epoch_sink import KafkaEpochSink
from sessionize.connectors.kafka.topic_id import topic_ids
from sessionize.errors import ConfigError, OutputError, StateError, UnavailableError
from sessionize.ports import EpochId, EpochOutput
from sessionize.session.columns import REJECTED_SCHEMA, SessionColumns
from sessionize.testing.epoch_outputs import output
from sessionize.testing.epoch_sinks import SinkUnderTest, check_name
from sessionize.testing.further_tables import FURTHER_CHECKS, FURTHER_TABLES
from sessionize.testing.services.kafka import KafkaServers

SCHEMA = SessionColumns(("user", "session_id", "event_count", "events_by_type", "session_date")).schema("user_id")


def rows(number: int, count: int = 3, *, page: str = "/") -> EpochOutput:
    """An epoch's rows, which name the epoch."""
    users = [f"user-{n}" for n in range(count)]
    events = pa.table(
        {
            "user_id": pa.array(users).dictionary_encode(),
            "event_time_ms": pa.array(range(count), pa.int64()),
            "page": [page] * count,
            "processing_time": [f"epoch {number}"] * count,
        }
    )
    sessions = pa.Table.from_pylist(
        [
            {
                "user_id": user,
                "session_id": f"{user}@{number}",
                "event_count": number,
                "events_by_type": [("click", 2)],
                "session_date": None,
            }
            for user in users
        ],
        schema=SCHEMA,
    )
    rejected = pa.Table.from_pylist(
        [
            {"raw": raw, "source": "clicks[0]", "line_number": number, "reason": "r", "detail": "d"}
            for raw in (b"text", b"\xff", None, b"x" * 3_000_000)
        ],
        schema=REJECTED_SCHEMA,
    )
    return output(user_sessions=sessions, events=events, late_events=events.slice(0, 1), rejected_events=rejected)


def epoch(number: int, plan: str = "p", writer: str = "w") -> EpochId:
    return EpochId(writer, number, plan)


@pytest.fixture
def name() -> str:
    return f"s-{uuid.uuid4().hex[:10]}"


def topics_of(name: str) -> dict[str, str]:
    return {
        "user_sessions": f"{name}-sessions",
        "events": f"{name}-events",
        "late_events": f"{name}-late",
        "rejected_events": f"{name}-rejected",
    }


def opened(servers: str, name: str, **options) -> KafkaEpochSink:
    options = {"writer": name, "user_name": "user_id", **options}
    return KafkaEpochSink(servers, options.pop("topics", topics_of(name)), **options)


def seen(servers: str, topic: str) -> list[tuple[str, dict[str, object]]]:
    """Key and value of every committed record of a topic."""
    found = KafkaServers(servers).records(topic)
    return [((message.key() or b"").decode(), json.loads(message.value() or b"")) for message in found]


def epochs_seen(servers: str, topic: str) -> list[int]:
    return sorted(int(str(value["event_count"])) for _, value in seen(servers, topic))


def test_an_epoch_goes_to_its_topics(kafka, name):
    sink = opened(kafka.servers, name)
    assert sink.last_epoch(name) == 0
    sink.write_epoch(epoch(1, writer=name), rows(1))
    sink.close()
    events = seen(kafka.servers, f"{name}-events")
    assert [key for key, _ in events] == ["user-0", "user-1", "user-2"]
    assert events[1][1] == {"user_id": "user-1", "event_time_ms": 1, "page": "/", "processing_time": "epoch 1"}
    assert [value["session_id"] for _, value in seen(kafka.servers, f"{name}-sessions")] == [
        f"user-{n}@1" for n in range(3)
    ]
    assert seen(kafka.servers, f"{name}-sessions")[0][1]["events_by_type"] == {"click": 2}
    assert [key for key, _ in seen(kafka.servers, f"{name}-late")] == ["user-0"]
    keys, rejected = zip(*seen(kafka.servers, f"{name}-rejected"), strict=True)
    assert set(keys) == {"clicks[0]"}
    assert [row["raw"] for row in rejected] == ["text", None, None, "x" * 65_536]
    assert base64.b64decode(str(rejected[1]["raw_base64"])) == b"\xff"
    assert [row["raw_size_bytes"] for row in rejected] == [4, 1, None, 3_000_000]
    ids = topic_ids(kafka.servers, tuple(topics_of(name).values()), {})
    assert len(set(ids.values())) == 4
    assert seen(kafka.servers, f"{name}-sessions.epochs") == [(name, {"epoch": 1, "plan": "p", "topics": ids})]


def test_a_topic_that_was_recreated_is_told_once(kafka, name, caplog):
    with caplog.at_level(logging.WARNING, "sessionize.output"):
        sink = opened(kafka.servers, name)
        for number in (1, 2):
            sink.write_epoch(epoch(number, writer=name), rows(number))
        sink.close()
        opened(kafka.servers, name).close()
        assert caplog.records == []
        kafka.delete_topic(f"{name}-sessions")
        for number in (3, 4):
            sink = opened(kafka.servers, name)
            assert sink.last_epoch(name) == number - 1
            sink.write_epoch(epoch(number, writer=name), rows(number))
            sink.close()
    assert [record.getMessage() for record in caplog.records] == [
        f"the topic {name}-sessions was deleted and created again: it has no rows of the epochs up to 2"
    ]
    assert epochs_seen(kafka.servers, f"{name}-sessions") == [3] * 3 + [4] * 3


def test_a_note_of_the_code_before_names_no_topics(kafka, name, caplog):
    sink = opened(kafka.servers, name)
    sink.write_epoch(epoch(1, writer=name), rows(1))
    sink.close()
    kafka.send(f"{name}-sessions.epochs", [json.dumps({"epoch": 2, "plan": "p"}).encode()], keys=[name.encode()])
    with caplog.at_level(logging.WARNING, "sessionize.output"):
        sink = opened(kafka.servers, name)
    assert sink.last_epoch(name) == 2
    sink.close()
    assert caplog.records == []


@pytest.mark.parametrize("check", FURTHER_CHECKS, ids=check_name)
def test_tables_that_the_product_does_not_know(check, kafka, name):
    def made(tables=(), **options):
        topics = {table: f"{name}-{table}" for table in (*topics_of(name), *tables)}
        return KafkaEpochSink(kafka.servers, topics, writer=name, user_name="user", **options)

    def visible(table):
        rows = [value for _, value in seen(kafka.servers, f"{name}-{table}")]
        return [{**row, "raw": _bytes_of(row)} for row in rows] if table == "rejected_events" else rows

    def _bytes_of(row):
        return row["raw"].encode() if row["raw"] is not None else base64.b64decode(row["raw_base64"])

    check(
        SinkUnderTest(
            make=made, make_further=lambda tables: made(tables, specs=FURTHER_TABLES), visible=visible, writer=name
        )
    )


def test_only_topics_that_are_named_are_written(kafka, name):
    sink = opened(kafka.servers, name, topics={"late_events": name})
    sink.write_epoch(epoch(1, writer=name), rows(1))
    sink.close()
    assert len(seen(kafka.servers, name)) == 1
    with pytest.raises(ConfigError, match="no Kafka topic"):
        opened(kafka.servers, name, topics={})
    with pytest.raises(ConfigError, match="not known"):
        opened(kafka.servers, name, topics={"sessions": name})


def test_an_epoch_is_written_once(kafka, name):
    topics = {"user_sessions": f"{name}-sessions"}
    first = opened(kafka.servers, name, topics=topics)
    for number in (1, 2, 2, 1, 3):
        first.write_epoch(epoch(number, writer=name), rows(number, 1))
    first.close()
    second = opened(kafka.servers, name, topics=topics)
    assert second.last_epoch(name) == 3
    for number in (2, 3, 4):
        second.write_epoch(epoch(number, writer=name), rows(number, 1))
    with pytest.raises(StateError, match="another plan"):
        second.write_epoch(epoch(4, "other", writer=name), rows(4, 1))
    with pytest.raises(ConfigError):
        second.write_epoch(epoch(5, writer="another"), rows(5, 1))
    with pytest.raises(ConfigError):
        second.last_epoch("another")
    assert second.last_epoch(name) == 4  # known by itself, without being opened anew
    second.close()
    other = opened(kafka.servers, f"{name}-2", topics=topics)  # shares the topics, has its own epochs
    assert other.last_epoch(f"{name}-2") == 0
    other.write_epoch(epoch(1, writer=f"{name}-2"), rows(100, 1))
    other.close()
    assert epochs_seen(kafka.servers, f"{name}-sessions") == [1, 2, 3, 4, 100]


def test_an_older_process_is_shut_out(kafka, name):
    topics = {"user_sessions": name}
    old = opened(kafka.servers, name, topics=topics)
    old.write_epoch(epoch(1, writer=name), rows(1, 1))
    new = opened(kafka.servers, name, topics=topics)
    for _ in range(2):
        with pytest.raises(OutputError, match="another process"):
            old.write_epoch(epoch(2, writer=name), rows(2, 1))
    new.write_epoch(epoch(2, writer=name), rows(2, 1))
    new.write_epoch(epoch(3, writer=name), rows(3, 1))
    old.close()
    new.close()
    assert epochs_seen(kafka.servers, name) == [1, 2, 3]


def test_a_row_that_is_too_large_is_named_and_nothing_of_its_epoch_is_seen(kafka, name):
    kafka.create_topic(f"{name}-sessions", 1, {"max.message.bytes": "1000000"})
    session = random.Random(7).randbytes(1_000_000).hex()  # so that compressing does not help
    sink = opened(kafka.servers, name, oversized="stop")
    wanted = rows(1, 3)
    large = wanted.tables["user_sessions"].set_column(1, "session_id", pa.array(["small", session, "small"]))
    with pytest.raises(OutputError, match="too large for Kafka") as caught:
        sink.write_epoch(epoch(1, writer=name), wanted.with_tables({"user_sessions": large}))
    assert f"topic {name}-sessions, the row of 'user-1', session '{session[:40]}" in str(caught.value.detail)
    assert "with 2,000,1" in str(caught.value.detail)
    assert "allows 1,000,000" in str(caught.value.detail)
    assert f"max.message.bytes of the topic {name}-sessions, to 2097152" in str(caught.value.hint)
    assert len(str(caught.value)) < 1_000
    assert seen(kafka.servers, f"{name}-late") == []
    sink.write_epoch(epoch(1, writer=name), rows(1, 1))
    sink.close()
    assert len(seen(kafka.servers, f"{name}-events")) == 1


def test_small_rows_fit_into_a_topic_that_takes_little_at_once(kafka, name):
    """A batch of them does not, unless it is made smaller than usual."""
    kafka.create_topic(f"{name}-events", 1, {"max.message.bytes": "20000"})
    sink = opened(kafka.servers, name)
    few = rows(1, 200)
    pages = [random.Random(number).randbytes(1_000).hex() for number in range(200)]
    sink.write_epoch(
        epoch(1, writer=name), few.with_tables({"events": few.tables["events"].set_column(2, "page", [pages])})
    )
    sink.close()
    assert len(seen(kafka.servers, f"{name}-events")) == 200


def test_a_row_that_the_client_itself_refuses_is_named(kafka, name):
    security = {"message.max.bytes": 100_000, "batch.size": 100_000}
    sink = opened(kafka.servers, name, security=security, oversized="stop")
    with pytest.raises(OutputError, match="too large for Kafka") as caught:
        sink.write_epoch(epoch(1, writer=name), rows(1, 1, page="x" * 200_000))
    assert "the row of 'user-0' with 200,0" in str(caught.value.detail)
    assert "sends at most 100,000" in str(caught.value.detail)
    sink.write_epoch(epoch(1, writer=name), rows(1, 1))
    sink.close()
    assert len(seen(kafka.servers, f"{name}-events")) == 1


def test_a_server_that_is_away_is_unavailable_and_the_epoch_is_written_later(own_kafka, name):
    broker = own_kafka()
    topics = {"user_sessions": name}
    sink = opened(broker.bootstrap_servers, name, topics=topics, timeout_s=2)
    sink.write_epoch(epoch(1, writer=name), rows(1, 1))
    broker.stop()
    with pytest.raises(UnavailableError):
        sink.write_epoch(epoch(2, writer=name), rows(2, 1))
    with pytest.raises(UnavailableError):
        sink.write_epoch(epoch(2, writer=name), rows(2, 1))
    with pytest.raises(UnavailableError):
        opened(broker.bootstrap_servers, name, topics=topics, timeout_s=1)
    broker.start()
    until = time.monotonic() + 90
    while True:
        try:
            sink.write_epoch(epoch(2, writer=name), rows(2, 1))
            break
        except UnavailableError:
            assert time.monotonic() < until
    sink.close()
    assert epochs_seen(broker.bootstrap_servers, name) == [1, 2]


def test_credentials_that_do_not_fit_are_refused(kafka, name):
    security = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "me",
        "sasl.password": "hunter2hunter2",
    }
    began = time.monotonic()
    with pytest.raises(OutputError, match="refuses access") as caught:
        opened(kafka.servers, name, security=security, timeout_s=60)
    assert time.monotonic() - began < 60
    assert "hunter2" not in str(caught.value)


# Writes epochs as an engine does: the checkpoint is a file, renamed into place after the sink has the epoch.
ENGINE = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from test_kafka_sink import KafkaEpochSink, epoch, rows
servers, name, checkpoint = sys.argv[1], sys.argv[2], Path(sys.argv[3])
sink = KafkaEpochSink(servers, {"user_sessions": name}, writer=name, user_name="user_id")
while True:
    done = int(checkpoint.read_text()) if checkpoint.exists() else 0
    print(done, flush=True)
    sink.write_epoch(epoch(done + 1, f"plan {done + 1}", writer=name), rows(done + 1, 2_000))
    part = checkpoint.with_suffix(".part")
    part.write_text(str(done + 1))
    part.rename(checkpoint)
"""


def test_killed_at_any_moment_each_epoch_is_there_once(kafka, name, tmp_path):
    script, checkpoint = tmp_path / "engine.py", tmp_path / "checkpoint"
    script.write_text(ENGINE)
    done = 0
    for attempt in range(3):
        arguments = [sys.executable, script, kafka.servers, name, checkpoint, Path(__file__).parent]
        engine = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        assert engine.stdout is not None
        for line in engine.stdout:
            done = int(line)
            if done >= 4 * (attempt + 1):
                break
        deadline = time.monotonic() + 0.004 * (1 + 7 * attempt)  # somewhere within the next epoch or two
        while time.monotonic() < deadline and engine.poll() is None:
            pass
        engine.send_signal(signal.SIGKILL)
        engine.wait()
        engine.stdout.close()
    # Killed between the commit and the checkpoint, too: the checkpoint is put back by one.
    written = int(checkpoint.read_text())
    checkpoint.write_text(str(written - 1))
    sink = opened(kafka.servers, name, topics={"user_sessions": name})
    last = sink.last_epoch(name)
    assert last in (written, written + 1)
    for number in range(written, last + 2):
        sink.write_epoch(epoch(number, f"plan {number}", writer=name), rows(number, 2_000))
    sink.close()
    found = epochs_seen(kafka.servers, name)
    assert found == [number for number in range(1, last + 2) for _ in range(2_000)]


def test_another_writers_open_transaction_hides_nothing(kafka, name):
    """What comes after an open transaction is not visible yet; taking that for the end would write an epoch twice."""
    topics = {"user_sessions": name}
    sink = opened(kafka.servers, name, topics=topics)
    blocker = Producer({"bootstrap.servers": kafka.servers, "transactional.id": f"{name}-b", "log_level": 0})
    blocker.init_transactions(20)
    blocker.begin_transaction()
    blocker.produce(f"{name}.epochs", b'{"epoch": 1, "plan": "p"}', b"somebody")
    blocker.flush(10)
    sink.write_epoch(epoch(1, writer=name), rows(1, 1))
    sink.close()
    with pytest.raises(UnavailableError, match="read to its end"):
        opened(kafka.servers, name, topics=topics, timeout_s=4)
    blocker.abort_transaction(20)
    again = opened(kafka.servers, name, topics=topics)
    assert again.last_epoch(name) == 1
    again.close()
