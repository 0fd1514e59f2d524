"""Makes the input files of the benchmarks, the same bytes' worth of events every time, in bounded memory.

`make_data.py 10m` writes a day of 10 M events of 200 k users as Parquet (user, ts in ms, page) to
benchmarks/data; `--ndjson` adds the same events as JSON lines in the wire format of the `clickstream`
dialect. A file is complete or not there at all.
"""

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from events import DAY_MS, Events, Shape, page_names, stream

DATA_VERSION = 1  # part of the file names: a change of the generator must not meet an older file
ROW_GROUP_ROWS = 1_000_000
LINES_PER_WRITE = 100_000
EVENT_NAMES = ("page_view", "click", "scroll", "submit")
EVENT_TYPES = ("user-action", "navigation", "form")

TEN_MILLION = Shape(users=200_000, events_per_day=10_000_000, edge_users=500)


@dataclass(frozen=True, slots=True)
class Size:
    """The first `events` events of the stream of `shape`."""

    events: int
    shape: Shape


SIZES = {
    "100k": Size(100_000, Shape(users=2_000, events_per_day=100_000, edge_users=100)),
    "2m": Size(2_000_000, TEN_MILLION),  # the first hours of 10m: many users, short histories
    "10m": Size(10_000_000, TEN_MILLION),
    "50m": Size(50_000_000, Shape(users=1_000_000, events_per_day=50_000_000, edge_users=500)),
}


def parquet_path(folder: Path, size: str) -> Path:
    return folder / f"events-{size}-v{DATA_VERSION}.parquet"


def ndjson_path(folder: Path, size: str) -> Path:
    return folder / f"events-{size}-v{DATA_VERSION}.ndjson"


def chunks(size: Size, rows: int) -> Iterator[Events]:
    """The events of `size` in pieces of exactly `rows` (the last may be shorter)."""
    waiting: list[Events] = []
    waiting_rows, left = 0, size.events
    for window in stream(size.shape):
        window = window.part(0, min(len(window), left))
        left -= len(window)
        waiting.append(window)
        waiting_rows += len(window)
        while waiting_rows >= rows or (left == 0 and waiting_rows):
            joined = Events(
                np.concatenate([w.user for w in waiting]),
                np.concatenate([w.time_ms for w in waiting]),
                np.concatenate([w.page for w in waiting]),
            )
            yield joined.part(0, rows)
            rest = joined.part(rows, len(joined))
            waiting, waiting_rows = [rest], len(rest)
        if left == 0:
            return


def write_parquet(path: Path, size: Size) -> None:
    users, pages = size.shape.user_names, page_names()
    schema = pa.schema([("user", pa.string()), ("ts", pa.int64()), ("page", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for chunk in chunks(size, ROW_GROUP_ROWS):
            columns = [
                users.take(pa.array(chunk.user)),
                pa.array(chunk.time_ms),
                pages.take(pa.array(chunk.page)),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=ROW_GROUP_ROWS)


def write_ndjson(path: Path, size: Size) -> None:
    users: list[str] = size.shape.user_names.to_pylist()
    pages: list[str] = page_names().to_pylist()
    rng = np.random.default_rng((size.shape.seed, 4))
    number = 0
    with path.open("w", encoding="ascii", buffering=1 << 20) as file:
        for chunk in chunks(size, LINES_PER_WRITE):
            detail = rng.integers(0, (len(EVENT_NAMES), len(EVENT_TYPES), 1000), (len(chunk), 3)).tolist()
            rows = zip(chunk.user.tolist(), chunk.time_ms.tolist(), chunk.page.tolist(), detail, strict=True)
            lines = []
            for i, (user, time_ms, page, (name, kind, value)) in enumerate(rows, start=number):
                lines.append(
                    f'{{"event_id":"ev-{i:010d}","page_name":"{pages[page]}","event_timestamp":"{time_ms}",'
                    f'"booking_details":"","uuid":"{users[user]}","event_details":{{"event_name":"{EVENT_NAMES[name]}",'
                    f'"event_type":"{EVENT_TYPES[kind]}","event_value":"{value}"}}}}\n'
                )
            file.writelines(lines)
            number += len(lines)


def ensure(path: Path, size: Size, write: Any) -> bool:
    """Writes `path` unless it is there; True when it was written."""
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(unfinished, size)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return True


def describe(size: Size) -> dict[str, float]:
    """What the statistics of a stream are, for whoever changes the generator."""
    top, behind, seen, last, first = np.zeros(size.shape.users, np.int64), 0, -(1 << 62), 0, 1 << 62
    worst = 0
    for chunk in chunks(size, ROW_GROUP_ROWS):
        top += np.bincount(chunk.user, minlength=size.shape.users)
        running = np.maximum(np.maximum.accumulate(chunk.time_ms), seen)
        behind += int((chunk.time_ms < running).sum())
        worst = max(worst, int((running - chunk.time_ms).max()))
        seen, last, first = (
            int(running[-1]),
            max(last, int(running[-1])),
            min(first, int(chunk.time_ms.min())),
        )
    return {
        "events": int(top.sum()),
        "active_users": int((top > 0).sum()),
        "events_of_the_top_user": int(top.max()),
        "share_behind_the_running_maximum": round(behind / size.events, 4),
        "worst_ms_behind": worst,
        "days": round((last - first) / DAY_MS, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("--ndjson", action="store_true", help="also as JSON lines (467 MB for 2m)")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "data")
    parser.add_argument("--describe", action="store_true", help="print the statistics of the events, write nothing")
    args = parser.parse_args()
    size = SIZES[args.size]
    if args.describe:
        for key, value in describe(size).items():
            print(f"{key:34} {value:,}")
        return
    wanted = [(parquet_path(args.folder, args.size), write_parquet)]
    if args.ndjson:
        wanted.append((ndjson_path(args.folder, args.size), write_ndjson))
    for path, write in wanted:
        began = time.perf_counter()
        made = ensure(path, size, write)
        note = f"made in {time.perf_counter() - began:.1f} s" if made else "was there"
        print(f"{path} ({path.stat().st_size / 1e6:.0f} MB, {note})")


if __name__ == "__main__":
    main()
