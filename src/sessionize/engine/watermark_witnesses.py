"""The last different users of a partition, each with its last event: they say how far event time has come.

A user counts once, however many events it sends, so neither a busy user nor one with a wrong clock speaks for others.
Event time goes on with the clock while a partition is read to its end, so an event that was read a while ago stands for
a later time now; where nothing was waited for (a backlog, a backfill) the events alone decide.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.kernel.interner import dictionary_of

USERS_MAX = 63
FEW = 3  # fewer users than this confirm nothing by themselves
FORGOTTEN_AFTER_RECORDS = 10_000  # a user of whom nothing came for so long is no witness
_LOOK_BACK_ROWS = 128
_NEVER = np.iinfo(np.int64).max

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Witnesses:
    """In the order of their last events, the newest at the end; arrays of one element per user.

    time_ms: of its last event. waited_ms: how long the partition had been polled at its end by then. record: the number
    of that event in the partition.
    """

    users: pa.Array
    time_ms: Ints
    waited_ms: Ints
    record: Ints

    @classmethod
    def of(cls, rows: Iterable[Sequence[int | str]] = ()) -> "Witnesses":
        """rows: as `rows` gave them, to go on from."""
        users, *numbers = zip(*rows, strict=True) if (rows := list(rows)) else ((), (), (), ())
        return cls(pa.array(users, pa.string()), *(np.array(column, np.int64) for column in numbers))

    def rows(self) -> list[list[int | str]]:
        """The witnesses, JSON-able."""
        columns = (self.users.to_pylist(), self.time_ms.tolist(), self.waited_ms.tolist(), self.record.tolist())
        return [list(row) for row in zip(*columns, strict=True)]

    def __len__(self) -> int:
        return len(self.time_ms)

    def last_events(self) -> "LastEvents":
        """What they say."""
        return LastEvents(self.time_ms, self.waited_ms)


@dataclass(frozen=True, slots=True)
class LastEvents:
    """The last events of some witnesses; arrays as in Witnesses."""

    time_ms: Ints
    waited_ms: Ints

    def __len__(self) -> int:
        return len(self.time_ms)

    def reached_by_most(self, *, waited_ms: int) -> int:
        """The time that more than half of them, and three if they are as many, have reached by now.

        At least one witness. waited_ms: how long the partition was polled at its end altogether.
        """
        count = len(self)
        place = count - max(min(FEW, count), count // 2 + 1)
        reached = self.time_ms - self.waited_ms
        reached.partition(place)
        return int(reached[place]) + waited_ms

    def latest_until(self, limit_ms: int) -> int | None:
        """The latest that is not after limit_ms."""
        within = self.time_ms[self.time_ms <= limit_ms]
        return int(within.max()) if len(within) else None


class Lookback:
    """Who the witnesses are at each of some further events: those of before, and the events up to there.

    time: int64[n] ms, users: text, in the order of their offsets. first_record: the number of the first of them in the
    partition. waited_ms: as in Witnesses, for all of them.
    """

    def __init__(
        self, before: Witnesses, time: Ints, users: pa.ChunkedArray | pa.Array, *, first_record: int, waited_ms: int
    ) -> None:
        codes, names = dictionary_of(users)
        there = pc.index_in(before.users, value_set=names)
        others = np.arange(len(names), len(names) + len(before), dtype=np.int32)
        known = np.where(there.is_valid().to_numpy(False), there.fill_null(0).to_numpy(), others)
        self._names = pa.concat_arrays([names, before.users])
        self._code = np.concatenate((known.astype(np.int32), codes))
        self._time = np.concatenate((before.time_ms, time))
        self._waited = np.concatenate((before.waited_ms, np.full(len(time), waited_ms)))
        self._record = np.concatenate((before.record, first_record + np.arange(len(time))))
        self._again = _next_of_the_same(self._code)
        self._changes = np.flatnonzero(self._code[1:] != self._code[:-1]) + 1
        self._first = len(before)
        self._found_last, self._found = -1, np.zeros(0, np.intp)  # the last answer of _at

    def last_events_at(self, row: int) -> LastEvents:
        """What the witnesses say once the event of this row is known."""
        found = self._at(row)
        return LastEvents(self._time[found], self._waited[found])

    def witnesses_at(self, row: int) -> Witnesses:
        """The witnesses once the event of this row is known; -1: those of before."""
        found = self._at(row)
        users = self._names.take(pa.array(self._code[found]))
        return Witnesses(users, self._time[found], self._waited[found], self._record[found])

    def same_until(self, row: int) -> int:
        """The first row after this one that changes the witnesses otherwise than by its own user's later event: another
        user sent it, or a witness is forgotten by then. Or the number of rows.
        """
        last = self._first + row
        place = int(np.searchsorted(self._changes, last, side="right"))
        end = int(self._changes[place]) if place < len(self._changes) else len(self._code)
        oldest = self._record[self._at(row)[0]]
        return min(end, last + int(oldest - self._record[last]) + FORGOTTEN_AFTER_RECORDS) - self._first

    def _at(self, row: int) -> npt.NDArray[np.intp]:
        last = self._first + row
        if 0 <= last - self._found_last <= _LOOK_BACK_ROWS and self._found_last >= 0:
            found = self._later(last)
        else:
            found = self._looked_up(last)
        self._found_last, self._found = last, found
        return found

    def _later(self, last: int) -> npt.NDArray[np.intp]:
        """Of the witnesses found before and the events since then."""
        since = self._found_last + 1 + np.flatnonzero(self._again[self._found_last + 1 : last + 1] > last)
        found = np.concatenate((self._found[self._again[self._found] > last], since))[-USERS_MAX:]
        not_forgotten = self._record[found] > self._record[last] - FORGOTTEN_AFTER_RECORDS
        return np.asarray(found[not_forgotten], np.intp)

    def _looked_up(self, last: int) -> npt.NDArray[np.intp]:
        rows = _LOOK_BACK_ROWS
        oldest = int(self._record[last]) - FORGOTTEN_AFTER_RECORDS if last >= 0 else 0
        while True:
            start = max(0, last + 1 - rows)
            found = start + np.flatnonzero(self._again[start : last + 1] > last)
            is_old = len(found) and self._record[found[0]] <= oldest
            if len(found) >= USERS_MAX or start == 0 or is_old:
                break
            rows *= 4
        found = found[-USERS_MAX:]
        return found[self._record[found] > oldest] if is_old else found


def witnesses_after(
    before: Witnesses, time: Ints, users: pa.ChunkedArray, *, first_record: int, waited_ms: int
) -> Witnesses:
    """The witnesses once all of these events are known, of which mostly the last few decide."""
    rows = 2 * USERS_MAX
    while True:
        start = max(0, len(time) - rows)
        part = Lookback(
            before, time[start:], users.slice(start), first_record=first_record + start, waited_ms=waited_ms
        )
        found = part.witnesses_at(len(time) - start - 1)
        enough = len(found) == USERS_MAX and found.record[0] >= first_record + start
        if enough or start == 0 or rows >= FORGOTTEN_AFTER_RECORDS:
            return found
        rows *= 8


def _next_of_the_same(code: npt.NDArray[np.int32]) -> Ints:
    """int64[n]: the next row with the same code, far off where there is none."""
    order = np.argsort(code, kind="stable")
    again = np.full(len(code), _NEVER)
    same = code[order[1:]] == code[order[:-1]]
    again[order[:-1][same]] = order[1:][same]
    return again
