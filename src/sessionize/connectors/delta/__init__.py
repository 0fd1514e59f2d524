"""Delta tables as input of a run: one version, read by deltalake."""

from sessionize.connectors.delta.source import DeltaSnapshot

__all__ = ["DeltaSnapshot"]
