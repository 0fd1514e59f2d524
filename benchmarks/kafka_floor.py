"""What reading a topic costs, layer by layer: `python benchmarks/kafka_floor.py [RECORDS]`.

consume: the client hands out messages, nobody looks at them. values: their values and offsets as lists. decode: values
to columns, from memory. source: KafkaSource as the engine calls it. Each in CPU seconds of this process, all threads.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from sessionize.app.produce_topic import produce_events
from sessionize.connectors.generator import GeneratorSettings
from sessionize.connectors.kafka.fetch import fetched
from sessionize.connectors.kafka.stream_source import KafkaSource
from sessionize.formats.dialects import DIALECTS
from sessionize.formats.records import JsonRecords
from sessionize.testing.services.kafka import KafkaBroker

TOPIC, PROFILE, PARTITIONS = "floor", "user-events", 4
BATCH = 100_000


def consume(servers: str, records: int, look: Callable[[list], None]) -> int:
    """Reads so many records."""
    settings = {"queued.min.messages": 200_000, "fetch.wait.max.ms": 100, "group.id": "floor"}
    consumer = Consumer({"bootstrap.servers": servers, **settings})
    consumer.assign([TopicPartition(TOPIC, p, OFFSET_BEGINNING) for p in range(PARTITIONS)])
    count = 0
    while count < records:
        messages = consumer.consume(BATCH, 0) or consumer.consume(1, 1.0)
        count += len(messages)
        look(messages)
    consumer.close()
    return count


def through_source(servers: str) -> int:
    source = KafkaSource(servers, TOPIC, DIALECTS[PROFILE])
    count = 0
    while source.caught_up() != source.partitions():
        count += sum(batch.consumed for batch in source.poll(timeout_s=1.0, now_ms=0))
    source.close()
    return count


def measured(name: str, work: Callable[[], int]) -> None:
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    count = work()
    seconds, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    print(f"{name:<8} {count:>10,} records {seconds:6.2f} s {cpu_s:6.2f} CPU s {count / cpu_s:>12,.0f} per CPU s")


def decode(values: list[bytes | None]) -> int:
    records, offsets = JsonRecords(DIALECTS[PROFILE]), np.arange(len(values))
    for start in range(0, len(values), BATCH):
        records.decode(values[start : start + BATCH], offsets[start : start + BATCH], source="t[0]", latest_ms=None)
    return len(values)


def main() -> None:
    records = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000
    with tempfile.TemporaryDirectory() as folder, KafkaBroker(Path(folder, "kafka")) as broker:
        servers = broker.bootstrap_servers
        broker.create_topic(TOPIC, PARTITIONS)
        settings = GeneratorSettings(profile=PROFILE, users=50_000, events=records)
        measured("produce", lambda: produce_events(settings, servers, TOPIC).records)
        values: list[bytes | None] = []

        def keep(messages: list) -> None:
            for part in fetched(messages).values():
                values.extend(part.values)

        measured("consume", lambda: consume(servers, records, lambda _: None))
        measured("values", lambda: consume(servers, records, keep))
        print(f"         {sum(map(len, filter(None, values))) / len(values):.0f} bytes a record")
        measured("decode", lambda: decode(values))
        values.clear()
        measured("source", lambda: through_source(servers))
    print(f"{os.cpu_count()} cores")


if __name__ == "__main__":
    main()
