"""Builders for tests of followed directories: files that appear whole, and all that a source makes of them."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sessionize.connectors.files.directory_source import PARTITION, DirectorySource
from sessionize.formats.dialects import dialect_named
from sessionize.ports import StreamBatch

LONG_AGO_S = 1_700_000_000
NOW_MS = LONG_AGO_S * 1000


def source(home: Path, *paths: str | Path, **options: Any) -> DirectorySource:
    log_path = home / "state" / "book"
    wanted: dict[str, Any] = {"dialect": dialect_named("clicks"), "log_path": log_path, "batch_records": 20}
    return DirectorySource(paths or [home / "in"], **{**wanted, **options})


def records(name: str, count: int) -> list[dict[str, Any]]:
    return [{"user_id": f"{name}-{i}", "timestamp": NOW_MS + i, "url": "x" * 50} for i in range(count)]


def lines(name: str, count: int) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in records(name, count))


def put(path: Path, data: bytes, *, age: float = 0) -> None:
    """A file that appears complete; age: seconds after long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}")
    hidden.write_bytes(data)
    os.utime(hidden, (LONG_AGO_S + age, LONG_AGO_S + age))
    hidden.rename(path)


def users(batches: list[StreamBatch]) -> list[str]:
    return [user for batch in batches for user in batch.events["user"].to_pylist()]


def expected(*files: tuple[str, int]) -> list[str]:
    return [f"{name}-{i}" for name, count in files for i in range(count)]


def everything(following: DirectorySource) -> Iterator[StreamBatch]:
    """Poll until all that is there has been read."""
    while PARTITION not in following.caught_up():
        yield from following.poll(timeout_s=0, now_ms=NOW_MS)
