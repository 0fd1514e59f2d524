"""pytest fixtures for the servers; a conftest imports the ones it needs.

If a server is not available on this machine, the tests that need it are skipped with the reason.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sessionize.testing.services.java_parts import ServiceMissing
from sessionize.testing.services.shared_broker import shared_broker

if TYPE_CHECKING:
    from sessionize.testing.services.kafka import KafkaBroker, KafkaServers
    from sessionize.testing.services.postgres import PostgresServer
    from sessionize.testing.services.rest_catalog import RestCatalogServer
    from sessionize.testing.services.valkey import ValkeyServer


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[KafkaServers]":
    """A broker shared by all tests and workers of a run: use your own topics, and do not stop it."""
    from sessionize.testing.services.kafka import KafkaServers

    own = tmp_path_factory.getbasetemp()
    # Under xdist each worker has its own folder inside that of the run.
    run = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    try:
        with shared_broker(run / "kafka") as servers:
            yield KafkaServers(servers)
    except ServiceMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def own_kafka(tmp_path: Path) -> "Iterator[Callable[[], KafkaBroker]]":
    """Starts brokers for one test, which may stop, kill and restart them."""
    from sessionize.testing.services.kafka import KafkaBroker

    with ExitStack() as running:

        def start() -> KafkaBroker:
            try:
                broker = KafkaBroker(tmp_path / f"kafka-{len(os.listdir(tmp_path))}")
            except ServiceMissing as missing:
                pytest.skip(str(missing))
            return running.enter_context(broker)

        yield start


@pytest.fixture(scope="module")
def rest_catalog(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[RestCatalogServer]":
    """An Iceberg REST catalog for the tests of a module."""
    from sessionize.testing.services.rest_catalog import RestCatalogServer

    try:
        server = RestCatalogServer(tmp_path_factory.mktemp("rest-catalog"))
    except ServiceMissing as missing:
        pytest.skip(str(missing))
    with server:
        yield server


@pytest.fixture(scope="module")
def postgres() -> "Iterator[PostgresServer]":
    """A PostgreSQL server for the tests of a module, which may stop and start it."""
    from sessionize.testing.services.postgres import PostgresServer

    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="module")
def valkey() -> "Iterator[ValkeyServer]":
    """A Redis-compatible server for the tests of a module, which may stop and start it."""
    from sessionize.testing.services.valkey import ValkeyServer

    with ValkeyServer() as server:
        yield server
