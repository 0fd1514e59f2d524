"""Sessions printed for people who look on."""

from sessionize.connectors.console.epoch_sink import ConsoleSink

__all__ = ["ConsoleSink"]
