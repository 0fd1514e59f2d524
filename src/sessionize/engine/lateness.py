"""How far the event time of a partition has come, and which of its events are late by that (spec, rule 8).

An event is late when its time is below the partition's **front** minus the lateness. What moves the front is the
watermark rule: every event (`MaximumFront`), or only events that the front may follow (`ConfirmedFront`), so that one
wrong clock does not make everybody else late. Both depend on the events alone, in the order of their offsets, never on
how they were cut into batches.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sessionize.engine.watermark_witnesses import FEW, LastEvents, Lookback, Witnesses, witnesses_after
from sessionize.session.policy import WatermarkRule

STEP_MS_MIN = 1_000  # how far an unconfirmed event may move the front where the lateness is shorter
RECORDS_ALONE = 1_000  # after so many events, fewer than three users are enough to confirm
_BEFORE_ALL_MS = -(1 << 62)
_WINDOW_ROWS = 256

Times = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Front(Protocol):
    """One partition. latest_ms: its front, None before the first event that moves it."""

    latest_ms: int | None

    def late(self, time: Times, users: pa.ChunkedArray, *, now_ms: int | None, waited_ms: int) -> Bools:
        """bool[n]: which of the next n events are late, and move the front.

        time: int64[n] ms in the order of their offsets. users: their users, text. now_ms: the present, beyond which the
        front does not count; None to leave the clock out. waited_ms: how long this partition was polled at its end
        altogether, as of the epoch's first poll; never goes back.
        """

    def settled_ms(self, *, waited_ms: int) -> int | None:
        """Where the front is once settle_for_few is called; changes nothing."""

    def settle_for_few(self, *, waited_ms: int) -> bool:
        """Nothing came for long: whoever is there is enough to confirm. Whether that changes anything.

        A later event is judged by it, so a plan records it (WatermarkTracker.settle).
        """

    def end_ms(self, longest_silence_ms: int) -> int | None:
        """Where event time ends if nothing more comes: the front, and whoever follows it without a longer silence."""

    def state(self) -> dict[str, Any]:
        """JSON-able; what `restored_front` goes on from."""


class MaximumFront:
    """The largest event time so far, whoever brought it: what Flink and Kafka Streams do."""

    def __init__(self, lateness_ms: int, *, latest_ms: int | None = None) -> None:
        self._lateness_ms = lateness_ms
        self.latest_ms = latest_ms

    def late(
        self, time: Times, users: pa.ChunkedArray | None = None, *, now_ms: int | None = None, waited_ms: int = 0
    ) -> Bools:
        """Front.late; neither users nor the time waited matter."""
        del users, waited_ms
        late, self.latest_ms = _late_behind(time, time, self.latest_ms, self._lateness_ms, now_ms)
        return late

    def settled_ms(self, *, waited_ms: int) -> int | None:
        """Front.settled_ms."""
        del waited_ms
        return self.latest_ms

    def settle_for_few(self, *, waited_ms: int) -> bool:
        """Front.settle_for_few: nothing has to be confirmed."""
        del waited_ms
        return False

    def end_ms(self, longest_silence_ms: int) -> int | None:
        """Front.end_ms."""
        del longest_silence_ms
        return self.latest_ms

    def state(self) -> dict[str, Any]:
        """Front.state."""
        return {"latest_ms": self.latest_ms}


class ConfirmedFront:
    """The largest event time that more than half of the last different users have confirmed, or nearly so.

    The **reference** is the time that more than half of the witnesses (watermark_witnesses.py) have reached. It never
    goes back, and is looked at again whenever an event lies further ahead of it than the lateness. An event up to the
    lateness ahead of the reference moves the front, so it makes no event late that comes in order. One further ahead is
    accepted like any other, and does not move the front until others confirm it.
    """

    def __init__(self, lateness_ms: int, *, latest_ms: int | None = None) -> None:
        """latest_ms: a front to go on from, of which nobody knows who brought it."""
        self._lateness_ms = lateness_ms
        self._step_ms = max(lateness_ms, STEP_MS_MIN)
        self.latest_ms = self._reference_ms = latest_ms
        self._records = 0
        self._few_will_do = False
        self._witnesses = Witnesses.of()

    def late(self, time: Times, users: pa.ChunkedArray, *, now_ms: int | None = None, waited_ms: int = 0) -> Bools:
        """Front.late."""
        moves = self._moves(time, users, waited_ms)
        late, self.latest_ms = _late_behind(time, moves, self.latest_ms, self._lateness_ms, now_ms)
        return late

    def settled_ms(self, *, waited_ms: int) -> int | None:
        """Front.settled_ms."""
        if not self._can_settle:
            return self.latest_ms
        last = self._witnesses.last_events()
        found = last.latest_until(last.reached_by_most(waited_ms=waited_ms) + self._step_ms)
        return max((ms for ms in (found, self.latest_ms) if ms is not None), default=None)

    def settle_for_few(self, *, waited_ms: int) -> bool:
        """Front.settle_for_few."""
        if not self._can_settle:
            return False
        self.latest_ms = self.settled_ms(waited_ms=waited_ms)
        self._reference_ms = self._witnesses.last_events().reached_by_most(waited_ms=waited_ms)
        self._few_will_do = True
        return True

    @property
    def _can_settle(self) -> bool:
        return self._reference_ms is None and len(self._witnesses) > 0

    def end_ms(self, longest_silence_ms: int) -> int | None:
        """Front.end_ms."""
        end = self.latest_ms
        for time in sorted(self._witnesses.time_ms.tolist()):
            if end is not None and end < time <= end + longest_silence_ms:
                end = time
        return end

    def state(self) -> dict[str, Any]:
        """Front.state."""
        return {
            "latest_ms": self.latest_ms,
            "reference_ms": self._reference_ms,
            "records": self._records,
            "few_will_do": self._few_will_do,
            "witnesses": self._witnesses.rows(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of before."""
        self.latest_ms, self._reference_ms = state["latest_ms"], state["reference_ms"]
        self._records, self._few_will_do = state["records"], state["few_will_do"]
        self._witnesses = Witnesses.of(state["witnesses"])

    def _moves(self, time: Times, users: pa.ChunkedArray, waited_ms: int) -> Times:
        """int64[n]: where each event moves the front to, long before all times where it does not."""
        if not len(time):
            return time
        moves, at = time, 0
        lookback: Lookback | None = None
        while (over := self._next_beyond(time, at)) is not None:
            if lookback is None:
                moves = time.copy()
                lookback = Lookback(self._witnesses, time, users, first_record=self._records, waited_ms=waited_ms)
            confirmed = self._confirm(lookback.last_events_at(over), self._records + over + 1, waited_ms)
            at = self._unconfirmed_until(time, over, lookback)
            moves[over:at] = _BEFORE_ALL_MS if confirmed is None else confirmed
        if lookback is not None:
            self._witnesses = lookback.witnesses_at(len(time) - 1)
        else:
            self._witnesses = witnesses_after(
                self._witnesses, time, users, first_record=self._records, waited_ms=waited_ms
            )
        self._records += len(time)
        return moves

    def _unconfirmed_until(self, time: Times, over: int, lookback: Lookback) -> int:
        """Up to where events say nothing new after this one: they are of the same user, who stays beyond the limit."""
        limit = self._limit_ms
        if limit is None or time[over] <= limit or self._records + over < RECORDS_ALONE:
            return over + 1
        end = lookback.same_until(over)
        back = time[over:end] <= limit
        first = int(back.argmax())
        return over + first if back[first] else end

    def _next_beyond(self, time: Times, at: int) -> int | None:
        """The next event that lies beyond what may move the front; in growing windows, as they may be many or few."""
        limit = self._limit_ms
        if limit is None:
            return at if at < len(time) else None
        rows = _WINDOW_ROWS
        while at < len(time):
            beyond = time[at : at + rows] > limit
            if (first := int(beyond.argmax())) or beyond[0]:
                return at + first
            at, rows = at + rows, rows * 2
        return None

    @property
    def _limit_ms(self) -> int | None:
        return None if self._reference_ms is None else self._reference_ms + self._step_ms

    def _confirm(self, witnesses: LastEvents, records: int, waited_ms: int) -> int | None:
        """Look at the reference again; the latest event of a witness that may move the front now, None for none."""
        if len(witnesses) >= FEW or self._few_will_do or records >= RECORDS_ALONE:
            found = witnesses.reached_by_most(waited_ms=waited_ms)
            if self._reference_ms is None or found > self._reference_ms:
                self._reference_ms = found
        limit = self._limit_ms
        return None if limit is None else witnesses.latest_until(limit)


