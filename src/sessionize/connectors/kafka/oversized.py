"""Rows that are larger than their topic takes: sent without their lists, or else left out, so that they stop nobody.

Whether a row fits is known for certain only when it has been sent, because the server counts it compressed. So a row
that might not fit is compressed here to find out; and what the server refuses all the same is learned from, before the
epoch is sent again. Nothing of an epoch is seen before all of it is, so which rows were shortened is decided once.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from sessionize.connectors.kafka.client import Settings
from sessionize.connectors.kafka.message_size import BATCH_BYTES_MAX, FRAME_BYTES, SentRow
from sessionize.formats.json_rows import json_with_only, json_without, opaque_fields
from sessionize.session.tables import TableSpec

Oversized = Literal["shorten", "stop"]

# The server says what is too large; this is only the client's own limit.
CLIENT_BYTES_MAX = 100_000_000
SHOWN_MAX = 10
_GUESS = 0.75  # of the size that was refused, where the limit is not known
_LOOK_AGAIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Unfit:
    """Rows of one topic and epoch that went out without their lists (`shortened`), or not at all.

    shown: the largest ones. limit_bytes: what the topic takes, as far as it is known.
    """

    topic: str
    shortened: bool
    count: int
    shown: tuple[SentRow, ...]
    limit_bytes: int


class Fitting:
    """Makes the rows of an epoch fit their topics.

    stops: no row is changed. security: the client's settings. ask: what each topic takes, by name, as far as the server
    says.
    """

    def __init__(self, *, stops: bool, security: Settings, ask: Callable[[], Mapping[str, int]]) -> None:
        self.stops = stops
        self.client_bytes_max = int(security.get("message.max.bytes", CLIENT_BYTES_MAX))
        self._compresses = security.get("compression.type", "lz4") != "none"
        self._ask = ask
        self._told: dict[str, int] = {}
        self._guessed: dict[str, int] = {}
        self._uncompressed: set[str] = set()  # topics whose server has refused what should have fitted
        self._found: dict[tuple[str, bool], list[SentRow]] = {}
        self._counts: dict[tuple[str, bool], int] = {}
        self._look()
        self.begin()

    @property
    def batch_bytes_max(self) -> int:
        """How large a batch of small rows may be, so that every topic takes it."""
        return min([BATCH_BYTES_MAX, *self._told.values(), *self._guessed.values()])

    def limit(self, topic: str) -> int | None:
        """What the server says now that the topic takes."""
        self._look()
        return self._told.get(topic)

    def begin(self) -> None:
        """An epoch begins, or is sent anew."""
        self._found, self._counts = {}, {}
        self._before = (self.batch_bytes_max, dict(self._told), len(self._uncompressed))

    def fitted(self, spec: TableSpec, topic: str, key: str, value: bytes) -> bytes | None:
        """The value, a row of this table, as it can be sent; None when it cannot be."""
        limit_bytes = self._limit(topic)
        if self.stops or len(key) + len(value) + FRAME_BYTES <= limit_bytes:  # a key has a fraction of this
            return value
        if time.monotonic() - self._looked_s > _LOOK_AGAIN_S:
            self._look()
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
        """Take in that the server has refused a row; whether the epoch can be sent again."""
        if self.stops:
            return False
        batch_bytes_max, told, uncompressed = self._before
        self._look()
        if self.batch_bytes_max < batch_bytes_max or self._told != told:
            return True  # limits were changed meanwhile
        if refused.topic in self._told:
            self._uncompressed.add(refused.topic)
            if len(self._uncompressed) > uncompressed:
                return True
        smaller = int(refused.size_bytes * _GUESS)
        if smaller <= FRAME_BYTES:
            return False
        self._guessed[refused.topic] = min(smaller, self._guessed.get(refused.topic, smaller))
        return True

    def unfit(self) -> list[Unfit]:
        """What was done in this epoch."""
        return [
            Unfit(topic, shortened, self._counts[topic, shortened], tuple(rows), self._limit(topic))
            for (topic, shortened), rows in self._found.items()
        ]

    def _look(self) -> None:
        self._told |= self._ask()
        self._looked_s = time.monotonic()

    def _limit(self, topic: str) -> int:
        limits = [self.client_bytes_max, *(m[topic] for m in (self._told, self._guessed) if topic in m)]
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
