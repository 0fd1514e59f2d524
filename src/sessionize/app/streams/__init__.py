"""Streams: a pipeline file to an engine that runs, with what runs beside it and what it logs."""
