"""What a checkpoint costs: many open sessions, few of them changed in an epoch.

    python benchmarks/checkpoint.py                       # 2 M open sessions, 100 k events an epoch
    python benchmarks/checkpoint.py --users 10000 --events 1000 --epochs 3

Prints a table: the time to take and commit an epoch's changes, bytes per delta, the time to merge a new base beside the
stream, and the time from nothing to a Sessionizer that goes on.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from sessionize import Policy, Sessionizer
from sessionize.engine.stream.checkpoints import Checkpoints, Plan

POLICY = Policy.of(gap="30m")
EPOCH_MS = 10_000
LATENESS_MS = 30_000


def events(rng: np.random.Generator, users: np.ndarray, at_ms: int, span_ms: int) -> pa.Table:
    n = len(users)
    names = pa.array([f"user-{u:09d}" for u in users.tolist()])
    pages = pa.array([f"/products/category-{i}" for i in range(500)])
    types = pa.array(["page_view", "click", "search", "add_to_cart", "purchase"])
    return pa.table(
        {
            "user": names,
            "event_time_ms": at_ms + rng.integers(0, span_ms, n),
            "event_id": pa.array([f"{a:016x}" for a in rng.integers(0, 1 << 62, n).tolist()]),
            "event_type": types.take(pa.array(rng.integers(0, 5, n))),
            "page": pages.take(pa.array(rng.integers(0, 500, n))),
            "value": rng.random(n) * 100,
        }
    )


@contextmanager
def timed(figures: dict[str, list[float]], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    figures.setdefault(name, []).append(time.perf_counter() - start)


def measure(folder: Path, users: int, per_epoch: int, epochs: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    figures: dict[str, list[float]] = {}
    sizes: dict[str, float] = {}
    rng = np.random.default_rng(7)
    core = Sessionizer(POLICY, track_changes=True)
    at = 0
    for part in range(4):  # every user has three events, so that sessions have something in them
        who = rng.permutation(np.repeat(np.arange(part * users // 4, (part + 1) * users // 4), 3))
        core.push(events(rng, who, at, EPOCH_MS))
    at += EPOCH_MS
    core.advance(at)
    with Checkpoints(folder, writer="benchmark", deltas_bytes_min=1 << 40) as store:
        with timed(figures, "first commit (whole state)"):
            store.commit(1, {}, core.changes())
        sizes["base, MB"] = (folder / "base-1.ckpt").stat().st_size / 1e6
        for epoch in range(2, epochs + 2):
            table = events(rng, rng.integers(0, users, per_epoch), at, EPOCH_MS)
            at += EPOCH_MS
            with timed(figures, "push"):
                core.push(table)
            with timed(figures, "session of each event pushed"):
                core.pushed_session_ids()
            with timed(figures, "live_many of 2 000 users"):
                core.live_many(table["user"].slice(0, 2000), open_only=True)
            with timed(figures, "plan"):
                store.write_plan(Plan(epoch=epoch, ranges={"t": (0, 1)}, watermark_ms=at - LATENESS_MS, now_ms=0))
            with timed(figures, "advance"):
                core.advance(at - LATENESS_MS)
            with timed(figures, "changes"):
                changes = core.changes()
            with timed(figures, "commit"):
                store.commit(epoch, {}, changes)
            sizes["rows in a delta"] = changes.users.num_rows + changes.pending.num_rows
            size = (folder / f"delta-{epoch}.ckpt").stat().st_size
            sizes["delta, MB"] = size / 1e6
            sizes["bytes per changed row"] = size / max(1, sizes["rows in a delta"])
        open_sessions, counts = core.open_sessions, core.counts
    del core, changes
    with Checkpoints(folder, writer="benchmark", deltas_bytes_min=1, deltas_max=1) as store:
        with timed(figures, "restart"):
            found = store.recover()
            assert found is not None
            assert found.state is not None
            core = Sessionizer.restore_tables(found.state.header, found.state.tables, POLICY, track_changes=True)
        assert (core.open_sessions, core.counts) == (open_sessions, counts)
        del found
        core.push(events(rng, rng.integers(0, users, per_epoch), at, EPOCH_MS))
        core.advance(at + EPOCH_MS - LATENESS_MS)
        changes = core.changes()
        with timed(figures, "merge of a new base (in the background)"):
            store.commit(epochs + 2, {}, changes)
            at += EPOCH_MS
            core.push(events(rng, rng.integers(0, users, per_epoch), at, EPOCH_MS))
            core.advance(at + EPOCH_MS - LATENESS_MS)
            with timed(figures, "changes and commit beside the merge"):
                store.commit(epochs + 3, {}, core.changes())
            store.wait()
        assert store.merge_error is None
    sizes["open sessions"] = open_sessions
    return figures, sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=2_000_000)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--folder", type=Path, default=None, help="where the files go; default: a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        figures, sizes = measure(Path(folder), arguments.users, arguments.events, arguments.epochs)
    for name, seconds in figures.items():
        print(f"{name:42} {np.median(seconds):9.3f} s   worst {max(seconds):9.3f} s   of {len(seconds)}")
    for name, size in sizes.items():
        print(f"{name:42} {size:11,.1f}")


if __name__ == "__main__":
    main()
