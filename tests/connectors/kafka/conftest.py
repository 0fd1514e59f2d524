"""A topic of the test's own."""

import uuid

import pytest

from sessionize.testing.services.kafka import KafkaServers


@pytest.fixture
def topic(kafka: KafkaServers) -> str:
    return kafka.create_topic(f"t-{uuid.uuid4().hex[:12]}")
