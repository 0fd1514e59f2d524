"""What an engine tells about itself: how things stand now, and what each epoch came to."""

from dataclasses import dataclass, field, replace
from typing import Any

from sessionize.engine.accounting import Accounting
from sessionize.ports import EpochId, EpochRows

ALL_REJECTED_MIN = 10  # that so many records, and not one of them usable, are hardly an accident
MOSTLY_LATE_MIN = 10  # the same for late events


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """A committed epoch.

    consumed, sessions, late, rejected: rows of this epoch. seconds: from its first poll until its final sessions
    are made; write_s: for sinks and checkpoint. behind: records left to read, None when unknown. totals: the books over
    all epochs. reasons: why records of this epoch were rejected, and how many for each.
    """

    epoch: int
    plan: str
    consumed: int
    sessions: int
    late: int
    rejected: int
    seconds: float
    write_s: float
    watermark_ms: int | None
    open_sessions: int
    lag: int | None
    accounting: Accounting
    reasons: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        epoch: EpochId,
        rows: EpochRows,
        *,
        consumed: int,
        seconds: float,
        open_sessions: int,
        lag: int | None,
        accounting: Accounting,
        reasons: dict[str, int],
    ) -> "EpochReport":
        """The report of an epoch whose rows are on their way to the sinks."""
        return cls(
            epoch=epoch.number,
            plan=epoch.plan,
            consumed=consumed,
            sessions=rows.sessions.num_rows,
            late=rows.late.num_rows,
            rejected=sum(reasons.values()),
            seconds=seconds,
            write_s=0.0,
            watermark_ms=rows.watermark_ms,
            open_sessions=open_sessions,
            lag=lag,
            accounting=replace(accounting, rejected_by_reason=dict(accounting.rejected_by_reason)),
            reasons=reasons,
        )

    @property
    def mostly_late(self) -> bool:
        """Whether more than half of the events that could be used are late: a clock or a lateness that is wrong."""
        return self.late >= MOSTLY_LATE_MIN and 2 * self.late > self.consumed - self.rejected

    @property
    def all_rejected(self) -> bool:
        """Whether there were records enough to tell, and every one was rejected: a wrong dialect, most likely."""
        return self.consumed >= ALL_REJECTED_MIN and self.rejected == self.consumed

    def as_log(self) -> dict[str, Any]:
        """The fields of the line that is logged for an epoch."""
        books = self.accounting
        return {
            "epoch": self.epoch,
            "plan": self.plan,
            "numInputRows": self.consumed,
            "inputRowsPerSecond": round(self.consumed / self.seconds, 1),
            "processingTime": round(self.seconds + self.write_s, 3),
            "writeTime": round(self.write_s, 3),
            "sessions": self.sessions,
            "late": self.late,
            "rejected": self.rejected,
            "openSessions": self.open_sessions,
            "watermark_ms": self.watermark_ms,
            "behind": self.lag,
            "totals": {
                "consumed": books.consumed,
                "settled": books.settled,
                "pending": books.pending,
                "late": books.late,
                "duplicate": books.duplicate,
                "excluded": books.excluded,
                "rejected": books.rejected,
            },
            "balanced": books.balanced,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How things stand. rate: records a second in this epoch. behind: records left to read, None when unknown, as
    while the source is unavailable. sessions: final ones, over all epochs. away: servers that do not answer, and what
    they said. doing: what is going on when no records are read any more. unfit: rows that were larger than their topic
    takes, and went out shortened, or not at all.
    """

    consumed: int = 0
    rate: float = 0.0
    lag: int | None = None
    watermark_ms: int | None = None
    open_sessions: int = 0
    sessions: int = 0
    pending: int = 0
    late: int = 0
    rejected: int = 0
    unavailable: dict[str, str] = field(default_factory=dict)
    phase: str | None = None
    unfit: tuple[int, int] = (0, 0)
    last_epoch: EpochReport | None = None
