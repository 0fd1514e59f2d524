"""Ports of a run that ends: a source that is read once, and a sink that shows all rows or none."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class EventBatch:
    """A piece of input after decoding: what became events, what was rejected, and how far the source has come.

    events: canonical event columns, `user` and `event_time_ms` without nulls. rejected: REJECTED_SCHEMA.
    read_bytes: the share of the source's size_bytes consumed by this batch, for the progress bar. lost: reason -> how
    many records could not be read beside those in `rejected`, where one stands for several. nulled: column -> how many
    events have null in it because their value is of a wrong type.
    local_times: how many times name no zone, and were read as UTC without being told to.
    """

    events: pa.Table
    rejected: pa.Table
    read_bytes: int
    lost: Mapping[str, int] = field(default_factory=dict)
    nulled: Mapping[str, int] = field(default_factory=dict)
    local_times: int = 0

    @property
    def consumed(self) -> int:
        """Records read, good or bad."""
        return int(self.events.num_rows + self.rejected.num_rows) + sum(self.lost.values())


class Source(Protocol):
    """Bounded input, read once from start to end."""

    @property
    def size_bytes(self) -> int | None:
        """How much there is to read, None when unknown."""

    @property
    def event_columns(self) -> frozenset[str]:
        """The canonical columns that every batch of events has."""

    @property
    def user_name(self) -> str:
        """What the input calls the user column."""

    def batches(self) -> Iterator[EventBatch]:
        """Decode the input piece by piece, in its own order."""


class Sink(Protocol):
    """Takes rows; nobody sees any of them before commit, and none of them after abort."""

    def write(self, rows: pa.Table) -> None:
        """Add rows to what the next commit makes visible."""

    def commit(self) -> None:
        """Make everything written visible at once."""

    def abort(self) -> None:
        """Drop what was written since the last commit."""
