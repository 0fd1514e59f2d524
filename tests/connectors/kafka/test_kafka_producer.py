"""`produce --topic`: what the generator makes is in the topic, record for record, and can be read as it says."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from sessionize.app.produce_topic import avro_writer, produce_events
from sessionize.connectors.generator import GeneratorSettings, LateRecord
from sessionize.connectors.kafka.stream_source import KafkaSource
from sessionize.errors import OutputError, UnavailableError
from sessionize.formats.avro import AvroRecords
from sessionize.formats.dialects import DIALECTS

COMMAND = Path(sys.executable).with_name("sessionize")


@pytest.fixture
def name() -> str:
    return f"p-{uuid.uuid4().hex[:10]}"


def record_count(servers: str, topic: str) -> int:
    """Records in the one partition of a topic, also while more come: then its end may never be reached."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "count"})
    _, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10, cached=False)
    consumer.close()
    return end


def command(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "produce", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False, **options
    )


@pytest.mark.parametrize("profile", ["clickstream", "user-events", "user_activity", "clicks", "ecommerce"])
def test_every_record_is_there_keyed_by_its_user(kafka, name, profile):
    kafka.create_topic(name, 4)
    settings = GeneratorSettings(
        profile=profile, users=20, events=2_000, seed=7, duplicate_fraction=0.01, broken_fraction=0.05
    )
    accounting = produce_events(settings, kafka.servers, name)
    messages = kafka.records(name)
    assert len(messages) == accounting.records > 2_000
    users: dict[bytes, set[int | None]] = {}
    for message in messages:
        key = message.key()
        if key is not None and f'"{key.decode()}"'.encode() in (message.value() or b""):
            users.setdefault(key, set()).add(message.partition())
    assert len(users) == accounting.users
    assert {len(partitions) for partitions in users.values()} == {1}
    assert len({p for partitions in users.values() for p in partitions}) > 1


@pytest.mark.parametrize("profile", ["clickstream", "user-events", "user_activity", "clicks", "ecommerce"])
def test_avro_gives_the_same_events_as_json(kafka, name, profile):
    settings = GeneratorSettings(profile=profile, users=20, events=500, seed=7)
    avro = avro_writer(settings, name)
    produce_events(settings, kafka.servers, kafka.create_topic(f"{name}-avro"), avro=avro)
    produce_events(settings, kafka.servers, kafka.create_topic(f"{name}-json"))
    tables = []
    for topic, decoder in ((f"{name}-avro", AvroRecords(DIALECTS[profile], schema=avro.text)), (f"{name}-json", None)):
        source = KafkaSource(kafka.servers, topic, DIALECTS[profile], decoder=decoder)
        rows: list[dict[str, object]] = []
        until = time.monotonic() + 60
        while source.caught_up() != source.partitions():
            assert time.monotonic() < until
            for batch in source.poll(timeout_s=0.5, now_ms=0):
                assert batch.rejected.num_rows == 0, batch.rejected.to_pylist()[:3]
                rows += batch.events.to_pylist()
        source.close()
        tables.append(rows)
    assert len(tables[0]) == 500
    assert tables[0] == tables[1]


