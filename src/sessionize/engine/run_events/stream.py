"""Events of a stream: of its run, its epochs, its servers, its state, its source and its sinks."""

from dataclasses import dataclass
from typing import Any, ClassVar

from sessionize.engine.accounting import Accounting
from sessionize.engine.run_events.base import Event, Level
from sessionize.engine.run_events.reports import EpochReport, Status
from sessionize.errors import UnavailableError

# ---- the run ----


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStarted(Event):
    """The parts of a stream are open, and it begins or resumes. writer: under which name its epochs are recorded."""

    name: ClassVar[str] = "stream_started"
    default_level: ClassVar[Level] = "info"
    writer: str
    input: str
    output: str
    dialect: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStopping(Event):
    """A signal asks the run to stop."""

    name: ClassVar[str] = "stream_stopping"
    default_level: ClassVar[Level] = "info"
    then: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStopped(Event):
    """The run ended and everything has closed, without an error.

    accounting: None when it was stopped before it read anything, as `reason` says.
    rules: the rules of the sessions with their units. log_lines_dropped: lines of the log that could not be written.
    """

    name: ClassVar[str] = "stream_stopped"
    default_level: ClassVar[Level] = "info"
    accounting: Accounting | None = None
    watermark_ms: int | None = None
    output: str | None = None
    rules: str | None = None
    reason: str | None = None
    log_lines_dropped: int = 0

    def fields(self) -> dict[str, Any]:
        """The accounting by name, and whether it is balanced."""
        accounting = self.accounting
        return {
            "accounting": None if accounting is None else accounting.as_dict(),
            "balanced": None if accounting is None else accounting.balanced,
            "watermark_ms": self.watermark_ms,
            "output": self.output,
            "rules": self.rules,
            "reason": self.reason,
            "log_lines_dropped": self.log_lines_dropped,
        }


@dataclass(frozen=True, slots=True)
class StepReached(Event):
    """A step of an epoch is about to begin, on the thread that does it.

    step: `recover`, `repeat`, `plan`, `planned`, `write <sink>`, `commit` or `committed`.
    """

    name: ClassVar[str] = "step_reached"
    default_level: ClassVar[Level] = "debug"
    step: str


@dataclass(frozen=True, slots=True)
class PhaseChanged(Event):
    """The run works on something besides its records; None: no more."""

    name: ClassVar[str] = "phase_changed"
    default_level: ClassVar[Level] = "debug"
    phase: str | None


@dataclass(frozen=True, slots=True)
class StatusChanged(Event):
    """How the run stands now; comes some times a second. Totals are over all epochs."""

    name: ClassVar[str] = "status_changed"
    default_level: ClassVar[Level] = "debug"
    status: Status

    def fields(self) -> dict[str, Any]:
        """The numbers of the status line."""
        now = self.status
        shortened, skipped = now.unfit
        return {
            "input_rows_total": now.consumed,
            "input_rows_per_s": round(now.rate, 1),
            "lag_records": now.lag,
            "watermark_ms": now.watermark_ms,
            "pending_rows": now.pending,
            "open_sessions": now.open_sessions,
            "sessions_total": now.sessions,
            "late_rows_total": now.late,
            "rejected_rows_total": now.rejected,
            "rows_shortened_total": shortened,
            "rows_skipped_total": skipped,
            "unavailable": dict(now.unavailable),
            "phase": now.phase,
        }


# ---- epochs ----


@dataclass(frozen=True, slots=True)
class EpochCommitted(Event):
    """Every sink and the checkpoint have the epoch."""

    name: ClassVar[str] = "epoch_committed"
    default_level: ClassVar[Level] = "info"
    report: EpochReport

    def fields(self) -> dict[str, Any]:
        """Rows are those of this epoch; `accounting` is over all epochs."""
        report = self.report
        rows_per_s, processing_s = round(report.consumed / report.seconds, 1), round(report.seconds + report.write_s, 3)
        return {
            "epoch": report.epoch,
            "plan": report.plan,
            "input_rows": report.consumed,
            "input_rows_per_s": rows_per_s,
            "processing_s": processing_s,
            "write_s": round(report.write_s, 3),
            "sessions": report.sessions,
            "late_rows": report.late,
            "rejected_rows": report.rejected,
            "open_sessions": report.open_sessions,
            "watermark_ms": report.watermark_ms,
            "lag_records": report.lag,
            "accounting": {name: getattr(report.accounting, name) for name in _ACCOUNTING},
            "balanced": report.accounting.balanced,
            "inputRowsPerSecond": rows_per_s,  # these two are what operators of Spark's progress lines grep for
            "processingTime": processing_s,
        }


