"""A stream and a sink in memory, for tests of an engine: exact, quick, and able to fail where one wants them to.

InMemoryStreamSource replays partitions of events in any cut; InMemoryEpochSink is a correct EpochSink in a few lines.
"""

import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from sessionize.ports import EpochId, EpochOutput, Positions, Ranges, StreamBatch
from sessionize.session import columns as col
from sessionize.session.output_tables import LATE_EVENTS, REJECTED_EVENTS, SESSIONS
from sessionize.testing.comparison import events_table

Row = Mapping[str, Any]

# What output tables were called here before they had the names of the tables.
OLD_NAMES = {"sessions": SESSIONS.name, "late": LATE_EVENTS.name, "rejected": REJECTED_EVENTS.name}


class InMemoryStreamSource:
    """Partitions of event dicts, read in pieces of random size. A row without "user" stands for a broken record.

    cut: decides how much a poll brings of each partition, from piece_min to piece_max rows, so that two streams with
    other seeds are cut in other places. Rows may be appended while it is read.
    """

    event_columns = frozenset(col.EVENT_TYPES)
    user_name = col.USER

    def __init__(
        self, partitions: Sequence[Sequence[Row]], *, cut: int = 0, piece_min: int = 0, piece_max: int = 20
    ) -> None:
        self._rows = {str(number): rows for number, rows in enumerate(partitions)}
        self._at = dict.fromkeys(self._rows, 0)
        self._random = random.Random(cut)
        self._piece_min, self._piece_max = piece_min, piece_max
        self.closed = False

    def partitions(self) -> frozenset[str]:
        """All of them."""
        return frozenset(self._rows)

    def seek(self, positions: Positions) -> None:
        """Go on from these offsets."""
        self._at = {name: positions.get(name, 0) for name in self._rows}

    def poll(self, *, timeout_s: float, now_ms: int) -> list[StreamBatch]:
        """A piece of some of the partitions."""
        del timeout_s, now_ms
        found = []
        for name, rows in self._rows.items():
            size = min(self._random.randint(self._piece_min, self._piece_max), len(rows) - self._at[name])
            if size:
                found.append(self._batch(name, self._at[name], self._at[name] + size))
        return found

    def read(self, ranges: Ranges, *, now_ms: int) -> Iterator[StreamBatch]:
        """The same records again, cut anew."""
        del now_ms
        for name, (start, end) in ranges.items():
            self._at[name] = start
            while self._at[name] < end:
                size = min(self._random.randint(1, self._piece_max), end - self._at[name])
                yield self._batch(name, self._at[name], self._at[name] + size)

    def caught_up(self) -> frozenset[str]:
        """Those without further rows."""
        return frozenset(name for name, rows in self._rows.items() if self._at[name] >= len(rows))

    def lag(self) -> int | None:
        """Rows not yet read."""
        return sum(len(rows) - self._at[name] for name, rows in self._rows.items())

    def close(self) -> None:
        """Nothing to release."""
        self.closed = True

    def _batch(self, name: str, start: int, end: int) -> StreamBatch:
        rows = self._rows[name][start:end]
        self._at[name] = end
        broken = [
            {"raw": b"?", "source": name, "line_number": start + i, "reason": "broken", "detail": ""}
            for i, row in enumerate(rows)
            if "user" not in row
        ]
        return StreamBatch(
            name,
            {name: (start, end)},
            events_table([row for row in rows if "user" in row]),
            pa.Table.from_pylist(broken, schema=col.REJECTED_SCHEMA),
        )


class InMemoryEpochSink:
    """Keeps the rows of every epoch, each once. fail: raised before anything is kept, as often as it lasts."""

    def __init__(self, *, fail: Sequence[Exception] = ()) -> None:
        self._fail = list(fail)
        self._last: dict[str, EpochId] = {}
        self.epochs: list[tuple[EpochId, EpochOutput]] = []
        self.repeated = 0

    @property
    def known_tables(self) -> frozenset[str] | None:
        """It keeps whatever it gets."""
        return None

    def write_epoch(self, epoch: EpochId, output: EpochOutput) -> None:
        """Keep all tables, unless the epoch is here."""
        if self._fail:
            raise self._fail.pop(0)
        if epoch.is_known(self._last.get(epoch.writer), where="memory"):
            self.repeated += 1
            return
        self._last[epoch.writer] = epoch
        self.epochs.append((epoch, output))

    def last_epoch(self, writer: str) -> int:
        """The number of the writer's last epoch."""
        last = self._last.get(writer)
        return 0 if last is None else last.number

    def rows(self, name: str) -> list[pa.Table]:
        """All rows of one table, by its name, an epoch after the other."""
        if name in OLD_NAMES:
            warnings.warn(f"the table {name!r} is called {OLD_NAMES[name]!r}", DeprecationWarning, stacklevel=2)
            name = OLD_NAMES[name]
        return [output.tables[name] for _, output in self.epochs if name in output.tables]

    def count(self, name: str) -> int:
        """How many rows of one table."""
        return sum(table.num_rows for table in self.rows(name))

    def close(self) -> None:
        """Nothing to release."""


_OLD_CLASSES = {"RecordedStream": InMemoryStreamSource, "KeptEpochs": InMemoryEpochSink}


def __getattr__(name: str) -> Any:
    if name not in _OLD_CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"{name} is called {_OLD_CLASSES[name].__name__} now", DeprecationWarning, stacklevel=2)
    return _OLD_CLASSES[name]
