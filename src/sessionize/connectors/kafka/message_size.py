"""How large a message of a topic may be, and what to say of a row that is larger.

The server counts a batch as it comes, compressed; so whether a row fits is known only when it has been sent. But a
batch of small rows must not be refused for its size, and librdkafka does not part it then: it is made small enough.
"""

import json
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException, Message
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its own way
    AdminClient,
    ConfigResource,
    ResourceType,
)

from sessionize.connectors.kafka.client import Log, Settings, client_settings, made
from sessionize.errors import OutputError

BATCH_BYTES_MAX = 1_000_000  # librdkafka's own; no more is gained beyond it
_LIMIT = "max.message.bytes"
_SHOWN_CHARACTERS = 200
_STEP_BYTES = 1 << 20
FRAME_BYTES = 1_024  # more than a batch of one record adds


def message_bytes_max(
    servers: str, security: Settings, topics: tuple[str, ...], *, timeout_s: float = 5.0
) -> dict[str, int]:
    """What each topic takes, as far as it is told: not everybody may ask, and the server may be away."""
    admin = made(AdminClient, client_settings(servers, security, {}), Log())
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
    """A row that was sent: where, whose, which, and its size before it was compressed."""

    topic: str
    key: str
    session: str | None
    size_bytes: int

    @staticmethod
    def of_message(message: Message) -> "SentRow":
        """The row of a message that came back."""
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
        """The row in a few short fields."""
        session = None if self.session is None else _short(self.session)
        return {"key": _short(self.key), "session": session, "size_bytes": self.size_bytes}

    def __str__(self) -> str:
        session = "" if self.session is None else f", session {_short(self.session)!r}"
        return f"topic {self.topic}, the row of {_short(self.key)!r}{session} with {self.size_bytes:,} bytes"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


class TooLargeError(OutputError):
    """A row that the server refused for its size."""

    row: SentRow


def too_large(row: SentRow, limit_bytes: int | None) -> TooLargeError:
    """The server refused the row for its size. limit_bytes: what the topic takes; None when that is not known."""
    limit = "the topic takes less" if limit_bytes is None else f"the topic takes {limit_bytes:,}, as compressed"
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
    """Our own client refused the row. limit_bytes: its message.max.bytes."""
    return OutputError(
        "a row is too large for Kafka",
        detail=f"{row}; this client sends {limit_bytes:,} at most",
        hint="raise message.max.bytes in the settings of output.kafka, and run again: the next run writes the epoch",
    )
