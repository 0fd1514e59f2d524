"""The incremental core alone: push and advance over batches of 100 k events of 200 k users, on one core.

    core.py --events 1000000      cost of that many events
    core.py --scale 100000000     the cost of an event at that many beside its cost at a million
    core.py --open 2000000        memory of that many open sessions

The events of a batch are made and laid out as an Arrow table outside the timed region; what is timed is push,
advance and the final flush, with all columns and reasons. CPU time decides, wall time is shown beside it. One
size is one process, so that none inherits another's memory. Up to CHECKED_EVENTS the sessions are compared
with the reference, beyond that their events are counted.
"""

import argparse
import ctypes
import gc
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import reference
from events import DELAY_MS_MAX, EPOCH_MS, PAGES, Events, Shape, page_names, stream

BATCH_EVENTS = 100_000
CHECKED_EVENTS = 10_000_000
EVENTS_OPEN = 4  # of each open session, where memory is measured
SHAPE = Shape(users=200_000, events_per_day=10_000_000, edge_users=500)
EVENT_TYPES = pa.array(["page_view", "click", "scroll", "submit"], pa.string())


@dataclass(slots=True)
class Cost:
    """Seconds on one core. steady_*: push and advance; flush_*: the end of the input, some sessions open."""

    events: int
    sessions: int = 0
    steady_cpu_s: float = 0.0
    steady_wall_s: float = 0.0
    flush_cpu_s: float = 0.0
    flush_wall_s: float = 0.0
    peak_mb: float = 0.0
    problem: str | None = None


@dataclass(slots=True)
class Room:
    """What open sessions take beyond what the process took before the first event; all of them have settled events."""

    open_sessions: int
    events: int
    user_bytes: int  # of a user's name
    resident_mb: float
    bytes_per_session: float


class Timer:
    """Adds up CPU (all threads) and wall seconds."""

    def __init__(self) -> None:
        self.cpu_s = self.wall_s = 0.0

    def __enter__(self) -> "Timer":
        self._cpu, self._wall = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu_s += time.process_time() - self._cpu
        self.wall_s += time.perf_counter() - self._wall


class Tables:
    """Lays out events as the core's input: user, event_time_ms, event_id, event_type, page."""

    def __init__(self, shape: Shape) -> None:
        self._users, self._pages = shape.user_names, page_names()
        self._rng = np.random.default_rng((shape.seed, 5))
        self._made = 0

    def table(self, events: Events) -> pa.Table:
        number = pa.array(np.arange(self._made, self._made + len(events)))
        self._made += len(events)
        return pa.table(
            {
                "user": self._users.take(pa.array(events.user)),
                "event_time_ms": pa.array(events.time_ms, pa.int64()),
                "event_id": pc.binary_join_element_wise("ev-", pc.utf8_lpad(number.cast(pa.string()), 10, "0"), ""),
                "event_type": EVENT_TYPES.take(pa.array(self._rng.integers(0, len(EVENT_TYPES), len(events)))),
                "page": self._pages.take(pa.array(events.page)),
            }
        )


class FileStat:
    """What the core gave back, as far as it is needed to judge it."""

    def __init__(self, shape: Shape, events: int) -> None:
        self._checked = events <= CHECKED_EVENTS
        self._user_hash = reference.text_hash(shape.user_names) if self._checked else None
        self._parts: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = []
        self.sessions = self.events = self.checksum = 0

    def count_batch(self, events: Events) -> None:
        if self._checked:
            self._parts.append((events.user, events.time_ms))

    def take_out(self, sessions: pa.Table) -> None:
        self.sessions += len(sessions)
        self.events += pc.sum(sessions["event_count"], min_count=0).as_py()
        if self._checked and len(sessions):
            self.checksum += reference.sessions_checksum(sessions, "user")

    def problem(self, events: int, late: int) -> str | None:
        if late or self.events != events:
            return f"WRONG: {events:,} events went in, {self.events:,} came out in sessions, {late:,} were late"
        if self._user_hash is None:
            return None
        user = np.concatenate([user for user, _ in self._parts])
        time_ms = np.concatenate([time_ms for _, time_ms in self._parts])
        right = reference.ordered(user, time_ms, np.zeros(len(user), np.int32))
        expected = reference.answer(right, reference.anchored_starts(right), self._user_hash, None)
        if (self.sessions, self.checksum % (1 << 64)) != (expected.sessions, expected.checksum):
            return f"WRONG: {self.sessions:,} sessions, right are {expected.sessions:,}; or their rows differ"
        return None


