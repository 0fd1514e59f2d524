"""What every Kafka client here shares: its configuration, and what its errors mean.

Security settings go through to librdkafka as they are. An error message shows their values only where they are known to
be harmless.
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
from sessionize.pauses import pause

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
_DOWN_S = 1.0  # that all servers refuse for so long is enough to call them away: a name may stand for several addresses
# What the exactness of reading rests on.
READING: Settings = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
    "isolation.level": "read_committed",
    "allow.auto.create.topics": False,
}
# How many records may wait in the client, and how long a server waits before it says that there are none. Checksums
# are looked at, as Java's clients do: a flipped bit would pass for data, or hold its partition up without a word.
READING_FAST: Settings = {
    "queued.min.messages": 200_000,
    "fetch.wait.max.ms": 100,
    "reconnect.backoff.max.ms": 2_000,
    "check.crcs": True,
}
_BAD_TOPIC = KafkaError.TOPIC_EXCEPTION


def client_settings(servers: str, security: Settings, fixed: Settings) -> dict[str, Any]:
    """The configuration of a client. Errors: ConfigError when security changes what correctness rests on."""
    for name in security:
        if name in fixed or name == "bootstrap.servers":
            raise ConfigError(
                "a Kafka setting may not be changed",
                detail=f"{name} = {value_shown(name, security[name])}",
                hint="it is what the exactness of a run rests on; leave it out",
            )
    return {"bootstrap.servers": servers, "client.id": "sessionize", **security, **fixed}


def made(make: Callable[..., _Client], settings: dict[str, Any], log: "Log") -> _Client:
    """A client of librdkafka. Errors: ConfigError for a setting that it does not know or accept."""
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
class Log:
    """What a client has reported beside its calls.

    denied: wrong credentials. down_since_s: monotonic, None when up. last: the last error, in words.
    """

    denied: KafkaError | None = None
    down_since_s: float | None = None
    last: str = ""

    def note(self, error: KafkaError) -> None:
        """Called by the client, inside of one of its own calls."""
        self.last = error.str()
        if error.code() in AUTH_ERRORS:
            self.denied = error
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.down()

    def down(self) -> None:
        """The servers do not answer."""
        if self.down_since_s is None:
            self.down_since_s = time.monotonic()

    def up(self) -> None:
        """The servers have answered."""
        self.down_since_s = None

    @property
    def down_s(self) -> float:
        """How long the servers have not answered; 0 when they do."""
        return 0.0 if self.down_since_s is None else time.monotonic() - self.down_since_s


def denied(servers: str, error: KafkaError, kind: type[SessionizeError]) -> SessionizeError:
    """kind: InputError when reading, OutputError when writing."""
    return kind(
        "the Kafka server refuses access",
        detail=f"{servers}: {error.str()}",
        hint="check security.protocol, the user and the password, and what the user is allowed to do",
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
    log: Log,
    servers: str,
    topic: str,
    *,
    timeout_s: float,
    kind: type[SessionizeError] = InputError,
    wait: bool = False,
    reports: bool = True,
) -> frozenset[int]:
    """The numbers of a topic's partitions. client: a Consumer or an AdminClient. wait: until there is such a topic.

    reports: let the client tell what it has seen meanwhile; a Consumer would hand out a record with it, which is lost
    here, so never for one that reads already.
    Errors: of this kind when there is no such topic, or access is denied; UnavailableError after timeout_s, or when
    no server has let us connect for a second.
    """
    until = time.monotonic() + timeout_s
    why = ""
    while True:
        left_s = max(until - time.monotonic(), 0.05)
        try:
            told = client.list_topics(topic, timeout=min(1.0, left_s)).topics[topic]
        except KafkaException as error:
            why = error.args[0].str()
            if error.args[0].code() in AUTH_ERRORS:
                raise denied(servers, error.args[0], kind) from None
        else:
            if told.error is None:
                log.up()
                return frozenset(told.partitions)
            if told.error.code() in AUTH_ERRORS:
                raise denied(servers, told.error, kind)
            if not wait and told.error.code() in UNKNOWN_ERRORS | {_BAD_TOPIC}:
                raise kind(
                    "there is no such Kafka topic",
                    detail=f"topic {topic!r} on {servers}",
                    hint="check the name, or create the topic",
                )
            why = told.error.str()
        if reports:
            client.poll(0)  # lets the client report
        if log.denied is not None:
            raise denied(servers, log.denied, kind)
        if time.monotonic() >= until or log.down_s > _DOWN_S:
            raise unavailable(servers, log.last or why)
        if not pause(0.05):
            raise unavailable(servers, log.last or why)


def offsets_there(client: Any, servers: str, place: Any) -> tuple[int, int]:
    """The offset of a partition's first record, and the one after its last; transactions that are open are left out.

    client: a Consumer. place: a TopicPartition. Errors: UnavailableError.
    """
    try:
        found = client.get_watermark_offsets(place, timeout=_CALL_TIMEOUT_S, cached=False)
    except KafkaException as error:
        raise unavailable(servers, error.args[0].str()) from None
    if found is None:
        raise unavailable(servers, f"the offsets of {place.topic}[{place.partition}] are not told in time")
    return int(found[0]), int(found[1])


def output_error(servers: str, error: KafkaError, what: str) -> SessionizeError:
    """What a failed write means."""
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
            hint="check that the server runs; the same is tried again",
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
