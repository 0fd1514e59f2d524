"""The source against a real broker: everything is read once, in order, and can be read again exactly."""

import json
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pyarrow as pa
import pytest
from confluent_kafka import KafkaException, Producer, TopicPartition

from sessionize.connectors.kafka import silence
from sessionize.connectors.kafka.source import KafkaSource
from sessionize.errors import ConfigError, InputError, UnavailableError
from sessionize.formats.dialects import DIALECTS
from sessionize.formats.records import JsonRecords
from sessionize.ports import StreamBatch
from sessionize.testing.services.kafka import KafkaServers

CLICKS = DIALECTS["clicks"]
NOW_MS = 1_767_571_200_000


def click(number: int, user: str = "u") -> bytes:
    return json.dumps({"user_id": user, "timestamp": NOW_MS + number, "url": "/"}).encode()


def clicks(start: int, stop: int, user: str = "u") -> list[bytes]:
    return [click(number, user) for number in range(start, stop)]


@pytest.fixture
def topic(kafka: KafkaServers) -> str:
    return kafka.create_topic(f"t-{uuid.uuid4().hex[:12]}")


@contextmanager
def source_of(servers: str, topic: str, **options) -> Iterator[KafkaSource]:
    source = KafkaSource(servers, topic, CLICKS, **options)
    try:
        yield source
    finally:
        source.close()


def until(source: KafkaSource, enough, deadline_s: float = 20.0) -> list[StreamBatch]:
    """Polls until enough(batches) is true."""
    batches: list[StreamBatch] = []
    give_up = time.monotonic() + deadline_s
    while not enough(batches):
        assert time.monotonic() < give_up, (batches, source.read_to_end(), source.behind())
        batches += source.poll(timeout_s=0.5, now_ms=NOW_MS)
    return batches


def to_end(source: KafkaSource) -> list[StreamBatch]:
    return until(source, lambda _: source.read_to_end() == source.partitions())


def consumed(batches: Iterable[StreamBatch]) -> int:
    return sum(batch.consumed for batch in batches)


def times(batches: Iterable[StreamBatch]) -> dict[str, list[int]]:
    """Event times by partition, relative to NOW_MS."""
    found: dict[str, list[int]] = {}
    for batch in batches:
        found.setdefault(batch.partition, []).extend(t - NOW_MS for t in batch.events["event_time_ms"].to_pylist())
    return found


def ranges(batches: Iterable[StreamBatch]) -> dict[str, tuple[int, int]]:
    """All ranges in one, after making sure that none overlaps the one before and no hole is between them."""
    found: dict[str, tuple[int, int]] = {}
    for batch in batches:
        for place, (start, end) in batch.ranges.items():
            first, last = found.get(place, (start, start))
            assert start == last
            found[place] = (first, end)
    return found


def table(batches: Iterable[StreamBatch]) -> dict[tuple[str, str], list[dict[str, object]]]:
    """Every event and every rejected record by partition, in order, however the polls were cut."""
    rows: dict[tuple[str, str], list[dict[str, object]]] = {}
    for batch in batches:
        rows.setdefault((batch.partition, "events"), []).extend(batch.events.to_pylist())
        rows.setdefault((batch.partition, "rejected"), []).extend(batch.rejected.to_pylist())
    return rows


def test_one_partition_is_read_in_order_and_to_its_end(kafka, topic):
    kafka.send(topic, clicks(0, 1_000), keys=[b"key"] * 1_000, headers=[("trace", b"1")])
    with source_of(kafka.servers, topic) as source:
        batches = to_end(source)
        assert times(batches) == {f"{topic}[0]": list(range(1_000))}
        assert ranges(batches) == {f"{topic}[0]": (0, 1_000)}
        assert source.behind() == 0
        assert source.event_columns == {"user", "event_time_ms", "page"}
        assert source.user_name == "user_id"
        assert batches[0].events["user"].type == pa.dictionary(pa.int32(), pa.string())
        kafka.send(topic, clicks(1_000, 1_010))
        more = until(source, lambda b: consumed(b) == 10)
        assert ranges([*batches, *more]) == {f"{topic}[0]": (0, 1_010)}


def test_an_empty_topic_is_at_its_end(kafka, topic):
    with source_of(kafka.servers, topic) as source:
        assert to_end(source) == []
        assert source.behind() == 0


