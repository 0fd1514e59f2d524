"""The size limit of a topic's messages, and the errors for larger rows.

The server measures a compressed batch, so whether a row fits is known only after it is sent. A batch of small rows must
not be rejected for its size, because librdkafka does not split it; so batches are small enough.
"""

import json
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException, Message
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # untyped
    AdminClient,
    ConfigResource,
    ResourceType,
)

from sessionize.connectors.kafka.client import ClientLog, Settings, client_settings, create_client
from sessionize.errors import OutputError

BATCH_BYTES_MAX = 1_000_000  # librdkafka's default; larger ones are not faster
_LIMIT = "max.message.bytes"
_SHOWN_CHARACTERS = 200
_STEP_BYTES = 1 << 20
FRAME_BYTES = 1_024  # more than the overhead of a batch with one record


def message_bytes_max(
    servers: str, security: Settings, topics: tuple[str, ...], *, timeout_s: float = 5.0
) -> dict[str, int]:
    """The limit of each topic, where known: permission may be missing, and the server may be unavailable."""
    admin = create_client(AdminClient, client_settings(servers, security, {}), ClientLog())
    wanted = {name: ConfigResource(ResourceType.TOPIC, name) for name in topics}
    asked: dict[Any, Future[dict[str, Any]]] = admin.describe_configs(list(wanted.values()), request_timeout=timeout_s)
    found = {}
    for name, resource in wanted.items():
        try:
            found[name] = int(asked[resource].result(timeout_s + 1)[_LIMIT].value)
        except (KafkaException, TimeoutError, KeyError, ValueError):
            continue
    return found


@dataclass(frozen=True, slots=True)
class SentRow:
    """A sent row: topic, key, session, and size before compression."""

    topic: str
    key: str
    session: str | None
    size_bytes: int

    @staticmethod
    def of_message(message: Message) -> "SentRow":
        """The row of a returned message."""
        return SentRow.of(str(message.topic()), message.key() or b"", message.value() or b"")

    @staticmethod
    def of(topic: str, key: bytes, value: bytes) -> "SentRow":
        """The row of a message with this key and value."""
        try:
            session = json.loads(value).get("session_id")
        except (ValueError, AttributeError):
            session = None
        return SentRow(topic, key.decode("utf-8", "replace"), session, len(value))

    def as_log(self) -> dict[str, object]:
        """The row as short fields for the log."""
        session = None if self.session is None else _short(self.session)
        return {"key": _short(self.key), "session": session, "size_bytes": self.size_bytes}

    def __str__(self) -> str:
        session = "" if self.session is None else f", session {_short(self.session)!r}"
        return f"topic {self.topic}, the row of {_short(self.key)!r}{session} with {self.size_bytes:,} bytes"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


class TooLargeError(OutputError):
    """The server rejected a row for its size."""

    row: SentRow


def too_large(row: SentRow, limit_bytes: int | None) -> TooLargeError:
    """The server rejected the row for its size. limit_bytes: the topic's limit; None if unknown."""
    limit = "the topic allows less" if limit_bytes is None else f"the topic allows {limit_bytes:,}, compressed"
    enough = (row.size_bytes + FRAME_BYTES + _STEP_BYTES - 1) // _STEP_BYTES * _STEP_BYTES
    error = TooLargeError(
        "a row is too large for Kafka",
        detail=f"{row}; {limit}",
        hint=f"raise {_LIMIT} of the topic {row.topic}, to {enough} for this row, and run again: nothing of the epoch "
        'was written to Kafka, and the next run writes all of it. Or let output.kafka.oversized be "shorten"',
    )
    error.row = row
    return error


def too_large_to_send(row: SentRow, limit_bytes: int) -> OutputError:
    """Our client rejected the row. limit_bytes: its message.max.bytes."""
    return OutputError(
        "a row is too large for Kafka",
        detail=f"{row}; this client sends at most {limit_bytes:,}",
        hint="raise message.max.bytes in the settings of output.kafka, and run again: the next run writes the epoch",
    )
