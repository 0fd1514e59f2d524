"""What is kept in this process alone: open sessions, for readers within it."""

from sessionize.connectors.memory.live_view import MemoryLiveView

__all__ = ["MemoryLiveView"]
