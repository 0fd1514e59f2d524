"""What happens in a run, as values, and who observes it: the log, the terminal, metrics and tests get the same events.

An event has one set of fields, from which the log line and the metric are made, so the two cannot disagree. Levels:
DEBUG for progress, INFO for what is expected, WARNING for what recovers or degrades by itself, ERROR where data is at
risk or a person is needed. docs/streams.md lists every event with its fields.
"""

from sessionize.engine.events.base import (
    Event,
    Level,
)
from sessionize.engine.events.observer import (
    UNOBSERVED,
    Handler,
    LogLinesDropped,
    Observer,
    ObserverFailed,
    Observers,
    Unobserved,
)
from sessionize.engine.events.stream import (
    AllRejected,
    CheckpointDamaged,
    CheckpointMergeFailed,
    EpochCommitted,
    MostlyLate,
    PhaseChanged,
    RecordsExpired,
    RowsShortened,
    RowsSkipped,
    ServerRecovered,
    ServerUnavailable,
    SinkBehindState,
    SinkWarning,
    SourceWarning,
    StatusChanged,
    StepReached,
    StreamStarted,
    StreamStopped,
    StreamStopping,
)
from sessionize.engine.events.tables import (
    Failed,
    MaintenanceFailed,
    MaintenanceFinished,
    MaintenanceUnfinished,
    OrphansKept,
    ReconcileFailed,
    ReconcileFinished,
    ReconcileSkipped,
    ReconcileUnfinished,
    TableLayoutChanged,
)

__all__ = [
    "UNOBSERVED",
    "AllRejected",
    "CheckpointDamaged",
    "CheckpointMergeFailed",
    "EpochCommitted",
    "Event",
    "Failed",
    "Handler",
    "Level",
    "LogLinesDropped",
    "MaintenanceFailed",
    "MaintenanceFinished",
    "MaintenanceUnfinished",
    "MostlyLate",
    "Observer",
    "ObserverFailed",
    "Observers",
    "OrphansKept",
    "PhaseChanged",
    "ReconcileFailed",
    "ReconcileFinished",
    "ReconcileSkipped",
    "ReconcileUnfinished",
    "RecordsExpired",
    "RowsShortened",
    "RowsSkipped",
    "ServerRecovered",
    "ServerUnavailable",
    "SinkBehindState",
    "SinkWarning",
    "SourceWarning",
    "StatusChanged",
    "StepReached",
    "StreamStarted",
    "StreamStopped",
    "StreamStopping",
    "TableLayoutChanged",
    "Unobserved",
]
