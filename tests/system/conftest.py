"""The servers that whole pipelines run against."""

from sessionize.testing.services.fixtures import kafka, own_kafka

__all__ = ["kafka", "own_kafka"]
