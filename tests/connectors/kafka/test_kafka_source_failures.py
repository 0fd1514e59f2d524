"""The source where something fails: records that are gone, settings that cannot be, brokers that are away."""

import time
import uuid

import pytest
from confluent_kafka import KafkaException, Producer, TopicPartition

from sessionize.connectors.kafka import stall_detector as silence
from sessionize.connectors.kafka.stream_source import KafkaSource
from sessionize.errors import ConfigError, InputError, UnavailableError
from sessionize.ports import StreamBatch
from tests.connectors.kafka.reading import CLICKS, NOW_MS, clicks, consumed, ranges, source_of, times, to_end, until


def test_expired_records_are_an_error_or_a_counted_loss(kafka, topic):
    kafka.send(topic, clicks(0, 100))
    kafka.delete_records(topic, {0: 40})
    place = f"{topic}[0]"
    with source_of(kafka.servers, topic) as source:
        assert ranges(to_end(source)) == {place: (40, 100)}
        source.seek({place: 10})
        with pytest.raises(InputError, match=r"offset 10 is next, the first available one is 40"):
            to_end(source)
        with pytest.raises(InputError, match=r"offset 10 is next"):  # it does not go on over the loss by itself
            to_end(source)
        with pytest.raises(InputError, match=r"offset 5 is next"):
            list(source.read({place: (5, 50)}, now_ms=NOW_MS))
    with source_of(kafka.servers, topic, on_expired="earliest") as source:
        source.seek({place: 10})
        batches = to_end(source)
        assert times(batches) == {place: list(range(40, 100))}
        assert source.lost == {place: 30}


def test_a_topic_made_anew_is_noticed(kafka, topic):
    kafka.send(topic, clicks(0, 5))
    with source_of(kafka.servers, topic, unavailable_after_s=2) as source:
        source.seek({f"{topic}[0]": 50})
        with pytest.raises(InputError, match="no longer in Kafka"):
            to_end(source)


def test_what_is_not_there_is_said_at_once(kafka, topic):
    began = time.monotonic()
    with pytest.raises(InputError, match=r"the Kafka topic does not exist[\s\S]*nowhere"):
        KafkaSource(kafka.servers, "nowhere", CLICKS)
    with pytest.raises(InputError, match=r"has 0-0; asked for 3"):
        KafkaSource(kafka.servers, topic, CLICKS, partitions="0,3")
    with pytest.raises(ConfigError, match=r"enable\.auto\.commit"):
        KafkaSource(kafka.servers, topic, CLICKS, security={"enable.auto.commit": True})
    with pytest.raises(ConfigError, match=r"no\.such\.setting"):
        KafkaSource(kafka.servers, topic, CLICKS, security={"no.such.setting": "x"})
    assert time.monotonic() - began < 30  # what is waited for where a server does not answer


def test_credentials_that_do_not_fit_are_refused_and_not_shown(kafka, topic):
    security = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "me",
        "sasl.password": "hunter2hunter2",
    }
    began = time.monotonic()
    with pytest.raises((InputError, UnavailableError)) as caught:
        KafkaSource(kafka.servers, topic, CLICKS, security=security, unavailable_after_s=60)
    assert time.monotonic() - began < 60
    assert isinstance(caught.value, InputError), caught.value
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError) as badly_set:
        KafkaSource(kafka.servers, topic, CLICKS, security={**security, "sasl.mechanism": "NOTHING"})
    assert "hunter2" not in str(badly_set.value)


def test_a_server_that_is_not_there_is_unavailable(kafka):
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
        KafkaSource("127.0.0.1:1", "t", CLICKS, unavailable_after_s=1)


