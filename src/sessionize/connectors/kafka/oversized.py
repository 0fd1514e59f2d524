"""Rows larger than their topic's limit: sent without their lists, or else left out, so that they do not stop a run.

Whether a row fits is certain only after it is sent, because the server measures it compressed. So a row that might not
fit is compressed here to check; if the server still rejects it, the limit is lowered and the epoch is sent again.
An epoch becomes visible as a whole, so the choice of shortened rows is made once.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from sessionize.connectors.kafka.client import Settings
from sessionize.connectors.kafka.message_size import BATCH_BYTES_MAX, FRAME_BYTES, SentRow
from sessionize.formats.json_rows import json_with_only, json_without, opaque_fields
from sessionize.session.output_tables import TableSpec

Oversized = Literal["shorten", "stop"]

# The server decides what is too large; this is only the client's limit.
CLIENT_BYTES_MAX = 100_000_000
SHOWN_MAX = 10
_GUESS = 0.75  # of the rejected size, if the limit is unknown
_LOOK_AGAIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Unfit:
    """Rows of one topic and epoch that were sent without their lists (`shortened`), or not at all.

    shown: the largest ones. limit_bytes: the topic's limit, if known.
    """

    topic: str
    shortened: bool
    count: int
    shown: tuple[SentRow, ...]
    limit_bytes: int


class Fitting:
    """Makes the rows of an epoch fit their topics.

    stops: no row is changed. security: the client's settings. ask: the known limits by topic.
    """

    def __init__(self, *, stops: bool, security: Settings, ask: Callable[[], Mapping[str, int]]) -> None:
        self.stops = stops
        self.client_bytes_max = int(security.get("message.max.bytes", CLIENT_BYTES_MAX))
        self._compresses = security.get("compression.type", "lz4") != "none"
        self._ask = ask
        self._limits: dict[str, int] = {}
        self._guessed: dict[str, int] = {}
        self._uncompressed: set[str] = set()  # topics whose server rejected a row that should fit
        self._found: dict[tuple[str, bool], list[SentRow]] = {}
        self._counts: dict[tuple[str, bool], int] = {}
        self._update_limits()
        self.begin()

    @property
    def batch_bytes_max(self) -> int:
        """The largest batch of small rows that fits every topic."""
        return min([BATCH_BYTES_MAX, *self._limits.values(), *self._guessed.values()])

    def limit(self, topic: str) -> int | None:
        """The topic's current limit on the server, None if unknown."""
        self._update_limits()
        return self._limits.get(topic)

    def begin(self) -> None:
        """Start an epoch, or sending it again."""
        self._found, self._counts = {}, {}
        self._before = (self.batch_bytes_max, dict(self._limits), len(self._uncompressed))

    def fitted(self, spec: TableSpec, topic: str, key: str, value: bytes) -> bytes | None:
        """The value, a row of this table, in a form that fits; None if there is none."""
        limit_bytes = self._limit(topic)
        if self.stops or len(key) + len(value) + FRAME_BYTES <= limit_bytes:  # a key takes a fraction of this
            return value
        if time.monotonic() - self._looked_s > _LOOK_AGAIN_S:
            self._update_limits()
            limit_bytes = self._limit(topic)
        if self._fits(topic, key, value, limit_bytes):
            return value
        short = _shortened(spec, value)
        sent = None if short is None or not self._fits(topic, key, short, limit_bytes) else short
        place = (topic, sent is not None)
        self._counts[place] = self._counts.get(place, 0) + 1
        rows = self._found.setdefault(place, [])
        rows.append(SentRow.of(topic, key.encode(), value))
        if len(rows) > SHOWN_MAX:
            rows.remove(min(rows, key=lambda row: row.size_bytes))
        return sent

    def learned(self, refused: SentRow) -> bool:
        """Lower the limits after the server rejected a row; returns whether the epoch can be sent again."""
        if self.stops:
            return False
        batch_bytes_max, limits, uncompressed = self._before
        self._update_limits()
        if self.batch_bytes_max < batch_bytes_max or self._limits != limits:
            return True  # limits have changed in the meantime
        if refused.topic in self._limits:
            self._uncompressed.add(refused.topic)
            if len(self._uncompressed) > uncompressed:
                return True
        smaller = int(refused.size_bytes * _GUESS)
        if smaller <= FRAME_BYTES:
            return False
        self._guessed[refused.topic] = min(smaller, self._guessed.get(refused.topic, smaller))
        return True

    def unfit(self) -> list[Unfit]:
        """The shortened and omitted rows of this epoch."""
        return [
            Unfit(topic, shortened, self._counts[topic, shortened], tuple(rows), self._limit(topic))
            for (topic, shortened), rows in self._found.items()
        ]

    def _update_limits(self) -> None:
        self._limits |= self._ask()
        self._looked_s = time.monotonic()

    def _limit(self, topic: str) -> int:
        limits = [self.client_bytes_max, *(m[topic] for m in (self._limits, self._guessed) if topic in m)]
        return min(limits)

    def _fits(self, topic: str, key: str, value: bytes, limit_bytes: int) -> bool:
        room = min(limit_bytes, self.client_bytes_max) - len(key.encode()) - FRAME_BYTES
        if len(value) <= room:
            return True
        if len(value) > self.client_bytes_max - FRAME_BYTES or not self._compresses:
            return False
        if topic in self._uncompressed or topic in self._guessed:
            return False
        return len(pa.compress(value, codec="lz4", asbytes=True)) <= room


def _shortened(spec: TableSpec, row: bytes) -> bytes | None:
    """The row without what may be long in it; None when nothing is."""
    if spec.short_columns:
        return json_with_only(row, spec.short_columns)
    nested = [column.name for column in spec.schema if pa.types.is_nested(column.type)]
    return json_without(row, [*nested, *(name for column in spec.opaque for name in opaque_fields(column))])
