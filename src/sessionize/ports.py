"""The sockets: what an engine needs from the outside world, as small Protocols.

A connector fits one of them; an ability that only some have is a Protocol of its own. Rows cross as pyarrow tables:
events with the canonical columns of session/columns.py, sessions of SessionColumns.schema.
"""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sessionize.errors import StateError


@dataclass(frozen=True, slots=True)
class EventBatch:
    """A piece of input after decoding: what became events, what was rejected, and how far the source has come.

    events: canonical event columns, `user` and `event_time_ms` without nulls. rejected: REJECTED_SCHEMA.
    read_bytes: the share of the source's size_bytes consumed by this batch, for the progress bar. lost: reason -> how
    many records could not be read beside those in `rejected`, where one stands for several.
    """

    events: pa.Table
    rejected: pa.Table
    read_bytes: int
    lost: Mapping[str, int] = field(default_factory=dict)

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


# ---- streams: input without end, read in epochs (docs/adr/0009-epochs.md) ----

# Split -> the offset to read next. A split is what a source counts in: a Kafka partition, a followed folder.
Positions = Mapping[str, int]
# Split -> (first offset, offset after the last).
Ranges = Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class StreamBatch:
    """A run of records of one partition, decoded, in the order of their offsets.

    partition: the unit of order, whose times the lateness is measured by. ranges: which offsets the batch covers, by
    split. events, rejected, lost: as in EventBatch.
    """

    partition: str
    ranges: Ranges
    events: pa.Table
    rejected: pa.Table
    lost: Mapping[str, int] = field(default_factory=dict)

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

        Errors: InputError when some of them are gone, unless the source was told to go on without such.
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


class LiveView(Protocol):
    """Shows sessions that are still open. A cache: it may be emptied at any time and is filled again.

    Errors: those of EpochSink.
    """

    def clear(self) -> None:
        """Forget everything shown by this writer: the engine starts over."""

    def update(self, sessions: pa.Table, closed_users: pa.Array, *, now_ms: int) -> None:
        """Open sessions as they stand now, at most one for a user; and the users who have none any more."""

    def close(self) -> None:
        """Release everything; what is shown stays."""


# ---- reading sessions back ----


class ClosedSessionReader(Protocol):
    """Reads sessions that are final, from where a sink keeps them, as they are at that moment.

    Rows have the session columns that are kept, the user column under the input's name for it; a reader may add more.
    Errors: ConfigError where no sessions are kept, or not their start and id; those of EpochSink.
    """

    def sessions_of(self, user: str, *, limit: int) -> pa.Table:
        """A user's sessions, at most `limit` of them, those that began last first; no rows for an unknown user."""

    def recent(self, limit: int) -> pa.Table:
        """The sessions of all users that began last, at most `limit` of them, the latest first."""


class OpenSessionReader(Protocol):
    """Reads sessions that are still open, from a live view. Errors: those of EpochSink."""

    def open_session(self, user: str) -> Mapping[str, Any] | None:
        """A user's open session as it was shown last; None where none is open, or none is shown.

        Column -> value as JSON has it: dates as ISO 8601, events_by_type as {type: count}; end_reason is None.
        shown_at_ms: when it stood so, ms since 1970 UTC. A view may cut long texts and lists short.
        """


class SessionReader(ClosedSessionReader, OpenSessionReader, Protocol):
    """Reads both: what is final, and what is still open."""


# ---- clocks ----


class MovingClock(Protocol):
    """A clock that knows no date."""

    def monotonic_s(self) -> float:
        """Seconds since some moment; only moves forward."""


class Clock(MovingClock, Protocol):
    """The two clocks an engine looks at."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC; may jump."""


# ---- reconciling: late events into sessions that are stored ----

Dates = frozenset[dt.date]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """What has to change for the stored sessions to equal a batch over the events.

    removed: user and session_id, the user called as in `added`. removed_start_ms: int64[n], their starts as stored.
    added: the session columns and `revision`: one more than the highest that was removed from the same run, 0 where
    nothing was. unchanged: sessions that were computed again and came out as stored. waiting: bool, for each cause
    whether its run is not settled and has to be looked at again. incomplete: users whose stored sessions hold more
    than the archived events, so that nothing was touched.
    """

    removed: pa.Table
    removed_start_ms: pa.Array
    added: pa.Table
    unchanged: int
    waiting: npt.NDArray[np.bool_]
    incomplete: int

    @property
    def empty(self) -> bool:
        """Whether nothing has to change."""
        return not self.removed.num_rows and not self.added.num_rows


class Archive(Protocol):
    """Events on time and late ones, and the sessions that are stored of them.

    Rows are asked for by user, the buckets of these users, and the UTC dates of events or session starts (None: all).
    """

    def newest_ms(self) -> int | None:
        """The latest event time; None without events."""

    def drained_before(self, end_ms: int) -> pa.Table:
        """Sessions that ended by `end_of_input` and before this time: user, event_time_ms of their end, and bucket."""

    def late_after(self, sequence: int) -> pa.Table:
        """Late events of commits after this one: user, event_time_ms, event_type, bucket, and `sequence`."""

    def events(
        self, users: pa.Array, buckets: frozenset[int], dates: Dates | None, *, rows_max: int | None
    ) -> pa.Table | None:
        """All events of users, canonical, with the columns that sessions are made of; None for more than rows_max."""

    def sessions(self, users: pa.Array, buckets: frozenset[int], dates: Dates | None) -> pa.Table:
        """The stored sessions of users, with the job's columns and, if there is one, `revision`."""

    def replace(self, replacement: Replacement, *, token: str) -> None:
        """Change the stored sessions, in one commit; nothing when the token is known."""

    def was_committed(self, token: str) -> bool:
        """Whether the replacement with this token took place."""

    def reconciled_position(self) -> int:
        """The commit of late events up to which everything is in the sessions; 0 for none."""

    def save_position(self, sequence: int) -> None:
        """Say so."""


class Replacer(Protocol):
    """A store whose sessions can be replaced. Errors: UnavailableError when the same call may succeed later."""

    def replace(self, removed: pa.Table, added: pa.Table, *, token: str) -> None:
        """Remove the sessions of `removed` (user, session_id) and add the rows of `added` (session columns and
        `revision`), in one step; nothing when the token is known.
        """


@runtime_checkable
class ReplacingSink(EpochSink, Replacer, Protocol):
    """A sink of epochs whose sessions can be replaced, as reconciling does."""


class FollowingStore(Protocol):
    """What keeps late events and rejected records beside the tables. Errors: those of EpochSink."""

    def bring_back(self, rejected: pa.Table, late: pa.Table, *, token: str) -> None:
        """Remove these rejected records and add these late events, once for each token."""
