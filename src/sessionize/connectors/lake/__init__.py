"""A lake of Parquet files: events by date, in files that any tool can read."""

from sessionize.connectors.lake.records import EPOCHS_FOLDER
from sessionize.connectors.lake.sink import ParquetLakeSink

__all__ = ["EPOCHS_FOLDER", "ParquetLakeSink"]
