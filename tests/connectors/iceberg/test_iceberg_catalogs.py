import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sessionize.connectors.iceberg import (
    CatalogSettings,
    IcebergEpochSink,
    SqlCatalog,
    load_table,
    open_catalog,
    readable,
    table_names,
)
from sessionize.errors import ConfigError, OutputError, UnavailableError
from sessionize.testing.epoch_sinks import epoch_id, epoch_rows
from sessionize.testing.services.object_store import ObjectStoreServer
from sessionize.testing.services.postgres import PostgresServer
from sessionize.testing.services.rest_catalog import RestCatalogServer

SECRET = "not-to-be-shown"


def write_and_read(home: Path, settings: CatalogSettings) -> None:
    """Two epochs, each given twice, by sinks of two catalogs; every row is there once."""
    for number in (1, 2):
        sink = IcebergEpochSink(open_catalog(home, settings=settings))
        for _ in range(2):
            sink.write_epoch(epoch_id(number), epoch_rows(number))
    catalog = open_catalog(home, settings=settings)
    assert table_names(catalog, "sessions") == ["events", "late_events", "rejected_events", "user_sessions"]
    for table in ("user_sessions", "events", "late_events"):
        rows = load_table(catalog, "sessions", table).scan().to_arrow().to_pylist()
        times = sorted(row.get("session_start_time_ms") or row["event_time_ms"] for row in rows)
        expected = [row for n in (1, 2) for row in epoch_rows(n).tables[table].to_pylist()]
        assert times == sorted(row.get("session_start_time_ms") or row["event_time_ms"] for row in expected), table


# ---- PostgreSQL ----


def postgres_settings(server: PostgresServer, **options: str) -> CatalogSettings:
    return CatalogSettings(
        kind="postgres", uri=f"postgresql://sessionize@127.0.0.1:{server.port}/postgres", options=options
    )


def test_a_catalog_in_postgres(postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_PASSWORD", postgres.password)
    settings = postgres_settings(postgres, **{"password-env": "CATALOG_PASSWORD"})
    write_and_read(tmp_path, settings)

    catalog = open_catalog(tmp_path, settings=settings)
    table = load_table(catalog, "sessions", "events")
    assert postgres.password not in repr(catalog.properties) + repr(table.io.properties)


def test_a_wrong_password_is_refused_and_not_shown(postgres: PostgresServer, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    settings = postgres_settings(postgres, **{"password-file": str(tmp_path / "secret")})

    with pytest.raises(OutputError, match="cannot be opened") as caught:
        open_catalog(tmp_path, settings=settings)
    assert SECRET not in str(caught.value) + str(caught.value.__cause__)


def test_a_postgres_that_stops_is_an_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessionize.connectors.iceberg.commits._WAIT_MAX_S", 0.0)
    with PostgresServer() as server:
        monkeypatch.setenv("PGPASSWORD", server.password)
        settings = postgres_settings(server)
        sink = IcebergEpochSink(open_catalog(tmp_path, settings=settings))
        sink.write_epoch(epoch_id(1), epoch_rows(1))
        server.stop()
        with pytest.raises(UnavailableError):
            sink.write_epoch(epoch_id(2), epoch_rows(2))
        with pytest.raises(UnavailableError):
            open_catalog(tmp_path, settings=settings)
        server.start()
        sink.write_epoch(epoch_id(2), epoch_rows(2))
        events = load_table(open_catalog(tmp_path, settings=settings), "sessions", "events")
        assert events.scan().to_arrow().num_rows == 4


# ---- object store ----


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Options for a store on loopback with a bucket `lake`."""
    monkeypatch.setenv("STORE_KEY", SECRET)
    with ObjectStoreServer() as server:
        yield server.options


def test_a_warehouse_in_an_object_store(s3: dict[str, str], tmp_path: Path) -> None:
    settings = CatalogSettings(warehouse="s3://lake/house", options=s3)
    write_and_read(tmp_path, settings)

    table = load_table(open_catalog(tmp_path, settings=settings), "sessions", "user_sessions")
    assert table.location().startswith("s3://lake/house/")
    assert not list(tmp_path.rglob("*.parquet"))
    assert readable(table).data.count_rows() == 4


def test_an_object_store_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_KEY", SECRET)
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        options = {
            "s3.endpoint": f"http://127.0.0.1:{taken.getsockname()[1]}",
            "s3.region": "us-east-1",
            "s3.access-key-id": "someone",
            "s3.secret-access-key-env": "STORE_KEY",
            "s3.connect-timeout": "1",
        }
        catalog = open_catalog(tmp_path, settings=CatalogSettings(warehouse="s3://lake/house", options=options))
        with pytest.raises(UnavailableError, match="cannot be made") as caught:
            IcebergEpochSink(catalog)
    assert SECRET not in str(caught.value)


# ---- REST ----


def test_a_rest_catalog(rest_catalog: RestCatalogServer, tmp_path: Path) -> None:
    write_and_read(tmp_path, CatalogSettings(kind="rest", uri=rest_catalog.uri))


def test_a_rest_catalog_that_is_away(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        settings = CatalogSettings(kind="rest", uri=f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(UnavailableError, match="cannot be opened"):
            open_catalog(tmp_path, settings=settings)


# ---- settings ----


def test_what_settings_cannot_mean() -> None:
    for given in (
        {"kind": "hive"},
        {"kind": "rest"},
        {"kind": "sqlite", "uri": "sqlite:///x"},
        {"kind": "postgres", "uri": "mysql://me@host/db"},
        {"kind": "postgres", "uri": f"postgresql://me:{SECRET}@host/db"},
        {"options": {"token": SECRET}},
        {"options": {"s3.secret-access-key": SECRET}},
        {"options": {"s3.session-token": SECRET}},
    ):
        with pytest.raises(ConfigError) as caught:
            CatalogSettings(**given)
        assert SECRET not in str(caught.value)


def test_secrets_come_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "from-env")
    (tmp_path / "key").write_text("from-file\n")
    options = {"token-env": "A_TOKEN", "s3.secret-access-key-file": str(tmp_path / "key"), "s3.region": "x"}

    resolved_options = CatalogSettings(options=options).resolved_options()

    assert resolved_options == {"token": "from-env", "s3.secret-access-key": "from-file", "s3.region": "x"}
    for missing in ({"token-env": "NOT_THERE"}, {"token-file": str(tmp_path / "nowhere")}):
        with pytest.raises(ConfigError, match="secret"):
            CatalogSettings(options=missing).resolved_options()


def test_sqlite_waits_for_the_disk(tmp_path: Path) -> None:
    catalog = open_catalog(tmp_path)
    assert isinstance(catalog, SqlCatalog)
    with catalog.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
