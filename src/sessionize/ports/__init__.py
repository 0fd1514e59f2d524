"""Ports: what an engine needs from the outside world, as small Protocols.

A connector fits one of them; an ability that only some have is a Protocol of its own. Rows cross as pyarrow tables:
events with the canonical columns of session/columns.py, sessions of SessionColumns.schema.
"""

from sessionize.ports.batch import EventBatch, Sink, Source
from sessionize.ports.clocks import Clock, MovingClock
from sessionize.ports.reconcile import Archive, Dates, FollowingStore, Replacement, Replacer, ReplacingSink
from sessionize.ports.stream import (
    EpochId,
    EpochOutput,
    EpochSink,
    Positions,
    Ranges,
    StateFolder,
    StreamBatch,
    StreamSource,
)
from sessionize.ports.views import ClosedSessionReader, LiveView, OpenSessionReader, SessionReader

__all__ = [
    "Archive",
    "Clock",
    "ClosedSessionReader",
    "Dates",
    "EpochId",
    "EpochOutput",
    "EpochSink",
    "EventBatch",
    "FollowingStore",
    "LiveView",
    "MovingClock",
    "OpenSessionReader",
    "Positions",
    "Ranges",
    "Replacement",
    "Replacer",
    "ReplacingSink",
    "SessionReader",
    "Sink",
    "Source",
    "StateFolder",
    "StreamBatch",
    "StreamSource",
]