def test_sixteen_partitions_shared_by_three_instances(kafka):
    topic = kafka.create_topic(f"t-{uuid.uuid4().hex[:12]}", 16)
    for p in range(16):
        kafka.send(topic, clicks(100 * p, 100 * p + 50), partition=p)
    seen: dict[str, list[int]] = {}
    for number in range(3):
        with source_of(kafka.servers, topic, instance=(number, 3)) as source:
            batches = to_end(source)
            assert source.partitions() == {f"{topic}[{p}]" for p in range(number, 16, 3)}
            assert not seen.keys() & times(batches).keys()
            seen |= times(batches)
    assert seen == {f"{topic}[{p}]": list(range(100 * p, 100 * p + 50)) for p in range(16)}
    with source_of(kafka.servers, topic, partitions="0-2,7", batch_records=7) as source:
        batches = until(source, lambda _: source.read_to_end() == source.partitions())
        assert max(map(consumed, ([b] for b in batches))) <= 7
        assert times(batches) == {place: seen[place] for place in (f"{topic}[{p}]" for p in (0, 1, 2, 7))}


def test_seek_and_read_give_the_same_records_again(kafka):
    topic = kafka.create_topic(f"t-{uuid.uuid4().hex[:12]}", 2)
    for p in range(2):
        bad = [b"nonsense", None, b"", b'{"user_id":"u"}', b"{\n}", b'{"user_id":\n"x","timestamp":1}\n']
        kafka.send(topic, [*clicks(0, 20), *bad, *clicks(20, 60)], partition=p)
    with source_of(kafka.servers, topic, batch_records=17) as source:
        first = to_end(source)
        assert consumed(first) == 132
        again = list(source.read(ranges(first), now_ms=NOW_MS))
        assert table(again) == table(first)
        assert ranges(again) == ranges(first)
        part = {f"{topic}[1]": (5, 24), f"{topic}[0]": (3, 3)}
        some = list(source.read(part, now_ms=NOW_MS))
        assert ranges(some) == {f"{topic}[1]": (5, 24)}
        assert consumed(some) == 19
        # Behind what was read again, it goes on.
        assert ranges(to_end(source)) == {f"{topic}[1]": (24, 66), f"{topic}[0]": (3, 66)}
        source.seek({f"{topic}[0]": 65})
        assert ranges(to_end(source)) == {f"{topic}[0]": (65, 66), f"{topic}[1]": (0, 66)}
        with pytest.raises(ConfigError, match=r"elsewhere\[0\]"):
            source.seek({"elsewhere[0]": 1})


class Interrupted(JsonRecords):
    """Fails once at a chosen call, as when a schema registry is away."""

    calls_left = -1

    def decode(self, values, offsets, **more):
        self.calls_left -= 1
        if self.calls_left == 0:
            raise UnavailableError("the registry is away")
        return super().decode(values, offsets, **more)


def test_reading_again_that_failed_half_way_can_be_repeated(kafka):
    topic = kafka.create_topic(f"t-{uuid.uuid4().hex[:12]}", 2)
    for p in range(2):
        kafka.send(topic, clicks(0, 60), partition=p)
    decoder = Interrupted(CLICKS)
    with source_of(kafka.servers, topic, decoder=decoder, batch_records=10) as source:
        source.seek({f"{topic}[0]": 30, f"{topic}[1]": 50})
        decoder.calls_left = 3
        wanted = {f"{topic}[0]": (30, 60)}
        with pytest.raises(UnavailableError):
            list(source.read(wanted, now_ms=NOW_MS))
        assert ranges(source.read(wanted, now_ms=NOW_MS)) == wanted
        decoder.calls_left = 1
        with pytest.raises(UnavailableError):
            to_end(source)
        assert ranges(to_end(source)) == {f"{topic}[1]": (50, 60)}


def test_half_of_the_records_are_poison(kafka, topic):
    values = [click(n) if n % 2 else b"\xff" * (n % 7) for n in range(2_000)]
    kafka.send(topic, values)
    with source_of(kafka.servers, topic) as source:
        batches = to_end(source)
    assert times(batches) == {f"{topic}[0]": list(range(1, 2_000, 2))}
    rejected = pa.concat_tables([batch.rejected for batch in batches]).to_pylist()
    assert [row["line_number"] for row in rejected] == list(range(0, 2_000, 2))
    assert [row["raw"] for row in rejected] == values[::2]
    assert {row["source"] for row in rejected} == {f"{topic}[0]"}
    assert {row["reason"] for row in rejected} == {"empty_value", "invalid_utf8"}


def test_tombstones_have_a_reason_of_their_own(kafka, topic):
    kafka.send(topic, [click(0), None, click(1)])
    with source_of(kafka.servers, topic) as source:
        batches = to_end(source)
    rejected = pa.concat_tables([batch.rejected for batch in batches]).to_pylist()
    assert [(row["line_number"], row["raw"], row["reason"]) for row in rejected] == [(1, None, "null_value")]


