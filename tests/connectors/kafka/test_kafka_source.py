"""The source against a real broker: everything is read once, in order, and can be read again exactly."""

import uuid

import pyarrow as pa
import pytest
from confluent_kafka import Producer

from sessionize.errors import ConfigError, InputError, UnavailableError
from sessionize.formats.records import JsonRecords
from tests.connectors.kafka.reading import (
    CLICKS,
    NOW_MS,
    click,
    clicks,
    consumed,
    ranges,
    source_of,
    table,
    times,
    to_end,
    until,
)


def test_one_partition_is_read_in_order_and_to_its_end(kafka, topic):
    kafka.send(topic, clicks(0, 1_000), keys=[b"key"] * 1_000, headers=[("trace", b"1")])
    with source_of(kafka.servers, topic) as source:
        batches = to_end(source)
        assert times(batches) == {f"{topic}[0]": list(range(1_000))}
        assert ranges(batches) == {f"{topic}[0]": (0, 1_000)}
        assert source.lag() == 0
        assert source.event_columns == {"user", "event_time_ms", "page"}
        assert source.user_name == "user_id"
        assert batches[0].events["user"].type == pa.string()
        kafka.send(topic, clicks(1_000, 1_010))
        more = until(source, lambda b: consumed(b) == 10)
        assert ranges([*batches, *more]) == {f"{topic}[0]": (0, 1_010)}


def test_a_poll_is_bounded_in_bytes_too(kafka, topic):
    kafka.send(topic, [value[:-1] + b" " * 20_000 + b"}" for value in clicks(0, 2_000)])
    with source_of(kafka.servers, topic, batch_bytes=4 << 20) as source:
        batches = to_end(source)
        assert times(batches) == {f"{topic}[0]": list(range(2_000))}
        assert max(batch.consumed for batch in batches) <= 4 * 50 + 100 + 100


def test_an_empty_topic_is_at_its_end(kafka, topic):
    with source_of(kafka.servers, topic) as source:
        assert to_end(source) == []
        assert source.lag() == 0


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
        batches = until(source, lambda _: source.caught_up() == source.partitions())
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
        assert source.lag() == 0
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
    with source_of(kafka.servers, topic, bounded=True, refresh_s=0.1, batch_records=7) as source:
        assert source.lag() == 72
        producer.commit_transaction(20)
        for p in range(4):
            kafka.send(topic, clicks(100, 200), partition=p)
        kafka.add_partitions(topic, 5)
        kafka.send(topic, clicks(0, 5), partition=4)
        batches = until(source, lambda _: source.partitions() <= source.caught_up())
        assert times(batches) == {f"{topic}[0]": list(range(20)), f"{topic}[1]": list(range(30))}
        assert ranges(batches) == {f"{topic}[0]": (0, 42), f"{topic}[1]": (0, 30)}
        assert source.partitions() == {f"{topic}[{p}]" for p in range(4)}
        assert source.poll(timeout_s=5, now_ms=NOW_MS) == []
        assert source.lag() == 0
        again = list(source.read(ranges(batches), now_ms=NOW_MS))
        assert table(again) == table(batches)
        assert source.poll(timeout_s=5, now_ms=NOW_MS) == []
        source.seek({f"{topic}[0]": 19, f"{topic}[1]": 30})
        assert times(until(source, lambda _: source.partitions() <= source.caught_up())) == {f"{topic}[0]": [19]}
        with pytest.raises(InputError, match="no longer in Kafka"):
            source.seek({f"{topic}[1]": 31})
    with source_of(kafka.servers, topic, bounded=True) as source:
        source.seek({f"{topic}[0]": 42, f"{topic}[1]": 30})
        batches = until(source, lambda _: source.partitions() <= source.caught_up())
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