def measure(events: int, batch_events: int = BATCH_EVENTS, shape: Shape = SHAPE) -> Cost:
    from sessionize.kernel.sessionizer import Sessionizer
    from sessionize.session.policy import Policy

    tables, seen, steady, last = Tables(shape), FileStat(shape, events), Timer(), Timer()
    sessionizer = Sessionizer(Policy.of())
    late, latest_ms = 0, 0
    for batch in batches(shape, events, batch_events):
        table = tables.table(batch)
        latest_ms = max(latest_ms, int(batch.time_ms.max()))
        with steady:
            refused = sessionizer.push(table)
            sessions = sessionizer.advance(latest_ms - DELAY_MS_MAX)
        late += len(refused)
        seen.count_batch(batch)
        seen.take_out(sessions)
    with last:
        sessions = sessionizer.flush()
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    seen.take_out(sessions)
    return Cost(
        events,
        seen.sessions,
        steady.cpu_s,
        steady.wall_s,
        last.cpu_s,
        last.wall_s,
        round(peak_mb, 1),
        seen.problem(events, late),
    )


def batches(shape: Shape, events: int, batch_events: int) -> Any:
    """The first `events` events of the stream in batches of `batch_events`, made as they are asked for."""
    left = events
    waiting = Events(*(np.empty(0, kind) for kind in (np.int32, np.int64, np.int32)))
    for window in stream(shape):
        both = Events(
            np.concatenate((waiting.user, window.user)),
            np.concatenate((waiting.time_ms, window.time_ms)),
            np.concatenate((waiting.page, window.page)),
        )
        at = 0
        while left and (len(both) - at >= batch_events or len(both) - at >= left):
            size = min(batch_events, left)
            yield both.part(at, at + size)
            at += size
            left -= size
        if not left:
            return
        waiting = both.part(at, len(both))


def measure_room(sessions: int, batch_events: int = BATCH_EVENTS) -> Room:
    """Every user makes EVENTS_OPEN events in random order, and nobody's session ends."""
    from sessionize.kernel.sessionizer import Sessionizer
    from sessionize.session.policy import Policy

    shape = Shape(users=sessions, events_per_day=sessions, edge_users=0)
    tables, rng = Tables(shape), np.random.default_rng((shape.seed, 6))
    before = resident_bytes()
    sessionizer = Sessionizer(Policy.of())
    minute_ms = 60_000
    for turn in range(EVENTS_OPEN):
        order = rng.permutation(sessions).astype(np.int32)
        for at in range(0, sessions, batch_events):
            user = order[at : at + batch_events]
            time_ms = EPOCH_MS + turn * minute_ms + rng.integers(0, minute_ms, len(user))
            page = rng.integers(0, PAGES, len(user)).astype(np.int32)
            sessionizer.push(tables.table(Events(user, time_ms, page)))
            sessionizer.advance(EPOCH_MS + turn * minute_ms)
    sessionizer.advance(EPOCH_MS + EVENTS_OPEN * minute_ms)
    del order
    taken = resident_bytes() - before
    open_sessions = sessionizer.open_sessions
    name_bytes = len(shape.user_names[0].as_py())
    return Room(
        open_sessions, EVENTS_OPEN * sessions, name_bytes, round(taken / 1e6, 1), round(taken / open_sessions, 1)
    )


def resident_bytes() -> int:
    """Of this process, with what the allocators hold for later given back."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm") as sizes:
        return int(sizes.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def scale(events: int, batch_events: int) -> dict[str, Any]:
    """Both sizes, each in a process of its own."""
    found = {}
    for size in (1_000_000, events):
        command = [sys.executable, __file__, "--events", str(size), "--batch", str(batch_events)]
        found[size] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    small, large = (1e9 * cost["steady_cpu_s"] / size for size, cost in found.items())
    return {
        "events": events,
        "ns_per_event_at_a_million": round(small, 1),
        "ns_per_event": round(large, 1),
        "ratio": round(large / small, 3),
        "peak_mb": found[events]["peak_mb"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=BATCH_EVENTS)
    parser.add_argument("--scale", type=int, metavar="EVENTS")
    parser.add_argument("--open", type=int, metavar="SESSIONS")
    args = parser.parse_args()
    if args.scale is not None:
        print(json.dumps(scale(args.scale, args.batch)))
        return 0
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pa.set_cpu_count(1)
    measure(2 * args.batch, args.batch)  # imports, first allocations and the CPU's clock are not the core's
    if args.open is not None:
        print(json.dumps(asdict(measure_room(args.open, args.batch))))
        return 0
    cost = measure(args.events, args.batch)
    print(json.dumps(asdict(cost)))
    return 0 if cost.problem is None else 1


if __name__ == "__main__":
    sys.exit(main())
