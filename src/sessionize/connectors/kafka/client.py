"""Shared by all Kafka clients: configuration and the classification of errors.

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

from sessionize.connectors.shown_settings import HIDDEN, value_shown
from sessionize.errors import ConfigError, InputError, OutputError, SessionizeError, UnavailableError
from sessionize.retry_pauses import pause

Settings = Mapping[str, str | int | float | bool]
_Client = TypeVar("_Client")

_LOG = logging.getLogger("sessionize.kafka")
_LOG.addHandler(logging.NullHandler())

AUTH_ERRORS = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
UNKNOWN_ERRORS = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})
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
_BAD_TOPIC = KafkaError.TOPIC_EXCEPTION


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


def denied(servers: str, error: KafkaError, kind: type[SessionizeError]) -> SessionizeError:
    """Access is denied. kind: InputError when reading, OutputError when writing."""
    return kind(
        "the Kafka server refuses access",
        detail=f"{servers}: {error.str()}",
        hint="check security.protocol, the user, the password and the user's permissions",
    )


def unavailable(servers: str, why: str) -> UnavailableError:
    """The servers cannot be reached, or do not answer in time."""
    return UnavailableError(
        "Kafka cannot be reached",
        detail=f"{servers}: {why or 'no answer'}",
        hint="check that the server runs, and the address and port",
    )


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
            if not wait and metadata.error.code() in UNKNOWN_ERRORS | {_BAD_TOPIC}:
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


def output_error(servers: str, error: KafkaError, what: str) -> SessionizeError:
    """The error for a failed write."""
    if error.code() in AUTH_ERRORS:
        return denied(servers, error, OutputError)
    if error.code() in UNKNOWN_ERRORS or error.code() == _BAD_TOPIC:
        return OutputError(
            f"{what} cannot be written to Kafka", detail=f"{servers}: {error.str()}", hint="create the topic"
        )
    if error.retriable() or error.txn_requires_abort() or error.code() in _TRANSIENT:
        return UnavailableError(
            f"{what} could not be written to Kafka now",
            detail=f"{servers}: {error.str()}",
            hint="check that the server runs; the write is retried",
        )
    return OutputError(f"{what} cannot be written to Kafka", detail=f"{servers}: {error.str()}")


_TRANSIENT = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._PURGE_QUEUE,
        KafkaError._PURGE_INFLIGHT,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.CONCURRENT_TRANSACTIONS,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.NOT_ENOUGH_REPLICAS,
    }
)
