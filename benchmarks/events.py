"""A stream of clickstream events in arrival order, made window by window so that any length fits in memory.

Users follow a power law; each makes bursts of clicks at random times of the day, and an event arrives up to a
minute after it happened. (user, time) is unique, which gives every session one right answer. A few users sit
exactly on the edges of the rules: see edge_events. Times are ms UTC. The same Shape gives the same stream: a
short one is a prefix.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

Array = np.ndarray[Any, Any]

GAP_MS = 1_800_000
CAP_MS = 7_200_000
DAY_MS = 86_400_000
EPOCH_MS = 1_735_689_600_000  # 2025-01-01T00:00:00Z: far enough in the past for any guard against the future
DELAY_MS_MAX = 60_000
PAUSE_MS_MAX = 1_500_000  # inside a burst; below the gap, so that bursts merge or part only where users' bursts meet
EVENTS_PER_WINDOW = 500_000
EDGE_EVENTS_PER_USER = 10
PAGES = 400
SECTIONS = ("home", "search", "product", "basket", "checkout", "account", "help", "deals")


@dataclass(frozen=True)
class Shape:
    """How many users make how many events a day; `edge_users` of the users carry the hand-made edge cases."""

    users: int
    events_per_day: int
    edge_users: int
    burst_events_mean: float = 4.4
    skew: float = 0.7
    seed: int = 7

    @cached_property
    def user_names(self) -> pa.StringArray:
        """UUIDs, string[users]; a user's code is its position."""
        raw = np.random.default_rng((self.seed, 1)).bytes(16 * self.users).hex()
        return pa.array([_as_uuid(raw[i : i + 32]) for i in range(0, len(raw), 32)], pa.string())


