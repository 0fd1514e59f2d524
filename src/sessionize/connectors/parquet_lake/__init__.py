"""A lake of Parquet files: events by date, in files that any tool can read."""

from sessionize.connectors.parquet_lake.epoch_sink import ParquetLakeSink
from sessionize.connectors.parquet_lake.records import EPOCHS_FOLDER

__all__ = ["EPOCHS_FOLDER", "ParquetLakeSink"]
