"""Clicks for a topic, and what the source reads of them."""

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sessionize.connectors.kafka.stream_source import KafkaSource
from sessionize.formats.dialects import DIALECTS
from sessionize.ports import StreamBatch

CLICKS = DIALECTS["clicks"]
NOW_MS = 1_767_571_200_000


def click(number: int, user: str = "u") -> bytes:
    return json.dumps({"user_id": user, "timestamp": NOW_MS + number, "url": "/"}).encode()


def clicks(start: int, stop: int, user: str = "u") -> list[bytes]:
    return [click(number, user) for number in range(start, stop)]


@contextmanager
def source_of(servers: str, topic: str, **options) -> Iterator[KafkaSource]:
    source = KafkaSource(servers, topic, CLICKS, **options)
    try:
        yield source
    finally:
        source.close()


def until(source: KafkaSource, enough, deadline_s: float = 60.0) -> list[StreamBatch]:
    """Polls until enough(batches) is true."""
    batches: list[StreamBatch] = []
    cancel = time.monotonic() + deadline_s
    while not enough(batches):
        assert time.monotonic() < cancel, (batches, source.caught_up(), source.lag())
        batches += source.poll(timeout_s=0.5, now_ms=NOW_MS)
    return batches


def to_end(source: KafkaSource) -> list[StreamBatch]:
    return until(source, lambda _: source.caught_up() == source.partitions())


def consumed(batches: Iterable[StreamBatch]) -> int:
    return sum(batch.consumed for batch in batches)


def times(batches: Iterable[StreamBatch]) -> dict[str, list[int]]:
    """Event times by partition, relative to NOW_MS."""
    found: dict[str, list[int]] = {}
    for batch in batches:
        found.setdefault(batch.partition, []).extend(t - NOW_MS for t in batch.events["event_time_ms"].to_pylist())
    return found


def ranges(batches: Iterable[StreamBatch]) -> dict[str, tuple[int, int]]:
    """All ranges in one, after making sure that none overlaps the one before and no hole is between them."""
    found: dict[str, tuple[int, int]] = {}
    for batch in batches:
        for place, (start, end) in batch.ranges.items():
            first, last = found.get(place, (start, start))
            assert start == last
            found[place] = (first, end)
    return found


def table(batches: Iterable[StreamBatch]) -> dict[tuple[str, str], list[dict[str, object]]]:
    """Every event and every rejected record by partition, in order, however the polls were cut."""
    rows: dict[tuple[str, str], list[dict[str, object]]] = {}
    for batch in batches:
        rows.setdefault((batch.partition, "events"), []).extend(batch.events.to_pylist())
        rows.setdefault((batch.partition, "rejected"), []).extend(batch.rejected.to_pylist())
    return rows
