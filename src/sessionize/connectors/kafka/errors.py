"""Errors of Kafka as ours: what is denied, what is unavailable and retried, and what never succeeds."""

from confluent_kafka import KafkaError

from sessionize.errors import OutputError, SessionizeError, UnavailableError

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
BAD_TOPIC = KafkaError.TOPIC_EXCEPTION
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


def output_error(servers: str, error: KafkaError, what: str) -> SessionizeError:
    """The error for a failed write."""
    if error.code() in AUTH_ERRORS:
        return denied(servers, error, OutputError)
    if error.code() in UNKNOWN_ERRORS or error.code() == BAD_TOPIC:
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