def front_of(rule: WatermarkRule, lateness_ms: int) -> Front:
    """A partition of which nothing is known yet."""
    return MaximumFront(lateness_ms) if rule == "maximum" else ConfirmedFront(lateness_ms)


def restored_front(rule: WatermarkRule, lateness_ms: int, state: Mapping[str, Any] | int) -> Front:
    """A partition as `state` left it; an int is the front alone, as checkpoints of before had it."""
    latest_ms = state if isinstance(state, int) else state["latest_ms"]
    if rule == "maximum":
        return MaximumFront(lateness_ms, latest_ms=latest_ms)
    front = ConfirmedFront(lateness_ms, latest_ms=latest_ms)
    if not isinstance(state, int) and "witnesses" in state:
        front.restore(state)
    return front


def _late_behind(
    time: Times, moves: Times, latest_ms: int | None, lateness_ms: int, now_ms: int | None
) -> tuple[Bools, int | None]:
    """Which events are below the front before them minus the lateness, and the front after them."""
    if not len(time):
        return np.zeros(0, bool), latest_ms
    front = np.empty(len(time) + 1, np.int64)
    front[0] = _BEFORE_ALL_MS if latest_ms is None else latest_ms
    front[1:] = moves
    np.maximum.accumulate(front, out=front)
    after = int(front[-1])
    before = front[:-1] if now_ms is None else np.minimum(front[:-1], now_ms)
    late: Bools = time < before - lateness_ms
    return late, None if after == _BEFORE_ALL_MS else after
