"""Sessions as JSON lines on the terminal."""

from sessionize.connectors.console.epoch_sink import ConsoleSink

__all__ = ["ConsoleSink"]
