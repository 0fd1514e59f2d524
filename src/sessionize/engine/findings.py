"""What is odd about an input that was read without an error: so that a wrong result never comes without a warning.

Findings are counted while the input is read, at almost no cost, and reported once at the end. They are no part of the
accounting: every record has its place there.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.arrow import decoded_type
from sessionize.formats.dialects import Dialect
from sessionize.formats.rejects import preview
from sessionize.ports import EventBatch, StreamBatch
from sessionize.session import columns as col
from sessionize.session.limits import LIKELY_TIME_MS

# What exports write for a missing value: Hive \N, MySQL NULL, pandas nan and <NA>, Python None.
NULL_WORDS = ("NULL", "null", "Null", "\\N", "nan", "NaN", "<NA>", "N/A", "None", "none", "undefined", "(null)")
_LONGEST_WORD = max(map(len, NULL_WORDS))
_TYPES_MAX = 20
_COMPARED_MAX = 20_000
_SHOWN_TYPES = 3
_EXAMPLES_MAX = 5
_OPTIONAL = (col.EVENT_ID, col.EVENT_TYPE, col.PAGE, col.PRODUCT, col.CATEGORY, col.VALUE)


@dataclass(slots=True)
class Findings:
    """events: how many were looked at. early: events before 1990; earliest_ms: the first of them.

    local_times: as in EventBatch. null_users: by word the events whose user is a word for a missing value. mapped: the
    optional columns; filled: those with a value. value_types: event types of events with a value. examples: by reason
    the first rejected record. retried: of the first events (compared) those whose user has one more with their id, at
    another time.
    """

    events: int = 0
    early: int = 0
    earliest_ms: int | None = None
    local_times: int = 0
    null_users: dict[str, int] = field(default_factory=dict)
    mapped: set[str] = field(default_factory=set)
    filled: set[str] = field(default_factory=set)
    value_types: set[str] = field(default_factory=set)
    examples: dict[str, str] = field(default_factory=dict)
    retried: int = 0
    compared: int = 0

    def look_at(self, batch: EventBatch | StreamBatch) -> None:
        """Take in a batch."""
        self.local_times += batch.local_times
        if batch.rejected.num_rows:
            self._keep_examples(batch.rejected)
        events = batch.events
        if not events.num_rows:
            return
        self.events += events.num_rows
        times = events[col.EVENT_TIME].to_numpy()
        first = int(times.min())
        if first < LIKELY_TIME_MS[0]:
            self.early += int(np.count_nonzero(times < LIKELY_TIME_MS[0]))
            self.earliest_ms = first if self.earliest_ms is None else min(first, self.earliest_ms)
        self._count_null_words(events[col.USER])
        self.mapped.update(name for name in _OPTIONAL if name in events.column_names)
        empty = self.mapped - self.filled
        self.filled.update(n for n in empty if n in events.column_names and events[n].null_count < events.num_rows)
        if not self.compared and col.EVENT_ID in self.filled:
            self._compare_ids(events.slice(0, _COMPARED_MAX))
        if {col.VALUE, col.EVENT_TYPE} <= self.filled and len(self.value_types) < _TYPES_MAX:
            types = pc.unique(events[col.EVENT_TYPE].filter(events[col.VALUE].is_valid()))
            self.value_types.update(each for each in types.to_pylist() if each is not None)

    def _compare_ids(self, events: pa.Table) -> None:
        """A retry may come with the same id and another time: then it counts twice (rule 1), which few expect."""
        self.compared = events.num_rows
        keys = pa.table(
            {
                "user": events[col.USER].cast(pa.string()),
                "id": events[col.EVENT_ID].cast(pa.string()),
                "time": events[col.EVENT_TIME],
            }
        ).filter(events[col.EVENT_ID].is_valid())
        times = keys.group_by(["user", "id"]).aggregate([("time", "count_distinct")])["time_count_distinct"]
        self.retried = (pc.sum(times).as_py() or 0) - len(times)

    def _count_null_words(self, users: pa.ChunkedArray) -> None:
        for chunk in users.chunks:
            values = chunk.dictionary if isinstance(chunk, pa.DictionaryArray) else chunk
            if not pa.types.is_string(decoded_type(values.type)):
                continue
            short = pc.less_equal(pc.binary_length(values), _LONGEST_WORD)
            if not pc.any(short).as_py():
                continue
            words = values.filter(short)
            if not pc.any(pc.is_in(words, pa.array(NULL_WORDS))).as_py():
                continue
            found = chunk.filter(pc.is_in(chunk.cast(pa.string()), pa.array(NULL_WORDS))).value_counts()
            for each in found.to_pylist():
                self.null_users[each["values"]] = self.null_users.get(each["values"], 0) + each["counts"]

    def _keep_examples(self, rejected: pa.Table) -> None:
        if len(self.examples) >= _EXAMPLES_MAX:
            return
        for row in rejected.slice(0, 1000).select(["source", "line_number", "reason", "detail"]).to_pylist():
            if row["reason"] not in self.examples and len(self.examples) < _EXAMPLES_MAX:
                self.examples[row["reason"]] = f"{row['source']}, line {row['line_number']:,}: {row['detail']}"

    def empty_columns(self, dialect: Dialect) -> list[str]:
        """The mapped optional columns in which no event has a value, of those that somebody named."""
        if not self.events:
            return []
        named = dialect.columns if dialect.exact else dialect.required
        return [name for name in _OPTIONAL if name in self.mapped - self.filled and name in named]

    def texts(self, conversion_events: Iterable[str], *, repeats_ids: bool = False) -> list[str]:
        """The warnings, a line each. conversion_events: the types that count as conversions. repeats_ids: duplicates
        are found by the id alone.
        """
        lines = []
        if self.early:
            lines.append(
                f"{self.early:,} of {self.events:,} events lie before 1990: seconds among milliseconds, or clocks that "
                "were not set"
            )
        if self.local_times:
            times, are = ("time names", "is") if self.local_times == 1 else ("times name", "are")
            lines.append(
                f"{self.local_times:,} event {times} no time zone and {are} read as UTC; input.time_zone, or "
                "--time-zone (batch, label, explain), says otherwise"
            )
        if self.null_users:
            words = ", ".join(f"'{word}' {count:,}" for word, count in sorted(self.null_users.items()))
            lines.append(
                f"users are called like a missing value: {words}; name them and they are "
                "rejected: input.null_values, or --null-values (batch, label)"
            )
        if self.retried and not repeats_ids:
            lines.append(
                f"{self.retried:,} of the first {self.compared:,} events have the id of another event of their user, "
                "at another time, and count once more; rules.duplicates, or --duplicates id (batch, label), lets "
                "them count once"
            )
        conversions = {each.casefold() for each in conversion_events}
        if self.value_types and not any(each.casefold() in conversions for each in self.value_types):
            shown = ", ".join(map(preview, sorted(self.value_types)[:_SHOWN_TYPES]))
            lines.append(
                f"events have values, but none of their types counts as a conversion ({shown}), so revenue is 0; "
                "set rules.conversion_events, or --conversion-events (batch, label)"
            )
        return lines
