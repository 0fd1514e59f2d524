"""Sessions printed for people who look on."""

from sessionize.connectors.console.sink import ConsoleSink

__all__ = ["ConsoleSink"]
