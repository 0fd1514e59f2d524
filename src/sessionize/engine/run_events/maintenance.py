"""Events of the tables: a change of layout, and reconciliation and maintenance beside a stream."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from sessionize.engine.run_events.base import Event, Level
from sessionize.engine.run_events.reports import Reconciled
from sessionize.errors import SessionizeError


@dataclass(frozen=True, slots=True)
class TableLayoutChanged(Event):
    """New files of a table get another layout than those before."""

    name: ClassVar[str] = "table_layout_changed"
    default_level: ClassVar[Level] = "info"
    change: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileFinished(Event):
    """Late events are merged. window_ms: how far back it looked, None for all."""

    name: ClassVar[str] = "reconcile_finished"
    default_level: ClassVar[Level] = "info"
    window_ms: int | None
    result: Reconciled

    def fields(self) -> dict[str, Any]:
        """The numbers of `sessionize reconcile --json`."""
        return {"window_ms": self.window_ms, **self.result.as_dict()}


@dataclass(frozen=True, slots=True)
class ReconcileSkipped(Event):
    """Another process reconciles; reported once until this one takes over."""

    name: ClassVar[str] = "reconcile_skipped"
    default_level: ClassVar[Level] = "info"
    reason: str


@dataclass(frozen=True, slots=True)
class ReconcileUnfinished(Event):
    """The run ended before the reconciliation beside it did."""

    name: ClassVar[str] = "reconcile_unfinished"
    default_level: ClassVar[Level] = "warning"
    problem: str = "the run ends before it does"
    then: str = "the next reconciliation finishes it"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceFinished(Event):
    """A table was maintained. files: that it has now. compacted: small files replaced by compacted_into larger ones."""

    name: ClassVar[str] = "maintenance_finished"
    default_level: ClassVar[Level] = "info"
    table: str
    files: int
    compacted: int
    compacted_into: int
    snapshots_expired: int
    removed_files: int
    removed_bytes: int


@dataclass(frozen=True, slots=True)
class MaintenanceUnfinished(Event):
    """The run ended before the maintenance beside it did."""

    name: ClassVar[str] = "maintenance_unfinished"
    default_level: ClassVar[Level] = "warning"
    problem: str = "the run ends before it does"
    then: str = "the next maintenance finishes it"


@dataclass(frozen=True, slots=True)
class OrphansKept(Event):
    """Maintenance does not remove orphan files of a table, because they may belong to another one."""

    name: ClassVar[str] = "orphans_kept"
    default_level: ClassVar[Level] = "error"
    problem: str


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """Work beside the stream failed with an error; the next time tries again.

    An error that the program foresees is a warning; another one is an error, because waiting may not mend it.
    """

    error: Exception = field(compare=False)

    @property
    def level(self) -> Level:
        """WARNING for errors with a message for people."""
        return "warning" if isinstance(self.error, SessionizeError) else "error"

    def fields(self) -> dict[str, Any]:
        """The parts of the error."""
        error = self.error
        if isinstance(error, SessionizeError):
            return {"problem": error.message, "detail": error.detail, "hint": error.hint}
        return {"problem": f"{type(error).__name__}: {error}", "detail": None, "hint": None}


@dataclass(frozen=True, slots=True)
class ReconcileFailed(Failed):
    """A reconciliation beside the stream failed."""

    name: ClassVar[str] = "reconcile_failed"
    default_level: ClassVar[Level] = "warning"


@dataclass(frozen=True, slots=True)
class MaintenanceFailed(Failed):
    """Maintenance beside the stream failed."""

    name: ClassVar[str] = "maintenance_failed"
    default_level: ClassVar[Level] = "warning"