def test_a_broker_that_restarts_and_one_that_stays_away(own_kafka):
    broker = own_kafka()
    topic = broker.create_topic("bounced", 2)
    for p in range(2):
        broker.servers.send(topic, clicks(0, 500), partition=p)
    with source_of(broker.bootstrap_servers, topic, unavailable_after_s=3, batch_records=200) as source:
        batches = until(source, lambda b: consumed(b) >= 400)
        broker.stop()
        for _ in range(3):  # what the client holds already, then nothing
            batches += source.poll(timeout_s=0.3, now_ms=NOW_MS)
        broker.start()
        broker.servers.send(topic, clicks(500, 600), partition=1)
        batches += until(source, lambda b: consumed([*batches, *b]) == 1_100)
        assert times(batches) == {f"{topic}[0]": list(range(500)), f"{topic}[1]": list(range(600))}
        assert ranges(batches) == {f"{topic}[0]": (0, 500), f"{topic}[1]": (0, 600)}
        to_end(source)
        broker.kill()
        with pytest.raises(UnavailableError, match="cannot be reached"):
            until(source, lambda _: False)
        assert source.caught_up() == frozenset()
        broker.start()
        broker.servers.send(topic, clicks(500, 510))
        cancel = time.monotonic() + 60
        back: list[StreamBatch] = []
        while consumed(back) < 10:
            assert time.monotonic() < cancel
            try:
                back += source.poll(timeout_s=0.5, now_ms=NOW_MS)
            except UnavailableError:
                continue  # the same call may succeed later
        assert times(back) == {f"{topic}[0]": list(range(500, 510))}
        to_end(source)


def test_while_the_broker_is_away_every_poll_says_so_until_it_answers(own_kafka):
    broker = own_kafka()
    topic = broker.create_topic("away", 1)
    broker.servers.send(topic, clicks(0, 500))
    with source_of(broker.bootstrap_servers, topic, batch_records=100) as source:
        batches = until(source, lambda b: consumed(b) >= 100)
        broker.kill()
        killed_s = time.monotonic()
        with pytest.raises(UnavailableError, match="cannot be reached"):
            batches.extend(batch for _ in range(100) for batch in source.poll(timeout_s=0.2, now_ms=NOW_MS))
        assert time.monotonic() - killed_s < 30  # what is waited for where nothing is known to be wrong
        assert times(batches) == {f"{topic}[0]": list(range(500))}
        for _ in range(8):  # those between the questions too
            with pytest.raises(UnavailableError):
                source.poll(timeout_s=0.2, now_ms=NOW_MS)
        broker.start()
        cancel = time.monotonic() + 60
        while True:
            assert time.monotonic() < cancel
            try:
                source.poll(timeout_s=0.2, now_ms=NOW_MS)
                break
            except UnavailableError:
                continue
        for _ in range(5):
            source.poll(timeout_s=0.2, now_ms=NOW_MS)


@pytest.mark.parametrize("bounded", [True, False])
def test_a_partition_that_the_client_has_lost_sight_of_is_read_on(kafka, monkeypatch, bounded):
    """Paused in the client without our knowing, as when a pause and an assignment meet there; others go on."""
    monkeypatch.setattr(silence, "_STUCK_S", 0.3)
    topic = kafka.create_topic(f"t-{uuid.uuid4().hex[:12]}", 2)
    for partition in (0, 1):
        kafka.send(topic, clicks(0, 500), partition=partition)
    with source_of(kafka.servers, topic, bounded=bounded, batch_records=100) as source:
        batches = until(source, lambda found: consumed(found) >= 100)
        source._consumer.pause([TopicPartition(topic, 1)])
        batches += to_end(source)
    assert times(batches) == {f"{topic}[{partition}]": list(range(500)) for partition in (0, 1)}
    assert set(ranges(batches).values()) == {(0, 500)}


def test_silence_counts_the_time_that_was_waited_for_a_partition_alone():
    silences = silence.StallDetector()
    assert not silences.is_stalled({"a", "b"}, set(), 14.0)
    assert not silences.is_stalled({"a", "b"}, {"a"}, 0.5)
    assert silences.is_stalled({"a", "b"}, {"a"}, 0.5)
    assert not silences.is_stalled({"a", "b"}, set(), 14.0)  # begun anew, with all
    assert not silences.is_stalled(set(), set(), 100.0)  # they have come to their ends
    assert not silences.is_stalled({"b"}, set(), 14.0)


def batches_of(segment: bytes) -> list[tuple[int, int]]:
    """Where the batches of a log begin and end."""
    found, at = [], 0
    while at < len(segment) and (length := int.from_bytes(segment[at + 8 : at + 12], "big")):
        found.append((at, at + 12 + length))
        at += 12 + length
    return found


