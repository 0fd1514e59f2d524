"""What an engine tells about itself: how things stand now, and what each epoch came to."""

from dataclasses import dataclass, field
from typing import Any

from sessionize.engine.totals import Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """A committed epoch.

    consumed, sessions, late, rejected: rows of this epoch. seconds: from its first poll to its plan; advance_s: for
    making sessions final; write_s: for sinks and checkpoint. behind: records left to read, None when unknown. totals:
    the books over all epochs.
    """

    epoch: int
    plan: str
    consumed: int
    sessions: int
    late: int
    rejected: int
    seconds: float
    advance_s: float
    write_s: float
    watermark_ms: int | None
    open_sessions: int
    behind: int | None
    totals: Totals

    def as_log(self) -> dict[str, Any]:
        """The fields of the line that is logged for an epoch."""
        books = self.totals
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
            "behind": self.behind,
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
    """How things stand. rate: records a second in this epoch. away: servers that do not answer, and what they said."""

    consumed: int = 0
    rate: float = 0.0
    behind: int | None = None
    watermark_ms: int | None = None
    open_sessions: int = 0
    pending: int = 0
    late: int = 0
    rejected: int = 0
    away: dict[str, str] = field(default_factory=dict)
    last_epoch: EpochReport | None = None
