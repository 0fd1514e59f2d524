"""What a run reports: how it stands, the result of an epoch, the result of a reconciliation."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sessionize.engine.accounting import Accounting
from sessionize.ports import EpochId, EpochOutput
from sessionize.session.output_tables import LATE_EVENTS, SESSIONS

ALL_REJECTED_MIN = 10  # fewer rejected records may be an accident
MOSTLY_LATE_MIN = 10  # the same for late events


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """A committed epoch.

    consumed, sessions, late, rejected: rows of this epoch. seconds: from its first poll until its final sessions
    are made. write_s: for sinks and checkpoint. lag: records left to read, None when unknown. accounting: over all
    epochs. reasons: why records of this epoch were rejected, and how many for each reason.
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
        output: EpochOutput,
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
            sessions=output.count(SESSIONS.name),
            late=output.count(LATE_EVENTS.name),
            rejected=sum(reasons.values()),
            seconds=seconds,
            write_s=0.0,
            watermark_ms=output.watermark_ms,
            open_sessions=open_sessions,
            lag=lag,
            accounting=replace(accounting, rejected_by_reason=dict(accounting.rejected_by_reason)),
            reasons=reasons,
        )

    @property
    def mostly_late(self) -> bool:
        """Whether more than half of the usable events are late: a clock is wrong, or the lateness."""
        return self.late >= MOSTLY_LATE_MIN and 2 * self.late > self.consumed - self.rejected

    @property
    def all_rejected(self) -> bool:
        """Whether every record was rejected, and there were enough of them: probably the dialect is wrong."""
        return self.consumed >= ALL_REJECTED_MIN and self.rejected == self.consumed


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How a run stands now.

    rate: records a second in this epoch. lag: records left to read, None when unknown, as while the source is
    unavailable. sessions: final ones, over all epochs. unavailable: servers that do not answer, and what they said.
    phase: what the run works on besides its records. unfit: rows that were larger than their topic accepts, and were
    sent shortened, or skipped.
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


@dataclass(slots=True)
class Reconciled:
    """What a reconciliation examined and did; with dry_run: what it would do.

    late_events: examined. users: whose sessions were computed again. replaced: stored sessions that were removed;
    added: sessions in their place. unchanged: computed again and equal. waiting: late events whose sessions are not
    final yet, or whose users' archive is incomplete. commits: snapshots made. horizon_ms: sessions below it are final,
    None: all are. stopped: it was asked to end before all users were examined.
    """

    dry_run: bool = False
    late_events: int = 0
    users: int = 0
    replaced: int = 0
    added: int = 0
    unchanged: int = 0
    waiting: int = 0
    incomplete_users: int = 0
    commits: int = 0
    horizon_ms: int | None = None
    stopped: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The numbers by name."""
        return asdict(self)
