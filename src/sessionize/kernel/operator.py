"""The seam for operators: what is computed from settled events beside the sessions, and how its state is kept.

An operator gets every settled event once, in the order of rule 1 (docs/spec/sessions.md) and without duplicates, and
says what became final when the watermark moves. Its state is tables that say as data how changes of them add up, so a
checkpoint is written, merged and read without any code of the operator.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from sessionize.kernel.reorder import SettledEvents


@dataclass(frozen=True, slots=True)
class Upsert:
    """Later rows replace earlier ones of the same key; `removed` has the keys of rows that are no longer there.

    key: names of the columns that are one, of plain types. In one delta a key comes once, in rows or in removed.
    """

    key: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Append:
    """Rows are added to the earlier ones, and leave by their time.

    time: the int64 column by which rows leave, None where they stay. until_ms: rows before it have left; None for no
    row. It never falls: the largest of all deltas counts, from the last one that was cleared on. cleared: all rows of
    deltas before this one have left.
    """

    time: str | None = None
    until_ms: int | None = None
    cleared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDelta:
    """What changed in one table of a state. removed: keys, for Upsert; None for no key.

    Rows of later deltas may have columns that earlier ones lack: they are null there.
    """

    rows: pa.Table
    merge: Upsert | Append
    removed: pa.Table | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StateDelta:
    """The difference between two states of an operator.

    header: JSON-able, as of the end; it replaces the one before. tables: by name, the same names in every delta of an
    operator, those that did not change included, each with the same rule and with columns of the same types (a column
    may be missing, or of type null, where it has no value). whole: the difference to nothing, so that whatever was
    before does not count; a new version of an operator whose tables are others than those of the restored state gives
    everything it has in a delta that is whole, once.
    """

    header: dict[str, Any]
    tables: Mapping[str, TableDelta]
    whole: bool = False


class Operator(Protocol):
    """Computes rows of further tables from settled events. Not thread-safe.

    Order of calls: restore at most once and first; then `take` and `advance` or `flush` in turn, `delta` at any moment
    between them. The events of a `take` lie below the watermark of the `advance` that follows it, and not below the one
    before.

    The user column is called `user` in what goes in and comes out; the engine gives it the input's name.

    What comes out may depend on the settled events, the watermarks and the end alone: not on the order in which events
    arrived, nor on how they were cut into batches, nor, but for the moment in which a row comes out, on where the
    watermark stopped on its way. So nothing may be read from the clock, from random numbers or from the order of a set,
    and sums are of whole numbers. A row comes out once: a repetition gives the same rows for the same watermark.

    Errors: none of `take`, `advance`, `flush` and `delta`, whatever the values of the columns are. `restore` raises
    StateError for a state that another definition of the operator made. A delta that does not fit to those before
    (StateDelta) ends the run with StateError, before anything of its epoch is written.
    """

    @property
    def name(self) -> str:
        """What its state is called in a checkpoint: a-z, 0-9 and _, the same for as long as the state is to be kept."""

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """The event columns it needs beside the user and the time: string, int64, float64 or bool.

        Values of another type are converted where that is possible, and null where not, as where there is no such
        column. Asking for a column makes every pending event carry it.
        """

    @property
    def tables(self) -> Sequence[str]:
        """The names of the tables it writes; no other operator has them."""

    @property
    def holds_state(self) -> bool:
        """Whether an `advance` or a `flush` may still give rows without a further event; asked for once an epoch.

        An epoch without records is made for what is held alone: when the watermark moves, and at the end of a run that
        drains. False after a flush; one that stays true makes such an epoch at each of these moments.
        """

    def take(self, events: SettledEvents) -> None:
        """Take in settled events: `events.table(self.columns)`, asked for at once, has `user` and `event_time_ms` too.

        Events that were pending when the operator was new to its pipeline have null in columns nobody had asked for.
        """

    def advance(self, watermark_ms: int) -> Mapping[str, pa.Table]:
        """The watermark has moved: the rows that are final by it, of any of `tables`."""

    def flush(self, end_ms: int | None) -> Mapping[str, pa.Table]:
        """The input is over, and nothing is pending: all rows that are left. end_ms: when it ended, None for no event.

        Afterwards the operator is as new, except that the watermark goes on.
        """

    def delta(self) -> StateDelta:
        """What changed since the last call, since the restore, or since the beginning; costs what changed."""

    def restore(self, state: StateDelta) -> None:
        """Go on from a whole state: the merged deltas of before."""
