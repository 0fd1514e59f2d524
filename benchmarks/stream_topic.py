"""The topic that all contenders read, and the sessions that they left in one: filled, read back, judged.

Events are the first N of make_data.py's stream, keyed by user over two partitions. One sentinel at the end of each
partition, more than two gaps after the last event, lets an engine finish that only moves when something arrives; its
sessions are taken out before judging.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import make_data
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from confluent_kafka import Producer
from reference import COLUMNS, answers, verdict

from sessionize.testing.services.kafka import KafkaServers

PARTITIONS = 2
SENTINEL = "sentinel"
SENTINEL_AFTER_MS = 4_200_000
UUID_CHARS = 36
USER_FIELD = b'"uuid":"'
PRODUCER = {
    "linger.ms": 50,
    "batch.num.messages": 20_000,
    "queue.buffering.max.messages": 500_000,
    "enable.idempotence": True,
    "compression.type": "lz4",
    "partitioner": "murmur2_random",
}


@dataclass(frozen=True, slots=True)
class Events:
    """The first `count` events as JSON lines, and as Parquet for the reference. *_ms: the first and last time."""

    count: int
    ndjson: Path
    parquet: Path
    earliest_ms: int
    latest_ms: int


@dataclass(frozen=True, slots=True)
class FilledTopic:
    """A topic with events and sentinels. records: how many altogether; ends_ms: the sentinels' time."""

    name: str
    events: Events
    records: int
    ends_ms: int


def events_of(folder: Path, count: int) -> Events:
    """The first `count` events, at most 2 M; files are made in `folder` when they aren't there."""
    size = "100k" if count <= make_data.SIZES["100k"].events else "2m"
    if count > make_data.SIZES[size].events:
        sys.exit(f"--events: {count:,} are more than the {make_data.SIZES[size].events:,} there are")
    make = [sys.executable, str(Path(make_data.__file__)), size, "--ndjson", "--folder", str(folder)]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    parquet = make_data.parquet_path(folder, size)
    table = pq.read_table(parquet, columns=["user", "ts", "page"])
    if count < len(table):
        parquet = folder / f"stream-{count}-v{make_data.DATA_VERSION}.parquet"
        table = table[:count]
        if not parquet.exists():
            pq.write_table(table, parquet)
    return Events(count, make_data.ndjson_path(folder, size), parquet, *pc.min_max(table["ts"]).as_py().values())


def fill(servers: KafkaServers, events: Events, name: str) -> FilledTopic:
    """Make the topic and write the events and sentinels to it, in order."""
    servers.create_topic(name, PARTITIONS)
    producer = Producer({"bootstrap.servers": servers.servers, **PRODUCER})

    def send(value: bytes, key: bytes, partition: int = -1) -> None:
        while True:
            try:
                producer.produce(name, value, key, partition)
                return
            except BufferError:
                producer.poll(0.1)

    with events.ndjson.open("rb") as lines:
        for line in islice(lines, events.count):
            at = line.index(USER_FIELD) + len(USER_FIELD)
            send(line[:-1], line[at : at + UUID_CHARS])
    producer.flush()
    ends_ms = events.latest_ms + SENTINEL_AFTER_MS
    for partition in range(PARTITIONS):
        user = f"{SENTINEL}-{partition}"
        detail = {"event_name": "page_view", "event_type": "navigation", "event_value": "0"}
        event = {
            "event_id": user,
            "page_name": "/",
            "event_timestamp": str(ends_ms),
            "booking_details": "",
            "uuid": user,
            "event_details": detail,
        }
        send(json.dumps(event, separators=(",", ":")).encode(), user.encode(), partition)
    producer.flush()
    return FilledTopic(name, events, events.count + PARTITIONS, ends_ms)


def sessions_in_topic(servers: KafkaServers, topic: str) -> pa.Table:
    """The peers' output: JSON with user, start, end, event_count. Only what was committed."""
    rows = [json.loads(value) for message in servers.records(topic) if (value := message.value()) is not None]
    schema = pa.schema([("user", pa.string()), *((name, pa.int64()) for name in ("start", "end", "event_count"))])
    return pa.Table.from_pylist(rows, schema=schema).rename_columns(["user", *COLUMNS])


def judged(sessions: pa.Table, user_name: str, events: Events, task: str, scratch: Path) -> tuple[int, str]:
    """How many sessions there are without the sentinels', and "ok" or what is wrong with them."""
    real = sessions.filter(pc.invert(pc.starts_with(sessions[user_name].cast(pa.string()), SENTINEL)))
    written = scratch / "judged.parquet"
    pq.write_table(real.select([user_name, *COLUMNS]), written)
    return len(real), verdict(written, task, answers(events.parquet)[task])