def test_the_future_guard_goes_by_the_present_of_the_call(kafka, topic):
    kafka.send(topic, [click(0), click(60_001)])
    with source_of(kafka.servers, topic, max_future_ms=60_000) as source:
        batches = to_end(source)
        assert [batch.rejected["reason"].to_pylist() for batch in batches] == [["future_timestamp"]]
        again = list(source.read(ranges(batches), now_ms=NOW_MS + 1))
        assert times(again) == {f"{topic}[0]": [0, 60_001]}


def test_aborted_transactions_leave_gaps_and_no_records(kafka, topic):
    producer = Producer({"bootstrap.servers": kafka.servers, "transactional.id": topic, "log_level": 0})
    producer.init_transactions(20)
    for number in range(6):
        producer.begin_transaction()
        for value in clicks(10 * number, 10 * number + 10):
            producer.produce(topic, value, partition=0)
        if number % 2:
            producer.flush(10)
            producer.abort_transaction(20)
        else:
            producer.commit_transaction(20)
    expected = [10 * number + n for number in (0, 2, 4) for n in range(10)]
    with source_of(kafka.servers, topic) as source:
        batches = to_end(source)
        assert times(batches) == {f"{topic}[0]": expected}
        assert ranges(batches) == {f"{topic}[0]": (0, 66)}  # each end of a transaction takes an offset too
        assert source.behind() == 0
        again = list(source.read({f"{topic}[0]": (0, 66)}, now_ms=NOW_MS))
        assert table(again) == table(batches)
        only_aborted = list(source.read({f"{topic}[0]": (11, 22)}, now_ms=NOW_MS))
        assert consumed(only_aborted) == 0
        assert times(source.read({f"{topic}[0]": (9, 23)}, now_ms=NOW_MS)) == {f"{topic}[0]": [9, 20]}


def test_what_is_there_now_and_no_more(kafka):
    """Behind the last records lie marks of transactions, one that is open, and what comes while it is read."""
    topic = kafka.create_topic(f"t-{uuid.uuid4().hex[:12]}", 4)
    producer = Producer({"bootstrap.servers": kafka.servers, "transactional.id": topic, "log_level": 0})
    producer.init_transactions(20)
    for commits in (True, False):  # partition 0 ends with an aborted transaction
        producer.begin_transaction()
        for value in clicks(0, 20):
            producer.produce(topic, value, partition=0)
        producer.flush(10)
        producer.commit_transaction(20) if commits else producer.abort_transaction(20)
    kafka.send(topic, clicks(0, 30), partition=1)
    kafka.send(topic, clicks(0, 10), partition=3)
    kafka.delete_records(topic, {3: 10})  # and nothing is left of partition 3
    producer.begin_transaction()
    producer.produce(topic, click(30), partition=1)
    producer.flush(10)
    with source_of(kafka.servers, topic, until_now=True, refresh_s=0.1, batch_records=7) as source:
        assert source.behind() == 72
        producer.commit_transaction(20)
        for p in range(4):
            kafka.send(topic, clicks(100, 200), partition=p)
        kafka.add_partitions(topic, 5)
        kafka.send(topic, clicks(0, 5), partition=4)
        batches = until(source, lambda _: source.partitions() <= source.read_to_end())
        assert times(batches) == {f"{topic}[0]": list(range(20)), f"{topic}[1]": list(range(30))}
        assert ranges(batches) == {f"{topic}[0]": (0, 42), f"{topic}[1]": (0, 30)}
        assert source.partitions() == {f"{topic}[{p}]" for p in range(4)}
        assert source.poll(timeout_s=5, now_ms=NOW_MS) == []
        assert source.behind() == 0
        again = list(source.read(ranges(batches), now_ms=NOW_MS))
        assert table(again) == table(batches)
        assert source.poll(timeout_s=5, now_ms=NOW_MS) == []
        source.seek({f"{topic}[0]": 19, f"{topic}[1]": 30})
        assert times(until(source, lambda _: source.partitions() <= source.read_to_end())) == {f"{topic}[0]": [19]}
        with pytest.raises(InputError, match="no longer in Kafka"):
            source.seek({f"{topic}[1]": 31})
    with source_of(kafka.servers, topic, until_now=True) as source:
        source.seek({f"{topic}[0]": 42, f"{topic}[1]": 30})
        batches = until(source, lambda _: source.partitions() <= source.read_to_end())
        assert {place: len(found) for place, found in times(batches).items()} == {
            f"{topic}[0]": 100,
            f"{topic}[1]": 101,
            f"{topic}[2]": 100,
            f"{topic}[3]": 100,
            f"{topic}[4]": 5,
        }