def _as_uuid(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


@dataclass(frozen=True, slots=True)
class Events:
    """Columns of equal length in arrival order: user int32 (code), time_ms int64, page int32 (code)."""

    user: Array
    time_ms: Array
    page: Array

    def __len__(self) -> int:
        return len(self.time_ms)

    def part(self, start: int, stop: int) -> "Events":
        return Events(self.user[start:stop], self.time_ms[start:stop], self.page[start:stop])


def page_names() -> pa.StringArray:
    return pa.array([f"/{SECTIONS[i % len(SECTIONS)]}/{i}" for i in range(PAGES)], pa.string())


@dataclass(frozen=True, slots=True)
class _Pool:
    """Events that were made and did not arrive yet; times count from the start of the stream."""

    user: Array
    time_ms: Array
    delay_ms: Array

    def joined(self, other: "_Pool") -> "_Pool":
        return _Pool(
            np.concatenate((self.user, other.user)),
            np.concatenate((self.time_ms, other.time_ms)),
            np.concatenate((self.delay_ms, other.delay_ms)),
        )

    def where(self, which: Array) -> "_Pool":
        return _Pool(self.user[which], self.time_ms[which], self.delay_ms[which])


def stream(shape: Shape) -> Iterator[Events]:
    """Windows of about half a million events, without end."""
    rng = np.random.default_rng((shape.seed, 2))
    page_rng = np.random.default_rng((shape.seed, 3))
    heavy = np.arange(1, shape.users - shape.edge_users + 1, dtype=np.float64) ** -shape.skew
    user_share = np.cumsum(heavy) / heavy.sum()
    page_share = np.cumsum(1.0 / np.arange(1, PAGES + 1) ** 1.1)
    page_share /= page_share[-1]
    window_ms = min(DAY_MS, DAY_MS * EVENTS_PER_WINDOW // shape.events_per_day)
    bursts_per_ms = shape.events_per_day / shape.burst_events_mean / DAY_MS

    pool = edge_events(shape, rng)
    start_ms, bursts_made = 0, 0
    while True:
        end_ms = start_ms + window_ms
        bursts = int(end_ms * bursts_per_ms) - bursts_made
        bursts_made += bursts
        made = _bursts(rng, user_share, bursts, start_ms, end_ms, shape.burst_events_mean)
        pool = _with_unique_times(pool.joined(made))
        arrival_ms = pool.time_ms + pool.delay_ms
        here = np.flatnonzero(arrival_ms < end_ms)
        here = here[np.argsort(arrival_ms[here], kind="stable")]
        if len(here):
            page = np.searchsorted(page_share, page_rng.random(len(here)), side="right").astype(np.int32)
            yield Events(pool.user[here], pool.time_ms[here] + EPOCH_MS, np.minimum(page, PAGES - 1))
        pool = pool.where(arrival_ms >= end_ms)
        start_ms = end_ms


def _bursts(
    rng: np.random.Generator, user_share: Array, bursts: int, start_ms: int, end_ms: int, events_mean: float
) -> _Pool:
    """Bursts that begin in [start_ms, end_ms): a few clicks with log-normal pauses (median 30 s)."""
    burst_user = np.minimum(np.searchsorted(user_share, rng.random(bursts), side="right"), len(user_share) - 1)
    burst_start = rng.integers(start_ms, end_ms, bursts)
    size = rng.geometric(1.0 / events_mean, bursts)
    total = int(size.sum())
    pause = np.minimum(rng.lognormal(10.3, 1.2, total), PAUSE_MS_MAX).astype(np.int64)
    first = np.cumsum(size) - size
    pause[first] = 0
    elapsed = np.cumsum(pause)
    elapsed -= np.repeat(elapsed[first], size)
    time_ms = np.repeat(burst_start, size) + elapsed
    delay_ms = rng.integers(0, DELAY_MS_MAX + 1, total).astype(np.int32)
    return _Pool(np.repeat(burst_user, size).astype(np.int32), time_ms, delay_ms)


def edge_events(shape: Shape, rng: np.random.Generator) -> _Pool:
    """Ten events for each edge user, in one of four patterns that a wrong comparison would cut elsewhere.

    Every 30 min (one chain; with the cap, cut at exactly + 2 h); every 30 min + 1 ms (all apart); 20 min
    (the seventh at exactly start + 2 h); every 20 min but the seventh 1 ms before + 2 h, then 30 min + 1 ms.
    """
    steps = np.arange(EDGE_EVENTS_PER_USER, dtype=np.int64)
    just_below = 1_200_000 * steps
    just_below[6] = CAP_MS - 1
    just_below[7:] = CAP_MS + GAP_MS + np.arange(EDGE_EVENTS_PER_USER - 7)
    patterns = np.stack((GAP_MS * steps, (GAP_MS + 1) * steps, 1_200_000 * steps, just_below))
    start = rng.integers(0, DAY_MS * 2 // 3, shape.edge_users)
    which = np.arange(shape.edge_users) % len(patterns)
    user = np.arange(shape.users - shape.edge_users, shape.users, dtype=np.int32)
    total = shape.edge_users * EDGE_EVENTS_PER_USER
    return _Pool(
        np.repeat(user, EDGE_EVENTS_PER_USER),
        (patterns[which] + start[:, None]).ravel(),
        rng.integers(0, DELAY_MS_MAX + 1, total).astype(np.int32),
    )


def _with_unique_times(pool: _Pool) -> _Pool:
    """Moves an event that meets another of its user by the least number of ms that parts them.

    Events that arrived in earlier windows can't be met: those still here kept clear of them when all were in
    the pool, and new bursts begin later.
    """
    order = np.lexsort((pool.time_ms, pool.user))
    pool = pool.where(order)
    position = np.arange(len(order))
    # With the user above the time in one number, "at least 1 ms after the one before" is a running maximum.
    lane = pool.user.astype(np.int64) << 42
    apart = np.maximum.accumulate(lane + pool.time_ms - position) + position
    return _Pool(pool.user, apart - lane, pool.delay_ms)