_ACCOUNTING = ("consumed", "settled", "pending", "late", "duplicate", "excluded", "rejected")


@dataclass(frozen=True, slots=True, kw_only=True)
class AllRejected(Event):
    """No record of an epoch could be used. reason: the most frequent one."""

    name: ClassVar[str] = "all_rejected"
    default_level: ClassVar[Level] = "error"
    epoch: int
    rejected_rows: int
    reason: str | None
    dialect: str | None
    hint: str = "is it the right dialect, or are the fields named right? `sessionize rejected` shows the records"


@dataclass(frozen=True, slots=True, kw_only=True)
class MostlyLate(Event):
    """More than half of the usable events of an epoch are late."""

    name: ClassVar[str] = "mostly_late"
    default_level: ClassVar[Level] = "warning"
    epoch: int
    late_rows: int
    input_rows: int
    watermark_ms: int | None
    hint: str = (
        "are the clocks of the senders right, is rules.lateness long enough, or is this a backfill? late events are "
        "kept in late_events, and `sessionize reconcile` merges them into the sessions"
    )


# ---- servers ----


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerUnavailable(Event):
    """A server does not answer, or cannot be used now. problem: what it said.

    The engine reports it for each try that fails; observers of open_stream get it once until the server recovers.
    """

    name: ClassVar[str] = "server_unavailable"
    default_level: ClassVar[Level] = "warning"
    server: str
    problem: str
    then: str = "retrying"

    @classmethod
    def of(cls, server: str, error: UnavailableError) -> "ServerUnavailable":
        """The event of an error, with its detail."""
        detail = "" if error.detail is None else f" ({error.detail})"
        return cls(server=server, problem=f"{error.message}{detail}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRecovered(Event):
    """A server that was unavailable answers again."""

    name: ClassVar[str] = "server_recovered"
    default_level: ClassVar[Level] = "info"
    server: str


# ---- the state ----


@dataclass(frozen=True, slots=True)
class CheckpointDamaged(Event):
    """A file of the state fails its check. What it holds comes from its second copy or from the chain before it."""

    name: ClassVar[str] = "checkpoint_damaged"
    default_level: ClassVar[Level] = "warning"
    problem: str


@dataclass(frozen=True, slots=True)
class CheckpointMergeFailed(Event):
    """Deltas could not be merged into a base; the next merge tries again."""

    name: ClassVar[str] = "checkpoint_merge_failed"
    default_level: ClassVar[Level] = "warning"
    problem: str


@dataclass(frozen=True, slots=True)
class SinkBehindState(Event):
    """A sink has nothing of this writer yet, though the state has epochs: it gets only what comes from now on."""

    name: ClassVar[str] = "sink_behind_state"
    default_level: ClassVar[Level] = "warning"
    problem: str


@dataclass(frozen=True, slots=True)
class OperatorDropped(Event):
    """The state has an operator that the run has not: what it had not written yet is lost (docs/adr/0014)."""

    name: ClassVar[str] = "operator_dropped"
    default_level: ClassVar[Level] = "warning"
    operator: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsExpired(Event):
    """The source no longer has records of an epoch that is repeated; it is planned again without them."""

    name: ClassVar[str] = "records_expired"
    default_level: ClassVar[Level] = "error"
    epoch: int
    problem: str


# ---- sources and sinks ----


@dataclass(frozen=True, slots=True)
class SourceWarning(Event):
    """A source warns: expired records, a file that changed after it was read."""

    name: ClassVar[str] = "source_warning"
    default_level: ClassVar[Level] = "warning"
    problem: str


@dataclass(frozen=True, slots=True)
class SinkWarning(Event):
    """A sink warns: a topic that was created again lacks earlier epochs."""

    name: ClassVar[str] = "sink_warning"
    default_level: ClassVar[Level] = "warning"
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsShortened(Event):
    """Rows of an epoch were larger than their topic accepts, and were sent without their lists.

    limit_bytes: what the topic accepts. largest: the largest rows, each with key, session and size_bytes.
    """

    name: ClassVar[str] = "rows_shortened"
    default_level: ClassVar[Level] = "warning"
    topic: str
    rows: int
    limit_bytes: int | None
    largest: list[dict[str, Any]]
    hint: str = "the tables and stores have the whole rows; raise max.message.bytes of the topic for those to come"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsSkipped(Event):
    """The same where the rows were too large without their lists too: the topic does not have them."""

    name: ClassVar[str] = "rows_skipped"
    default_level: ClassVar[Level] = "error"
    topic: str
    rows: int
    limit_bytes: int | None
    largest: list[dict[str, Any]]
    hint: str = "the tables and stores have the whole rows; raise max.message.bytes of the topic for those to come"