def test_the_command_keeps_its_rate_and_says_who_is_late(kafka, name):
    """500 events in every second from the first on, not earlier; the late ones are three minutes old."""
    options = ("--rate", 500, "--duration", "3s", "--num-users", 50, "--late-fraction", 0.05)
    done = command("--kafka-servers", kafka.servers, "--topic", name, "--profile", "user_activity", *options)
    assert done.returncode == 0, done.stderr
    assert "1,500 records" in done.stderr
    messages = kafka.records(name)
    assert len(messages) == 1_500
    due = []
    for message in messages:
        event = json.loads(message.value() or b"")
        happened_ms = round(datetime.fromisoformat(event["event_time"]).timestamp() * 1_000)
        due.append(happened_ms)
        assert message.timestamp()[1] >= happened_ms
    # A busy machine may send later, never sooner; and what is due is spread over the three seconds.
    on_time = [ms for ms in due if ms > max(due) - 60_000]
    assert 2_900 <= max(on_time) - min(on_time) <= 3_100
    happened = Counter((ms - min(on_time)) // 1_000 for ms in on_time)
    assert all(450 <= happened[second] <= 500 for second in range(3)), happened
    first_ms = min(message.timestamp()[1] for message in messages)
    sent_in = Counter((message.timestamp()[1] - first_ms) // 1_000 for message in messages)
    assert all(425 <= sent_in[second] <= 575 for second in range(3)), sent_in
    late = [line for line in done.stderr.splitlines() if line.startswith("LATE user-")]
    assert 40 <= len(late) <= 120
    assert all("180 s behind" in line for line in late)


def test_late_events_are_told_one_by_one(kafka, name):
    told: list[LateRecord] = []
    settings = GeneratorSettings(users=10, events=500, rate_per_s=1_000.0, late_fraction=0.2, seed=3)
    accounting = produce_events(settings, kafka.servers, name, on_late=told.append)
    assert len(told) == accounting.late > 50
    values = Counter(message.value() for message in kafka.records(name))
    assert all(values[record.line.rstrip(b"\n")] == 1 for record in told)


def test_ctrl_c_ends_it_with_everything_delivered(kafka, name):
    arguments = [COMMAND, "produce", "--kafka-servers", kafka.servers, "--topic", name, "--rate", "200"]
    kafka.create_topic(name)
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, start_new_session=True) as running:
        try:
            until = time.monotonic() + 90
            while record_count(kafka.servers, name) < 50:
                assert time.monotonic() < until
            os.killpg(running.pid, signal.SIGINT)
            _, said = running.communicate(timeout=60)
        finally:
            running.kill()
    assert running.returncode == 0, said
    assert "Traceback" not in said
    written = int(said.split(" records")[0].replace(",", "").splitlines()[-1])
    assert len(kafka.records(name)) == written


def test_a_server_that_is_not_there_is_an_error(name):
    settings = GeneratorSettings(users=1, events=1)
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
        produce_events(settings, "127.0.0.1:1", name, timeout_s=1)


def test_records_that_are_not_taken_are_an_error(kafka, name):
    kafka.create_topic(name, config={"max.message.bytes": "100"})
    with pytest.raises(OutputError, match="too large"):
        produce_events(GeneratorSettings(users=5, events=50), kafka.servers, name)


def test_a_server_that_goes_away_is_an_error(own_kafka, name):
    broker = own_kafka()
    broker.create_topic(name)
    settings = GeneratorSettings(users=5, rate_per_s=200.0)
    stopping = threading.Timer(0.5, broker.kill)
    stopping.start()
    with pytest.raises(UnavailableError) as caught:
        produce_events(settings, broker.bootstrap_servers, name, realtime=True, timeout_s=2)
    stopping.join()
    assert "produce has ended" in str(caught.value.hint)  # and is not tried again


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topic", "t"], "the Kafka options are incomplete"),
        (["--kafka-servers", "127.0.0.1:1"], "the Kafka options are incomplete"),
        (["--format", "avro"], "the Kafka options are incomplete"),
        (["--kafka-servers", "127.0.0.1:1", "--topic", "t", "--format", "avro"], "needs a schema file or registry"),
        (["--kafka-servers", "127.0.0.1:1", "--topic", "t", "--format", "xml"], "unknown record format"),
        (["--kafka-servers", "127.0.0.1:1", "--topic", "t", "-o", "x.ndjson"], "not both"),
        (["--kafka-servers", "127.0.0.1:1", "--topic", "t", "--kafka-settings", "nowhere"], "cannot be read"),
    ],
)
def test_options_that_do_not_go_together(tmp_path, arguments, message):
    done = command("--events", 1, *arguments, cwd=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr


def test_settings_of_the_client_come_from_a_file(kafka, name, tmp_path):
    (tmp_path / "kafka.properties").write_text("# the server\n\nclient.id = me\nsasl.password=hunter2hunter2\n")
    file = ("--kafka-settings", tmp_path / "kafka.properties", "--avro-schema", tmp_path / "schema.avsc")
    done = command("--events", 5, "--kafka-servers", kafka.servers, "--topic", name, "--format", "avro", *file)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "schema.avsc").read_text())["type"] == "record"
    assert len(kafka.records(name)) == 5
    (tmp_path / "kafka.properties").write_text("security.protocol=nonsense\nsasl.password=hunter2hunter2\n")
    done = command("--events", 5, "--kafka-servers", kafka.servers, "--topic", name, *file[:2])
    assert done.returncode != 0
    assert "does not accept a setting" in done.stderr
    assert "hunter2" not in done.stderr
