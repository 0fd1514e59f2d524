"""A PostgreSQL server for a whole test process, and for each test a schema of its own."""

import itertools
from collections.abc import Iterator

import pytest

from sessionize.testing.services.postgres import PostgresServer

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def schema() -> str:
    return f"Tést {next(_numbers)}"


@pytest.fixture
def password_env(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SESSIONIZE_TEST_PASSWORD", postgres.password)
    return "SESSIONIZE_TEST_PASSWORD"