def test_a_first_run_may_begin_at_the_latest_record(kafka, topic):
    kafka.send(topic, clicks(0, 10))
    with source_of(kafka.servers, topic, start="latest") as source:
        begun = source.poll(timeout_s=5, now_ms=NOW_MS)
        assert [(b.ranges, b.consumed) for b in begun] == [({f"{topic}[0]": (10, 10)}, 0)]
        kafka.send(topic, clicks(10, 12))
        assert times(until(source, lambda b: consumed(b) == 2)) == {f"{topic}[0]": [10, 11]}
        source.seek({f"{topic}[0]": 4})
        assert times(to_end(source)) == {f"{topic}[0]": list(range(4, 12))}


def test_partitions_that_appear_are_read_from_their_beginning(kafka, topic):
    with source_of(kafka.servers, topic, refresh_s=0.2, start="latest", instance=(0, 2)) as source:
        kafka.send(topic, clicks(0, 3))
        until(source, lambda b: consumed(b) == 3)
        kafka.add_partitions(topic, 3)
        for p in (1, 2):
            kafka.send(topic, clicks(100 * p, 100 * p + 5), partition=p)
        batches = until(source, lambda b: consumed(b) == 5)
        assert times(batches) == {f"{topic}[2]": list(range(200, 205))}
        assert ranges(batches) == {f"{topic}[2]": (0, 5)}
        assert source.partitions() == {f"{topic}[0]", f"{topic}[2]"}


def test_expired_records_are_an_error_or_a_counted_loss(kafka, topic):
    kafka.send(topic, clicks(0, 100))
    kafka.delete_records(topic, {0: 40})
    place = f"{topic}[0]"
    with source_of(kafka.servers, topic) as source:
        assert ranges(to_end(source)) == {place: (40, 100)}
        source.seek({place: 10})
        with pytest.raises(InputError, match=r"offset 10 is wanted, the first one there is 40"):
            to_end(source)
        with pytest.raises(InputError, match=r"offset 10 is wanted"):  # it does not go on over the loss by itself
            to_end(source)
        with pytest.raises(InputError, match=r"offset 5 is wanted"):
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
    with pytest.raises(InputError, match=r"no such Kafka topic[\s\S]*nowhere"):
        KafkaSource(kafka.servers, "nowhere", CLICKS)
    with pytest.raises(InputError, match=r"has 0-0; asked for 3"):
        KafkaSource(kafka.servers, topic, CLICKS, partitions="0,3")
    with pytest.raises(ConfigError, match=r"enable\.auto\.commit"):
        KafkaSource(kafka.servers, topic, CLICKS, security={"enable.auto.commit": True})
    with pytest.raises(ConfigError, match=r"no\.such\.setting"):
        KafkaSource(kafka.servers, topic, CLICKS, security={"no.such.setting": "x"})
    assert time.monotonic() - began < 10


def test_credentials_that_do_not_fit_are_refused_and_not_shown(kafka, topic):
    security = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "me",
        "sasl.password": "hunter2hunter2",
    }
    began = time.monotonic()
    with pytest.raises((InputError, UnavailableError)) as caught:
        KafkaSource(kafka.servers, topic, CLICKS, security=security, unavailable_after_s=8)
    assert time.monotonic() - began < 12
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
        assert source.read_to_end() == frozenset()
        broker.start()
        broker.servers.send(topic, clicks(500, 510))
        give_up = time.monotonic() + 20
        back: list[StreamBatch] = []
        while consumed(back) < 10:
            assert time.monotonic() < give_up
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
        assert time.monotonic() - killed_s < 6
        assert times(batches) == {f"{topic}[0]": list(range(500))}
        for _ in range(8):  # those between the questions too
            with pytest.raises(UnavailableError):
                source.poll(timeout_s=0.2, now_ms=NOW_MS)
        broker.start()
        give_up = time.monotonic() + 20
        while True:
            assert time.monotonic() < give_up
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
    with source_of(kafka.servers, topic, until_now=bounded, batch_records=100) as source:
        batches = until(source, lambda found: consumed(found) >= 100)
        source._consumer.pause([TopicPartition(topic, 1)])
        batches += to_end(source)
    assert times(batches) == {f"{topic}[{partition}]": list(range(500)) for partition in (0, 1)}
    assert set(ranges(batches).values()) == {(0, 500)}


def test_silence_counts_the_time_that_was_waited_for_a_partition_alone():
    silences = silence.Silences()
    assert not silences.are_too_long({"a", "b"}, set(), 14.0)
    assert not silences.are_too_long({"a", "b"}, {"a"}, 0.5)
    assert silences.are_too_long({"a", "b"}, {"a"}, 0.5)
    assert not silences.are_too_long({"a", "b"}, set(), 14.0)  # begun anew, with all
    assert not silences.are_too_long(set(), set(), 100.0)  # they have come to their ends
    assert not silences.are_too_long({"b"}, set(), 14.0)


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
