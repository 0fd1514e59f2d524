"""Shared by all Kafka clients: configuration, error reports and the facts of a topic.

Security settings are passed unchanged to librdkafka. An error message shows their values only if they are known not to
be secret.
"""

import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException

from sessionize.connectors.kafka.errors import AUTH_ERRORS, BAD_TOPIC, UNKNOWN_ERRORS, denied, unavailable
from sessionize.connectors.shown_settings import HIDDEN, value_shown
from sessionize.errors import ConfigError, InputError, SessionizeError
from sessionize.retry_pauses import pause

Settings = Mapping[str, str | int | float | bool]
_Client = TypeVar("_Client")

_LOG = logging.getLogger("sessionize.kafka")
_LOG.addHandler(logging.NullHandler())

_CALL_TIMEOUT_S = 10.0
_DOWN_S = 1.0  # unavailable once all servers refuse for this long, because a name may have several addresses
# Exactly-once reading depends on these.
READING: Settings = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
    "isolation.level": "read_committed",
    "allow.auto.create.topics": False,
}
# The records buffered in the client, and how long a server waits before it reports that there are none. Checksums are
# verified, as Java's clients do: a flipped bit would pass as data, or block its partition without an error.
READING_FAST: Settings = {
    "queued.min.messages": 200_000,
    "fetch.wait.max.ms": 100,
    "reconnect.backoff.max.ms": 2_000,
    "check.crcs": True,
}


def client_settings(servers: str, security: Settings, fixed: Settings) -> dict[str, Any]:
    """The configuration of a client. Errors: ConfigError if security changes a setting that correctness requires."""
    for name in security:
        if name in fixed or name == "bootstrap.servers":
            raise ConfigError(
                "this Kafka setting cannot be changed",
                detail=f"{name} = {value_shown(name, security[name])}",
                hint="exactly-once depends on it; leave it out",
            )
    return {"bootstrap.servers": servers, "client.id": "sessionize", **security, **fixed}


def create_client(make: Callable[..., _Client], settings: dict[str, Any], log: "ClientLog") -> _Client:
    """A client of librdkafka. Errors: ConfigError for an unknown or invalid setting."""
    try:
        return make({**settings, "error_cb": log.note}, logger=_LOG)
    except KafkaException as error:
        text = str(error.args[0].str()) if error.args else str(error)
        for name, value in settings.items():
            if str(value) and value_shown(name, value) != str(value):
                text = re.sub(rf"(?<!\w){re.escape(str(value))}(?!\w)", HIDDEN, text)
        raise ConfigError(
            "Kafka's client does not accept a setting", detail=text, hint="see librdkafka's list of settings"
        ) from None


@dataclass(slots=True)
class ClientLog:
    """The errors that a client reports outside its calls.

    denied: wrong credentials. down_since_s: monotonic, None when up. last: the text of the last error.
    """

    denied: KafkaError | None = None
    down_since_s: float | None = None
    last: str = ""

    def note(self, error: KafkaError) -> None:
        """Called by the client within one of its calls."""
        self.last = error.str()
        if error.code() in AUTH_ERRORS:
            self.denied = error
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.down()

    def down(self) -> None:
        """Record that the servers do not answer."""
        if self.down_since_s is None:
            self.down_since_s = time.monotonic()

    def up(self) -> None:
        """Record that the servers have answered."""
        self.down_since_s = None

    @property
    def down_s(self) -> float:
        """How long the servers have not answered; 0 if they do."""
        return 0.0 if self.down_since_s is None else time.monotonic() - self.down_since_s


def topic_partitions(
    client: Any,
    log: ClientLog,
    servers: str,
    topic: str,
    *,
    timeout_s: float,
    kind: type[SessionizeError] = InputError,
    wait: bool = False,
    reports: bool = True,
) -> frozenset[int]:
    """The numbers of a topic's partitions. client: a Consumer or an AdminClient. wait: until the topic exists.

    reports: poll the client for its error reports. A Consumer may return a record from that poll, which is lost here,
    so it is only for consumers that do not read yet.
    Errors: of this kind if the topic does not exist or access is denied; UnavailableError after timeout_s, or if no
    server has accepted a connection for a second.
    """
    until = time.monotonic() + timeout_s
    why = ""
    while True:
        left_s = max(until - time.monotonic(), 0.05)
        try:
            metadata = client.list_topics(topic, timeout=min(1.0, left_s)).topics[topic]
        except KafkaException as error:
            why = error.args[0].str()
            if error.args[0].code() in AUTH_ERRORS:
                raise denied(servers, error.args[0], kind) from None
        else:
            if metadata.error is None:
                log.up()
                return frozenset(metadata.partitions)
            if metadata.error.code() in AUTH_ERRORS:
                raise denied(servers, metadata.error, kind)
            if not wait and metadata.error.code() in UNKNOWN_ERRORS | {BAD_TOPIC}:
                raise kind(
                    "the Kafka topic does not exist",
                    detail=f"topic {topic!r} on {servers}",
                    hint="check the name, or create the topic",
                )
            why = metadata.error.str()
        if reports:
            client.poll(0)  # lets the client report
        if log.denied is not None:
            raise denied(servers, log.denied, kind)
        if time.monotonic() >= until or log.down_s > _DOWN_S:
            raise unavailable(servers, log.last or why)
        if not pause(0.05):
            raise unavailable(servers, log.last or why)


def partition_offsets(client: Any, servers: str, partition: Any) -> tuple[int, int]:
    """The offset of a partition's first record, and the one after its last, open transactions excluded.

    client: a Consumer. partition: a TopicPartition. Errors: UnavailableError.
    """
    try:
        found = client.get_watermark_offsets(partition, timeout=_CALL_TIMEOUT_S, cached=False)
    except KafkaException as error:
        raise unavailable(servers, error.args[0].str()) from None
    if found is None:
        raise unavailable(servers, f"the offsets of {partition.topic}[{partition.partition}] were not received in time")
    return int(found[0]), int(found[1])
