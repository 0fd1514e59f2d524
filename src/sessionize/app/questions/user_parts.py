"""Events of files, a part of the users at a time: all events of a user in one part, in bounded memory.

It is the batch engine's own way to read and split (engine/batch), so a question sees exactly the events that a run
would.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.app.config.values import parse_size_bytes
from sessionize.app.format_options import DEFAULT_FORMAT, FormatOptions
from sessionize.app.inputs import EventInput, Reading, open_input, warehouse_at
from sessionize.app.options import DEFAULT_RECORDS, RecordOptions
from sessionize.connectors.files.quick_start import without_pandas
from sessionize.engine.accounting import Accounting, Progress
from sessionize.engine.batch.options import BatchOptions
from sessionize.engine.batch.sessions import grouped_by_user
from sessionize.engine.batch.shards import Shards, in_order
from sessionize.engine.nothing_usable import nothing_usable
from sessionize.formats.dialects import Dialect
from sessionize.formats.input_format import InputFormat
from sessionize.session import columns as col
from sessionize.session.durations import parse_duration_ms
from sessionize.session.rules import Rules

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFiles:
    """Which files or tables are asked about, and how they are read: as for `batch`. home: of Iceberg tables."""

    inputs: list[str]
    records: RecordOptions = DEFAULT_RECORDS
    input_format: FormatOptions = DEFAULT_FORMAT
    max_future: str = "24h"
    memory: str = "2GB"
    home: Path | None = None

    def dialect(self) -> Dialect:
        """How the records are read. Errors: ConfigError."""
        return self.records.as_dialect()

    def open(
        self,
        columns: frozenset[str] | None,
        *,
        now_ms: int,
        extras: bool = False,
        dialect: Dialect | None = None,
        input_format: InputFormat | None = None,
    ) -> EventInput:
        """Look at the files; nothing is read yet. columns: the event columns needed, None for all; extras: unmapped
        fields too; dialect, input_format: in place of the options. Errors: ConfigError, InputError.
        """
        dialect, any_time = dialect or self.dialect(), self.max_future.strip().lower() == "none"
        without_pandas()
        how = Reading(
            warehouse=warehouse_at(self.home),
            dialect=dialect,
            input_format=input_format or self.input_format.as_format(),
            columns=None if columns is None else columns & dialect.columns,
            extras=extras,
            max_future_ms=None if any_time else parse_duration_ms(self.max_future, name="--max-future"),
            now_ms=now_ms,
            plain_users=True,
        )
        return open_input(self.inputs, how)

    def options(self) -> BatchOptions:
        """How much memory the events may take. Errors: ConfigError."""
        return BatchOptions(memory_bytes_max=parse_size_bytes(self.memory), dialect=self.dialect())


def read_events(source: EventInput, accounting: Accounting, progress: Progress) -> Iterator[pa.Table]:
    """The events of a source, counted."""
    for batch in source.batches():
        accounting.count_batch(batch, None)
        progress("read", batch.read_bytes, accounting)
        if batch.events.num_rows:
            latest = pc.max(batch.events[col.EVENT_TIME]).as_py()
            accounting.latest_ms = latest if accounting.latest_ms is None else max(latest, accounting.latest_ms)
            yield batch.events


def of_each_part(
    work: Callable[[pa.Table], Result], tables: Iterable[pa.Table], options: BatchOptions, accounting: Accounting
) -> Iterator[Result]:
    """The result of each part of the users, in a fixed order. All tables are read before the first one."""
    for held in grouped_by_user(tables, options, accounting):
        shards = Shards(held)

        def of_part(number: int, shards: Shards = shards) -> Result:
            return work(shards.part(number))

        yield from in_order(of_part, range(len(shards)))


def users_and_times(events: pa.Table, rules: Rules) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """The number of the user and the time of each event of a part that counts by the rules."""
    if not events.num_rows:
        return np.zeros(0, np.int32), np.zeros(0, np.int64)
    user = events[col.USER].combine_chunks().indices.to_numpy()
    time = events[col.EVENT_TIME].to_numpy()
    if not rules.excluded_events:
        return user, time
    drop = rules.flags(events, conversions=False).drop
    return (user, time) if drop is None else (user[~drop], time[~drop])


def check_usable(accounting: Accounting, dialect: Dialect) -> None:
    """Errors: InputError when every record was rejected: a wrong field name or dialect, not an answer."""
    if accounting.consumed and accounting.consumed == accounting.rejected:
        raise nothing_usable(
            accounting.rejected,
            accounting.rejected_by_reason,
            "`sessionize batch` with --rejects FILE (batch, label) keeps them with what is wrong",
            accounting.absent_fields(dialect),
        )
