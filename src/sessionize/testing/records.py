"""Records as they arrive from the world: out of order, late, double and broken; dealt to partitions by user."""

from collections.abc import Iterable
from io import BytesIO
from typing import Any
from zlib import crc32

from sessionize.connectors.generator.settings import GeneratorSettings
from sessionize.connectors.generator.writer import write_lines

FAR_OFF_MS = 4_000_000_000_000  # what the generator dates beyond it is meant to be in the future
_USER_BYTES = 44
_HOSTILE: dict[str, Any] = {
    "duration_ms": 8 * 3_600_000,
    "out_of_order_ms": 200_000,
    "late_fraction": 0.02,
    "late_by_ms": 1_000_000,
    "duplicate_fraction": 0.02,
    "broken_fraction": 0.01,
}


def clickstream(count: int, *, seed: int, **settings: Any) -> list[bytes]:
    """About `count` records of the clickstream dialect. settings: of GeneratorSettings, over hostile ones."""
    out = BytesIO()
    users = {"users": max(20, count // 60)}
    write_lines(
        GeneratorSettings(profile="clickstream", events=count, seed=seed, **{**users, **_HOSTILE, **settings}), out
    )
    return out.getvalue().splitlines()


def by_user(records: Iterable[bytes], partitions: int) -> list[list[bytes]]:
    """The records of each partition, as a producer with keys deals them; what has no user goes anywhere."""
    parts: list[list[bytes]] = [[] for _ in range(partitions)]
    for record in records:
        at = record.find(b'"uuid":"')
        parts[crc32(record[at : at + _USER_BYTES] if at >= 0 else record) % partitions].append(record)
    return parts
