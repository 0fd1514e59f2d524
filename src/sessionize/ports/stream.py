"""Ports of a stream: input without end, read in epochs, sinks that take each epoch once, and the folder of the state.

Source: docs/adr/0009-epochs.md.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from sessionize.errors import StateError

# Split -> the offset to read next. A split is what a source counts in: a Kafka partition, a followed folder.
Positions = Mapping[str, int]
# Split -> (first offset, offset after the last).
Ranges = Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class StreamBatch:
    """A run of records of one partition, decoded, in the order of their offsets.

    partition: the unit of order, whose times the lateness is measured by. ranges: which offsets the batch covers, by
    split. events, rejected, lost, nulled, local_times: as in EventBatch.
    """

    partition: str
    ranges: Ranges
    events: pa.Table
    rejected: pa.Table
    lost: Mapping[str, int] = field(default_factory=dict)
    nulled: Mapping[str, int] = field(default_factory=dict)
    local_times: int = 0

    @property
    def consumed(self) -> int:
        """Records read, good or bad."""
        return int(self.events.num_rows + self.rejected.num_rows) + sum(self.lost.values())


class StreamSource(Protocol):
    """Input without end, in partitions, that can be read again from any offset it still keeps.

    A source that was opened to read only what is there reaches the end of each partition however much comes meanwhile.
    Not for several threads. Errors: UnavailableError when it is not there now; InputError when records that were asked
    for are gone for good.
    """

    @property
    def event_columns(self) -> frozenset[str]:
        """The canonical columns that every batch of events has."""

    @property
    def user_name(self) -> str:
        """What the input calls the user column."""

    def partitions(self) -> frozenset[str]:
        """The partitions that are read, as known now; more may appear, none goes away."""

    def seek(self, positions: Positions) -> None:
        """Continue at these offsets; a split that is not named is read from its first record."""

    def poll(self, *, timeout_s: float, now_ms: int) -> list[StreamBatch]:
        """What has come, waiting at most timeout_s for the first record. now_ms: what counts as the present when a
        record is judged to lie too far in the future.
        """

    def read(self, ranges: Ranges, *, now_ms: int) -> Iterator[StreamBatch]:
        """Exactly the records of these ranges, again, in the same order within each partition; then stand behind them.

        Errors: InputError when some of them are gone, unless the source is set to go on without such.
        """

    def caught_up(self) -> frozenset[str]:
        """Partitions of which the last poll had read everything that was there."""

    def lag(self) -> int | None:
        """Records that are there and not yet read; None when unknown."""

    def close(self) -> None:
        """Release everything; no other method may be called after it."""


@dataclass(frozen=True, slots=True)
class EpochId:
    """An epoch's name to the sinks: who writes, the number (from 1 on, without gaps), and a digest of its plan."""

    writer: str
    number: int
    plan: str

    def is_known(self, last: "EpochId | None", *, where: str) -> bool:
        """Whether a sink that has this writer's epochs up to `last` has this one already.

        last: None before the first. where: the place of the record, for the error. Errors: StateError when the sink has
        the epoch from another plan.
        """
        if last is None or self.number > last.number:
            return False
        if self.number == last.number and self.plan != last.plan:
            raise StateError(
                "an output has this epoch from another plan",
                detail=f"{where}: epoch {self.number} of writer {self.writer!r} has the plan {last.plan}, "
                f"now it is {self.plan}",
                hint="two engines run under one name, or the state was removed and the outputs were not; "
                "give this one another name, or its state back",
            )
        return True


@dataclass(frozen=True, slots=True)
class EpochOutput:
    """What an epoch adds: rows by table name (session/output_tables.py). The user column has the input's name.

    A table that has no rows may be left out. watermark_ms: what ends before it is final; None before the first event.
    """

    tables: Mapping[str, pa.Table]
    watermark_ms: int | None

    def count(self, table: str) -> int:
        """How many rows the epoch adds to a table."""
        return int(self.tables[table].num_rows) if table in self.tables else 0

    def with_tables(self, tables: Mapping[str, pa.Table]) -> "EpochOutput":
        """The same epoch with these tables instead of, or beside, those of the same names."""
        return EpochOutput({**self.tables, **tables}, self.watermark_ms)


class EpochSink(Protocol):
    """Takes the rows of one epoch after the other, each once, however often it is given one.

    It writes the tables that it was given destinations for, and passes over the others.
    Errors: UnavailableError when the same call may succeed later, any other SessionizeError when it never will.
    """

    @property
    def known_tables(self) -> frozenset[str] | None:
        """The names of the tables that an epoch's output may have, as it has their specs; None where it takes any.

        The engine asks before the first epoch, so that no output with another table is ever planned.
        """

    def write_epoch(self, epoch: EpochId, output: EpochOutput) -> None:
        """Make the rows durable and visible at once. An epoch that was written before, or comes before one that was,
        changes nothing; StateError when it was written by another plan, OutputError for a table without a spec.
        """

    def last_epoch(self, writer: str) -> int | None:
        """The number of the writer's last epoch that is here, 0 before the first; None where no record is kept. After
        write_epoch it is that epoch's number, whatever its rows were.
        """

    def close(self) -> None:
        """Release everything."""


class StateFolder(Protocol):
    """Where the checkpoints of one stream are kept: named files, each whole or not there. One process at a time has it.

    Checkpoints decide what is written and what is needed (engine/stream/checkpoints.py); this keeps bytes: in a folder
    of a disk, or under a prefix of an object store.

    Errors of all methods: UnavailableError when the same call may succeed later, OutputError when it never will, and
    then everything that was there stays valid; StateError when another process has it, or after close.
    """

    @property
    def place(self) -> str:
        """Where it is, for people."""

    def names(self) -> list[str]:
        """The files that are there, sorted."""

    def has(self, name: str) -> bool:
        """Whether there is such a file."""

    def read(self, name: str) -> bytes:
        """A whole file."""

    def put(self, contents: Mapping[str, Sequence[memoryview]]) -> int:
        """Write files, each at once in the place of what was there, durable when this returns; the bytes written.

        They appear in this order: whoever sees one sees those before it. One that is left half done by a kill has a
        name that ends in `.tmp`, or none.
        """

    def move_aside(self, name: str, target: str) -> None:
        """Give a file another name."""

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that are not there are fine."""

    def sync(self) -> None:
        """Make what was renamed and removed durable."""

    def close(self) -> None:
        """Let others have it."""
