"""Which events are late, and how far the watermark may move.

Late is decided record by record, in the order of a partition, so it depends on the data alone. The watermark is what
no accepted event can be below: the least of what the partitions allow. A partition of which everything is read and
that stays silent does not hold the others back; when all are silent, the watermark goes on with the clock, so that the
last sessions end without new events.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt


class LateRule:
    """A record is late when its time is below the latest before it, in the order of arrival, minus the lateness.

    So what is late depends on the data alone, never on how it was cut into batches.
    """

    def __init__(self, lateness_ms: int, *, latest_ms: int | None = None) -> None:
        self._lateness_ms = lateness_ms
        self.latest_ms = latest_ms

    def late(self, time: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """bool[n] for the next n records, int64[n] ms in order of arrival."""
        if not len(time):
            return np.zeros(0, bool)
        running = np.maximum.accumulate(time)
        if self.latest_ms is not None:
            np.maximum(running, self.latest_ms, out=running)
        before = np.append(time[0] if self.latest_ms is None else self.latest_ms, running[:-1])
        self.latest_ms = int(running[-1])
        late: npt.NDArray[np.bool_] = time < before - self._lateness_ms
        return late

    @property
    def watermark_ms(self) -> int | None:
        """No record that is not late can be below it; None before the first record."""
        return None if self.latest_ms is None else self.latest_ms - self._lateness_ms


class Watermarks:
    """The late rules of all partitions, and the watermark that follows from them.

    floor_ms: the watermark that is in force. An event below it is late too: it got there while its partition was
    silent. latest_ms: what every partition had come to, to go on from.
    """

    def __init__(
        self, lateness_ms: int, *, idle_after_s: float, floor_ms: int | None = None, latest_ms: Mapping[str, int]
    ) -> None:
        self._lateness_ms = lateness_ms
        self._idle_after_s = idle_after_s
        self.floor_ms = floor_ms
        self._rules = {name: LateRule(lateness_ms, latest_ms=latest) for name, latest in latest_ms.items()}
        self._heard_s: dict[str, float] = {}

    def late(self, partition: str, time: npt.NDArray[np.int64], *, at_s: float) -> npt.NDArray[np.bool_]:
        """bool[n] for the next n records of the partition; at_s: now, by a clock that only moves forward."""
        self._heard_s[partition] = at_s
        late = self._rule(partition).late(time)
        if self.floor_ms is not None:
            late |= time < self.floor_ms
        return late

    @property
    def latest_ms(self) -> dict[str, int]:
        """The latest event time of each partition that had any."""
        return {name: rule.latest_ms for name, rule in self._rules.items() if rule.latest_ms is not None}

    def target_ms(
        self, partitions: frozenset[str], read_to_end: frozenset[str], *, at_s: float, ended: bool
    ) -> int | None:
        """How far the watermark may move now; never below floor_ms, None before the first event.

        partitions: all that are read. ended: the input is bounded, so what is read to its end brings nothing more.
        """
        for name in partitions:
            self._heard_s.setdefault(name, at_s)  # a partition just found has its time to speak up
        silent = {
            name for name in partitions & read_to_end if ended or at_s - self._heard_s[name] >= self._idle_after_s
        }
        active = partitions - silent
        if active:
            marks = [self._rule(name).watermark_ms for name in active]
            mark = None if any(m is None for m in marks) else min(m for m in marks if m is not None)
        else:
            mark = self._by_the_clock(at_s, ended=ended)
        known = [m for m in (mark, self.floor_ms) if m is not None]
        return max(known) if known else None

    def _by_the_clock(self, at_s: float, *, ended: bool) -> int | None:
        """Event time goes on from the latest event as the clock does since the last record came."""
        latest = self.latest_ms
        if not latest:
            return None
        waited_s = 0.0 if ended else at_s - max(self._heard_s.values())
        return max(latest.values()) - self._lateness_ms + int(waited_s * 1000)

    def _rule(self, partition: str) -> LateRule:
        if partition not in self._rules:
            self._rules[partition] = LateRule(self._lateness_ms)
        return self._rules[partition]