@pytest.mark.parametrize("codec", ["none", "lz4"])
@pytest.mark.parametrize("again", [False, True], ids=["read on", "read again"])
def test_records_that_are_damaged_in_the_log_are_an_error_that_names_them(own_kafka, monkeypatch, codec, again):
    """A flipped bit passed for data, or the partition stood still without a word."""
    monkeypatch.setattr(silence, "_DAMAGED_S", 0.5)
    broker = own_kafka()
    topic = broker.create_topic("damaged", 2)
    for start in (0, 100, 200):
        producer = Producer(
            {"bootstrap.servers": broker.bootstrap_servers, "compression.type": codec, "linger.ms": 500}
        )
        for value in clicks(start, start + 100):
            producer.produce(topic, value, partition=0)
        producer.flush()
    broker.servers.send(topic, clicks(0, 50), partition=1)
    broker.stop()
    (segment,) = (broker.folder / "data" / f"{topic}-0").glob("*.log")
    data = bytearray(segment.read_bytes())
    start, end = batches_of(data)[1]
    data[(start + end) // 2] ^= 1
    segment.write_bytes(data)
    broker.start()
    with source_of(broker.bootstrap_servers, topic, unavailable_after_s=5) as source:
        batches: list[StreamBatch] = []
        coming = (
            source.read({f"{topic}[0]": (0, 300), f"{topic}[1]": (0, 50)}, now_ms=NOW_MS)
            if again
            else (batch for _ in range(300) for batch in source.poll(timeout_s=0.2, now_ms=NOW_MS))
        )
        with pytest.raises(InputError, match=rf"cannot be read[\s\S]*{topic}\[0\]: .*CRC32C"):
            batches.extend(coming)
        assert times(batches) == {f"{topic}[0]": list(range(100)), f"{topic}[1]": list(range(50))}
        broker.servers.delete_records(topic, {0: 200})
    with source_of(broker.bootstrap_servers, topic, on_expired="earliest") as source:
        source.seek({f"{topic}[0]": 100, f"{topic}[1]": 50})
        assert times(to_end(source)) == {f"{topic}[0]": list(range(200, 300))}
        assert source.lost == {f"{topic}[0]": 100}


class FailingOnce:
    """A client whose next assignment fails."""

    def __init__(self, client) -> None:
        self._client, self.fails = client, True

    def assign(self, partitions) -> None:
        if self.fails:
            self.fails = False
            raise KafkaException("not now")
        self._client.assign(partitions)

    def __getattr__(self, name):
        return getattr(self._client, name)


@pytest.mark.parametrize("seeks", [True, False])
def test_a_beginning_at_the_latest_that_failed_begins_at_the_same_place(kafka, topic, monkeypatch, seeks):
    kafka.send(topic, clicks(0, 10))
    place = f"{topic}[0]"
    with source_of(kafka.servers, topic, start="latest") as source:
        if seeks:
            source.seek({})
        monkeypatch.setattr(source, "_consumer", FailingOnce(source._consumer))
        with pytest.raises(KafkaException):
            source.poll(timeout_s=5, now_ms=NOW_MS)
        kafka.send(topic, clicks(10, 12))
        begun = source.poll(timeout_s=5, now_ms=NOW_MS)
        assert [(b.ranges, b.consumed) for b in begun] == [({place: (10, 10)}, 0)]
        assert times(until(source, lambda b: consumed(b) == 2)) == {place: [10, 11]}


def test_a_seek_that_failed_is_done_by_the_next_poll(kafka, topic, monkeypatch):
    kafka.send(topic, clicks(0, 10))
    with source_of(kafka.servers, topic) as source:
        monkeypatch.setattr(source, "_consumer", FailingOnce(source._consumer))
        with pytest.raises(KafkaException):
            source.seek({f"{topic}[0]": 4})
        assert times(to_end(source)) == {f"{topic}[0]": list(range(4, 10))}


def test_reading_again_counts_what_is_gone_once(kafka, topic):
    kafka.send(topic, clicks(0, 100))
    kafka.delete_records(topic, {0: 60})
    place = f"{topic}[0]"
    with source_of(kafka.servers, topic, on_expired="earliest") as source:
        source.seek({place: 10})
        assert list(source.read({place: (10, 50)}, now_ms=NOW_MS)) == []
        assert times(to_end(source)) == {place: list(range(60, 100))}
        assert source.lost == {place: 50}
