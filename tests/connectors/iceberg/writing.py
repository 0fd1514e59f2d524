"""Sessions for the sink, and what a reader sees of them."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from sessionize.connectors.iceberg import Catalog, load_table
from sessionize.ports import Sink
from sessionize.session.columns import SESSION_TYPES

DAY_MS = 86_400_000


def sessions(n: int, *, days: int = 1, user: str = "user") -> pa.Table:
    """n sessions of n users, spread over days, in the columns that every run makes."""
    start = np.arange(n, dtype=np.int64) % days * DAY_MS
    return pa.table(
        {
            user: [f"user-{i}" for i in range(n)],
            "session_id": [f"user-{i}_{t}" for i, t in enumerate(start)],
            "session_start_time_ms": start,
            "session_end_time_ms": start + 1000,
            "event_count": np.full(n, 2),
            "pages_visited": [["/a", "/b"]] * n,
            "events_by_type": pa.array([[("view", 2)]] * n, SESSION_TYPES["events_by_type"]),
        }
    )


def data_files(home: Path) -> set[Path]:
    return set((home / "warehouse").rglob("*.parquet"))


def stored(catalog: Catalog, table: str = "user_sessions") -> pa.Table:
    return load_table(catalog, "sessions", table).scan().to_arrow()


def write_all(sink: Sink, *tables: pa.Table) -> None:
    for rows in tables:
        sink.write(rows)
    sink.commit()
