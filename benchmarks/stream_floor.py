"""Reads a topic into columns and does nothing with them: `stream_floor.py SERVERS TOPIC [--columns]`.

What no streaming sessionizer in Python with this client goes below. Without --columns messages and their values alone;
with it, decoded and judged as for a pipeline without an archive.
"""

import argparse
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from sessionize.connectors.kafka.stream_source import KafkaSource
from sessionize.formats.dialects import DIALECTS

BATCH_MESSAGES = 50_000


def consumed(servers: str, topic: str) -> int:
    settings = {"bootstrap.servers": servers, "group.id": "floor", "enable.auto.commit": False}
    consumer = Consumer({**settings, "enable.partition.eof": True, "queued.min.messages": 200_000})
    partitions = consumer.list_topics(topic).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
    values: list[bytes] = []
    ended = 0
    while ended < len(partitions):
        for message in consumer.consume(BATCH_MESSAGES, 0.2):
            if message.error():
                ended += 1
            else:
                values.append(message.value())
    consumer.close()
    return len(values)


def decoded(servers: str, topic: str) -> int:
    source = KafkaSource(servers, topic, DIALECTS["clickstream"], extras=False)
    count = 0
    while source.caught_up() != source.partitions():
        batches = source.poll(timeout_s=0.2, now_ms=time.time_ns() // 1_000_000)
        count += sum(batch.consumed for batch in batches)
    source.close()
    return count


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("servers")
    parser.add_argument("topic")
    parser.add_argument("--columns", action="store_true")
    args = parser.parse_args()
    print((decoded if args.columns else consumed)(args.servers, args.topic), "records")


if __name__ == "__main__":
    main()
