"""How far the watermark may move: the minimum over the partitions of what each allows, the clock when all are idle.

No accepted event is below the watermark. A partition that is read to its end and whose front stays where it is does
not hold the others back; when all are idle, the watermark goes on with the clock, so that the last sessions end without
new events. **Silence counts only while the input is polled**: a process that is stopped, swapped out or busy
reads nothing, which says nothing about its input. And the watermark never passes the present.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sessionize.engine.lateness import Bools, Front, front_of, restored_front
from sessionize.session import columns as col
from sessionize.session.policy import WatermarkRule

_OVERTIME_S = 0.1  # what a poll may add to a silence beyond what it was to take: the process may not have run meanwhile


@dataclass(slots=True)
class _Partition:
    """waited_ms: how long it was polled at its end altogether; in_epoch_ms: the same at the epoch's first poll, which
    is what the front knows; moved_ms: the same when the front last moved.
    """

    front: Front
    waited_ms: float = 0.0
    in_epoch_ms: int = 0
    moved_ms: float = 0.0

    @property
    def silent_ms(self) -> float:
        return self.waited_ms - self.moved_ms


class WatermarkTracker:
    """The fronts of all partitions, and the watermark that follows from them.

    follows_clock: whether the present bounds fronts and watermark. floor_ms: the watermark that is in force; an event
    below it is late too, because the watermark got there while its partition was idle. fronts: by partition, what
    `state` gave, to go on from.
    """

    def __init__(
        self,
        lateness_ms: int,
        *,
        idle_after_s: float,
        rule: WatermarkRule = "confirmed",
        follows_clock: bool = True,
        floor_ms: int | None = None,
        fronts: Mapping[str, Any] | None = None,
    ) -> None:
        self._lateness_ms, self._rule = lateness_ms, rule
        self._idle_after_ms = idle_after_s * 1000
        self._follows_clock = follows_clock
        self.floor_ms = floor_ms
        self._partitions = {name: self._restored(state) for name, state in (fronts or {}).items()}
        self._polled_s: float | None = None

    def _restored(self, state: Mapping[str, Any] | int) -> _Partition:
        waited, moved = (0, 0) if isinstance(state, int) else (state["waited_ms"], state["moved_ms"])
        return _Partition(restored_front(self._rule, self._lateness_ms, state), waited, waited, moved)

    # ---- events ----

    def begin_epoch(self) -> None:
        """What is read from now on is judged by the silence until now."""
        for partition in self._partitions.values():
            partition.in_epoch_ms = int(partition.waited_ms)

    def epoch_silence(self) -> dict[str, int]:
        """How long each partition had been polled at its end when the epoch began: what a plan keeps."""
        return {name: partition.in_epoch_ms for name, partition in self._partitions.items() if partition.in_epoch_ms}

    def repeat_epoch(self, silence: Mapping[str, int]) -> None:
        """An epoch is repeated that was planned with this silence."""
        for name in self._partitions.keys() | silence.keys():
            partition = self._of(name)
            partition.in_epoch_ms = silence.get(name, 0)
            partition.waited_ms = max(partition.waited_ms, partition.in_epoch_ms)

    def late(self, name: str, events: pa.Table, *, now_ms: int) -> Bools:
        """bool[n] for the next n events of a partition (user, event_time_ms). now_ms: the epoch's present."""
        partition, time = self._of(name), events[col.EVENT_TIME].to_numpy()
        before = partition.front.latest_ms
        late = partition.front.late(
            time, events[col.USER], now_ms=now_ms if self._follows_clock else None, waited_ms=partition.in_epoch_ms
        )
        if partition.front.latest_ms != before:
            partition.moved_ms = partition.waited_ms
        if self.floor_ms is not None:
            late |= time < self.floor_ms
        return late

    def polled(self, caught_up: frozenset[str], *, at_s: float, wait_s: float) -> None:
        """A poll that was to take wait_s at most is over, and these partitions have nothing more. at_s: now, by a clock
        that only moves forward.
        """
        if self._polled_s is not None:
            waited_ms = min(wait_s + _OVERTIME_S, at_s - self._polled_s) * 1000
            for name in caught_up:
                self._of(name).waited_ms += waited_ms
        self._polled_s = at_s

    def interrupted(self) -> None:
        """The input did not answer: the time until the next poll is no silence."""
        self._polled_s = None

    # ---- the watermark ----

    def target_ms(
        self, partitions: frozenset[str], caught_up: frozenset[str], *, now_ms: int, ended: bool
    ) -> int | None:
        """How far the watermark may move now; never below floor_ms, None before the first event.

        partitions: all that are read. now_ms: the present. ended: the input is bounded, so what is read to its end
        brings nothing more.
        """
        idle = self._idle(partitions, caught_up, ended=ended)
        fronts = [self._of(name).front.latest_ms for name in partitions - idle]
        if fronts:
            front = None if any(f is None for f in fronts) else min(f for f in fronts if f is not None)
        else:
            front = self._by_the_clock(idle, ended=ended)
        mark = None if front is None else self._not_beyond(front, now_ms) - self._lateness_ms
        known = [m for m in (mark, self.floor_ms) if m is not None]
        return max(known) if known else None

    def settle_idle(self, partitions: frozenset[str], caught_up: frozenset[str], *, ended: bool) -> dict[str, int]:
        """Let few users be enough in partitions that are idle, as target_ms reckons with; what `settle` takes to do the
        same again. For a plan alone: later events are judged by it, so a repeated epoch has to do it too.
        """
        waited = {name: int(self._of(name).waited_ms) for name in self._idle(partitions, caught_up, ended=ended)}
        return {name: ms for name, ms in waited.items() if self._of(name).front.settle_for_few(waited_ms=ms)}

    def settle(self, waited_ms: Mapping[str, int]) -> None:
        """What settle_idle did when the epoch was planned."""
        for name, ms in waited_ms.items():
            self._of(name).front.settle_for_few(waited_ms=ms)

    def drained_to_ms(self, latest_ms: int | None, longest_silence_ms: int, *, now_ms: int) -> int | None:
        """Where the watermark goes when all sessions are ended: what could have changed them is late then. Those of a
        clock far ahead of the others are left out, as that would make everybody late; reconciling mends them.

        latest_ms: the latest event, None (as the result) before the first.
        """
        if latest_ms is None:
            return None
        end_ms = self.end_ms(longest_silence_ms, now_ms=now_ms)
        return min(latest_ms, latest_ms if end_ms is None else end_ms) + longest_silence_ms + 1

    def end_ms(self, longest_silence_ms: int, *, now_ms: int) -> int | None:
        """Where event time ends if nothing more comes (Front.end_ms), over all partitions; None before an event."""
        ends = [p.front.end_ms(longest_silence_ms) for p in self._partitions.values()]
        known = [end for end in ends if end is not None]
        return self._not_beyond(max(known), now_ms) if known else None

    def _idle(self, partitions: frozenset[str], caught_up: frozenset[str], *, ended: bool) -> set[str]:
        return {name for name in partitions & caught_up if ended or self._of(name).silent_ms >= self._idle_after_ms}

    def _by_the_clock(self, idle: Set[str], *, ended: bool) -> int | None:
        """Event time goes on from the furthest front as the clock does since a front last moved."""
        fronts, silences_ms = list[int](), list[float]()
        for name, p in self._partitions.items():
            settled_ms = p.front.settled_ms(waited_ms=int(p.waited_ms)) if name in idle else p.front.latest_ms
            if settled_ms is not None:
                fronts.append(settled_ms)
                silences_ms.append(p.silent_ms)
        if not fronts:
            return None
        return max(fronts) + (0 if ended else int(min(silences_ms)))

    def _not_beyond(self, front_ms: int, now_ms: int) -> int:
        return min(front_ms, now_ms) if self._follows_clock else front_ms

    def state(self) -> dict[str, dict[str, Any]]:
        """By partition; JSON-able."""
        return {
            name: {**p.front.state(), "waited_ms": int(p.waited_ms), "moved_ms": int(p.moved_ms)}
            for name, p in self._partitions.items()
        }

    def _of(self, name: str) -> _Partition:
        if name not in self._partitions:
            self._partitions[name] = _Partition(front_of(self._rule, self._lateness_ms))
        return self._partitions[name]
