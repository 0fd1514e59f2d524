"""The record accounting of a run: what became of every record, and how progress is reported."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sessionize.engine.findings import Findings
from sessionize.formats.absent_fields import AbsentFields, absent_fields
from sessionize.formats.dialects import Dialect
from sessionize.formats.rejects import MISSING_TIME, MISSING_USER
from sessionize.kernel.sessionizer import Sessionizer
from sessionize.ports import EventBatch, Sink, StreamBatch

_WITHOUT = (MISSING_USER, MISSING_TIME)
_FIRST_MAX = 20
_NOT_COUNTS = ("first_without", "findings")


@dataclass(slots=True)
class Accounting:
    """Records by what became of them: consumed = settled + pending + late + duplicate + excluded + rejected.

    settled: in sessions. rejected_by_reason sums to rejected. sessions: session rows written. short_sessions: sessions
    that were too short to be written. spilled: events that were written to disk and read again. latest_ms: the latest
    event time. nulled: by column the events that have null there because their value is of a wrong type. first_without:
    the bytes of the first records without a user or a time, by which a wrong field name is recognised.
    """

    consumed: int = 0
    settled: int = 0
    pending: int = 0
    late: int = 0
    duplicate: int = 0
    excluded: int = 0
    rejected: int = 0
    sessions: int = 0
    short_sessions: int = 0
    spilled: int = 0
    latest_ms: int | None = None
    rejected_by_reason: dict[str, int] = field(default_factory=dict)
    nulled: dict[str, int] = field(default_factory=dict)
    first_without: list[bytes] = field(default_factory=list, repr=False, compare=False)
    findings: Findings = field(default_factory=Findings, repr=False, compare=False)

    @property
    def balanced(self) -> bool:
        """Whether every record is accounted for exactly once."""
        parts = self.settled + self.pending + self.late + self.duplicate + self.excluded + self.rejected
        return self.consumed == parts

    @property
    def mostly_late(self) -> bool:
        """Whether more than half of the usable events are late."""
        return 2 * self.late > self.consumed - self.rejected

    def count_batch(self, batch: EventBatch | StreamBatch, rejects: Sink | None) -> None:
        """Count a batch as consumed and its rejected records as rejected, and write these to their sink."""
        self.consumed += batch.consumed
        for reason, count in rejected_by_reason(batch).items():
            self.rejected += count
            self.rejected_by_reason[reason] = self.rejected_by_reason.get(reason, 0) + count
        for column, count in batch.nulled.items():
            self.nulled[column] = self.nulled.get(column, 0) + count
        self.findings.look_at(batch)
        if batch.rejected.num_rows:
            self._keep_first(batch.rejected)
            if rejects is not None:
                rejects.write(batch.rejected)

    def absent_fields(self, dialect: Dialect) -> AbsentFields | None:
        """What is wrong with the mapping; None unless most records have no user or no time."""
        without = sum(self.rejected_by_reason.get(reason, 0) for reason in _WITHOUT)
        return absent_fields(dialect, self.first_without) if 2 * without > self.consumed else None

    def _keep_first(self, rejected: pa.Table) -> None:
        room = _FIRST_MAX - len(self.first_without)
        if room > 0:
            mine = rejected.filter(pc.is_in(rejected["reason"], pa.array(_WITHOUT))).slice(0, room)
            self.first_without += [raw for raw in mine["raw"].to_pylist() if raw is not None]

    def add_counts(self, sessionizer: Sessionizer) -> None:
        """Count what became of all events that were pushed into one Sessionizer."""
        counts = sessionizer.counts
        self.settled, self.pending = counts.settled, counts.pending
        self.duplicate, self.excluded = counts.duplicate, counts.excluded
        self.short_sessions = counts.short_sessions

    def as_dict(self) -> dict[str, Any]:
        """The totals by name."""
        return {name: value for name, value in asdict(self).items() if name not in _NOT_COUNTS}


def rejected_by_reason(batch: EventBatch | StreamBatch) -> Counter[str]:
    """The number of rejected records of a batch, by reason."""
    counts = Counter(batch.lost)
    if batch.rejected.num_rows:
        counts.update({r["values"]: r["counts"] for r in batch.rejected["reason"].value_counts().to_pylist()})
    return counts


# Gets the phase ("read", "write" or "commit"), how much of it was just done (bytes, events, 0), and the counts so far.
Progress = Callable[[str, int, Accounting], None]


def ignore(phase: str, done: int, accounting: Accounting) -> None:
    """The Progress that does nothing."""
