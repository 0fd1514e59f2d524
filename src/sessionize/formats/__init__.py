"""Formats: NDJSON, CSV, Parquet, Avro and records into canonical event columns; dialects, times, rejected records."""
