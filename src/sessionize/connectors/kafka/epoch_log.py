"""The last epoch of each writer: a compacted topic with one partition, keyed by writer.

The entry is part of the transaction that writes the epoch's rows, so it exists exactly if they do.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # untyped

from sessionize.connectors.kafka.client import ClientLog, Settings, client_settings, create_client, topic_partitions
from sessionize.connectors.kafka.errors import UNKNOWN_ERRORS, output_error, unavailable
from sessionize.errors import OutputError
from sessionize.retry_pauses import cancelled

_COMPACTED = {"cleanup.policy": "compact", "segment.ms": "3600000", "min.cleanable.dirty.ratio": "0.01"}
_WAIT_MS = 10  # the server reports the end of an idle log after this, and every start waits for it


@dataclass(frozen=True, slots=True)
class WrittenEpoch:
    """The last epoch of a writer. topics: the ids of the topics it was written to, where they have ids."""

    number: int
    plan: str
    topics: Mapping[str, str] = field(default_factory=dict)

    def note(self) -> bytes:
        """The value in the topic."""
        entry = {"epoch": self.number, "plan": self.plan}
        return json.dumps({**entry, "topics": dict(self.topics)} if self.topics else entry).encode()

    @classmethod
    def of(cls, note: bytes) -> "WrittenEpoch":
        """Parse a value of the topic."""
        entry = json.loads(note)
        return cls(int(entry["epoch"]), str(entry["plan"]), dict(entry.get("topics", {})))


def ensure_topics(
    servers: str, security: Settings, names: tuple[str, ...], *, epochs_topic: str | None = None, timeout_s: float
) -> None:
    """Create missing topics with the server's defaults. Errors: OutputError, UnavailableError."""
    log = ClientLog()
    admin = create_client(AdminClient, client_settings(servers, security, {}), log)
    for name in (*names, *((epochs_topic,) if epochs_topic is not None else ())):
        try:
            topic_partitions(admin, log, servers, name, timeout_s=timeout_s, kind=OutputError)
        except OutputError as error:
            if error.hint is None or "create the topic" not in error.hint:
                raise
            config = _COMPACTED if name == epochs_topic else {}
            partitions = 1 if name == epochs_topic else -1
            _create(admin, servers, NewTopic(name, partitions, config=config), timeout_s)
            topic_partitions(admin, log, servers, name, timeout_s=timeout_s, kind=OutputError, wait=True)


def _create(admin: AdminClient, servers: str, topic: Any, timeout_s: float) -> None:
    try:
        admin.create_topics([topic], request_timeout=timeout_s)[topic.topic].result(timeout_s + 1)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise output_error(servers, error.args[0], f"the topic {topic.topic}") from None
    except TimeoutError:
        raise unavailable(servers, "the topic was not created in time") from None


def last_written(
    servers: str, security: Settings, epochs_topic: str, writer: str, *, timeout_s: float
) -> WrittenEpoch | None:
    """The writer's last epoch. Call it only without an open transaction of this writer.

    An open transaction of another writer hides later entries; then this waits up to timeout_s.
    Errors: UnavailableError, OutputError.
    """
    log = ClientLog()
    until = time.monotonic() + timeout_s
    target = _end(servers, security, epochs_topic, timeout_s, log)
    fixed: Settings = {
        "group.id": f"sessionize-epochs-{writer}",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": _WAIT_MS,
    }
    consumer = create_client(Consumer, client_settings(servers, security, fixed), log)
    found: WrittenEpoch | None = None
    try:
        # compaction keeps the first offset, and librdkafka needs half a second to resolve "the beginning"
        consumer.assign([TopicPartition(epochs_topic, 0, 0)])
        while True:
            for message in consumer.consume(10_000, 0) or consumer.consume(1, 0.2):
                error = message.error()
                if error is None:
                    if message.key() == writer.encode():
                        found = WrittenEpoch.of(message.value() or b"{}")
                elif error.code() == KafkaError._PARTITION_EOF:
                    if (message.offset() or 0) >= target:
                        return found
                elif not error.retriable() and error.code() not in UNKNOWN_ERRORS:
                    raise output_error(servers, error, "the log of epochs")
            if time.monotonic() > until or cancelled():
                raise unavailable(servers, f"{epochs_topic} could not be read to its end within {timeout_s:.0f} s")
    finally:
        consumer.close()


def _end(servers: str, security: Settings, topic: str, timeout_s: float, log: ClientLog) -> int:
    """The end offset of the topic, open transactions included."""
    fixed: Settings = {"group.id": "sessionize-epochs", "isolation.level": "read_uncommitted"}
    # not an AdminClient, where this call sometimes takes three seconds
    consumer = create_client(Consumer, client_settings(servers, security, fixed), log)
    try:
        found = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=timeout_s, cached=False)
    except KafkaException as error:
        raise output_error(servers, error.args[0], "the log of epochs") from None
    finally:
        consumer.close()
    if found is None:
        raise unavailable(servers, "the end of the log of epochs was not received in time")
    return found[1]
