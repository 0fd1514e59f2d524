"""Decodes NDJSON, CSV, Parquet and Avro into canonical event columns; dialects, times, rejected records."""
