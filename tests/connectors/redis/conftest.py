"""A server for a whole test process, and for each test a prefix of its own."""

import itertools
from collections.abc import Iterator

import pytest

from sessionize.testing.services.valkey import ValkeyServer

PASSWORD = "only for this test"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer(password=PASSWORD) as server:
        yield server


@pytest.fixture
def prefix() -> str:
    return f"t[e]s*t-{next(_numbers)}:"


@pytest.fixture
def password_env(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SESSIONIZE_TEST_PASSWORD", PASSWORD)
    return "SESSIONIZE_TEST_PASSWORD"
