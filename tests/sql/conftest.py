"""The databases that the queries are run in, each started once."""

from collections.abc import Iterator

import pytest

from sessionize.testing.services.postgres import PostgresServer
from tests.sql.engines import PYTHON, ClickHouse, DuckDB, Engine, Postgres


@pytest.fixture(scope="session")
def duckdb_engine() -> Iterator[DuckDB]:
    found = DuckDB()
    yield found
    found.connection.close()


@pytest.fixture(scope="session")
def postgres_engine() -> Iterator[Postgres]:
    with PostgresServer() as server:
        found = Postgres(server)
        yield found
        found.connection.close()


@pytest.fixture(scope="session")
def clickhouse_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    if not PYTHON.exists():
        pytest.skip("there is no ClickHouse; `scripts/setup sql` installs it")
    found = ClickHouse(tmp_path_factory.mktemp("clickhouse"))
    yield found
    found.close()


@pytest.fixture(params=["duckdb", "postgres", "clickhouse"])
def engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.getfixturevalue(f"{request.param}_engine")
    return found
