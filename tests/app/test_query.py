import datetime as dt
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from sessionize.app.tables.warehouse import Warehouse
from sessionize.connectors.iceberg import (
    IcebergSink,
    events,
    open_catalog,
    open_table,
    rejected_events,
    user_sessions,
)
from sessionize.errors import ConfigError, InputError
from sessionize.session.columns import REJECTED_SCHEMA, SESSION_TYPES

DAY_MS = 86_400_000


def fill(home: Path) -> Path:
    """Three tables: sessions of two days, events, and no rejected record."""
    catalog = open_catalog(home)
    sink = IcebergSink(catalog, user_sessions("uuid"), table="user_sessions")
    sink.write(
        pa.table(
            {
                "uuid": ["ann", "bob", "名前"],
                "session_start_time_ms": [-1, 5, DAY_MS],
                "session_duration_seconds": [1.5, 0.0, 2.5],
                "event_count": [3, 1, 2],
                "pages_visited": [["/a", "/b"], ["/a"], None],
                "events_by_type": pa.array(
                    [[("view", 2), ("click", 1)], [("view", 1)], None], SESSION_TYPES["events_by_type"]
                ),
            }
        )
    )
    sink.commit()
    sink = IcebergSink(catalog, events("uuid"), table="events")
    sink.write(pa.table({"user": ["ann", "bob"], "event_time_ms": [-1, 5], "page": ["/a", None]}))
    sink.commit()
    open_table(catalog, "sessions", "rejected_events", rejected_events())
    return home


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For tests that only read."""
    return fill(tmp_path_factory.mktemp("home"))


@pytest.fixture
def own_home(tmp_path: Path) -> Path:
    return fill(tmp_path / "home")


def rows(home: Path, sql: str, **warehouse: str) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in Warehouse(home, **warehouse).query(sql).to_pylist()]


@pytest.mark.parametrize("name", ["user_sessions", "sessions.user_sessions", "user_sessions_partitioned"])
def test_tables_go_by_their_names(home: Path, name: str) -> None:
    sql = f"SELECT session_date, count(*) FROM {name} WHERE event_count > 1 GROUP BY 1 ORDER BY 1"

    assert rows(home, sql) == [(dt.date(1969, 12, 31), 1), (dt.date(1970, 1, 2), 1)]


def test_the_queries_of_a_dashboard(home: Path) -> None:
    ranges = "SELECT count(*), avg(session_duration_seconds) FROM sessions.user_sessions_partitioned"
    assert rows(home, f"{ranges} WHERE session_date BETWEEN '1970-01-01' AND '1970-01-02'") == [(2, 1.25)]
    buckets = "SELECT sum(event_count) FROM user_sessions WHERE user_hash_bucket IN"
    assert rows(home, f"{buckets} (SELECT user_hash_bucket FROM events)") == [(Decimal(4),)]
    joined = "FROM events JOIN user_sessions USING (uuid) SELECT uuid, page, event_count ORDER BY uuid"
    assert rows(home, joined) == [("ann", "/a", 3), ("bob", None, 1)]
    assert rows(home, "SELECT uuid FROM user_sessions WHERE uuid = '名前'") == [("名前",)]


def test_nested_columns(home: Path) -> None:
    sql = "SELECT events_by_type['click'], len(pages_visited) FROM user_sessions ORDER BY uuid"

    assert rows(home, sql) == [(1, 2), (None, 1), (None, None)]


def test_a_user_column_called_user(tmp_path: Path) -> None:
    sink = IcebergSink(open_catalog(tmp_path), events(), table="events")
    sink.write(pa.table({"user": ["ann"], "event_time_ms": [1]}))
    sink.commit()

    assert rows(tmp_path, "SELECT user FROM events WHERE user = 'ann'") == [("ann",)]


def test_an_empty_table_has_its_types(home: Path) -> None:
    result = Warehouse(home).query("SELECT * FROM rejected_events")

    assert result.num_rows == 0
    assert result.schema.names == REJECTED_SCHEMA.names
    assert result.schema.field("line_number").type == pa.int64()
    assert rows(home, "SELECT count(*), max(line_number) FROM rejected_events") == [(0, None)]


def test_looking_around(home: Path) -> None:
    tables = {"events", "rejected_events", "user_sessions", "user_sessions_partitioned"}
    assert {name for (name,) in rows(home, "SHOW TABLES")} == tables
    described = rows(home, "DESCRIBE user_sessions")
    assert described[0][:2] == ("uuid", "VARCHAR")
    assert ("events_by_type", "MAP(VARCHAR, BIGINT)") in [row[:2] for row in described]


def test_another_database(tmp_path: Path) -> None:
    sink = IcebergSink(open_catalog(tmp_path), user_sessions(), database="analytics", table="user-sessions")
    sink.write(pa.table({"user": ["ann"]}))
    sink.commit()

    assert Warehouse(tmp_path, "analytics").query('SELECT user FROM "user-sessions"').num_rows == 1
    assert Warehouse(tmp_path, "analytics").query('FROM analytics."user-sessions"').num_rows == 1
    assert Warehouse(tmp_path).query('FROM "user-sessions"').num_rows == 1  # the only one of that name
    with pytest.raises(ConfigError, match="tables: user-sessions"):
        Warehouse(tmp_path).query("FROM user_sessions")


def test_tables_of_several_databases(own_home: Path) -> None:
    """By database and name always; by name alone where one has it, or where the database is given."""
    catalog = open_catalog(own_home)
    for table in ("user_sessions", "visits"):
        sink = IcebergSink(catalog, user_sessions("uuid"), database="mine", table=table)
        sink.write(pa.table({"uuid": ["zoe"]}))
        sink.commit()
    assert rows(own_home, "SELECT count(*) FROM mine.user_sessions") == [(1,)]
    assert rows(own_home, "SELECT count(*) FROM sessions.user_sessions_partitioned") == [(3,)]
    assert rows(own_home, "SELECT a.uuid FROM visits a JOIN mine.user_sessions b USING (uuid)") == [("zoe",)]
    assert rows(own_home, "SELECT count(*) FROM events") == [(2,)]
    known = {name for (name,) in rows(own_home, "SHOW TABLES", database="neither")}
    assert known == {"events", "rejected_events", "visits"}
    with pytest.raises(ConfigError) as caught:
        Warehouse(own_home, "neither").query("FROM user_sessions")
    assert "mine.user_sessions, visits, events" in str(caught.value)
    assert "sessions.user_sessions" in str(caught.value)
    for database, count in (("mine", 1), ("sessions", 3)):
        found = Warehouse(own_home, database).query("SELECT count(*) AS n FROM user_sessions")
        assert found["n"].to_pylist() == [count]


def test_a_query_sees_what_is_committed_and_nothing_else(own_home: Path) -> None:
    sink = IcebergSink(open_catalog(own_home), events("uuid"), table="events", buffer_bytes_max=1)
    sink.write(pa.table({"user": ["cid"], "event_time_ms": [9], "campaign": ["spring"]}))
    assert rows(own_home, "SELECT count(*) FROM events") == [(2,)]

    sink.commit()

    assert rows(own_home, "SELECT uuid, campaign FROM events ORDER BY event_time_ms") == [
        ("ann", None),
        ("bob", None),
        ("cid", "spring"),
    ]


def test_columns_with_unusual_names(tmp_path: Path) -> None:
    sink = IcebergSink(open_catalog(tmp_path), events(), table="events")
    sink.write(pa.table({"user": ["ann"], "event_time_ms": [1], 'a."b" c': [7]}))
    sink.commit()

    assert rows(tmp_path, 'SELECT "a.""b"" c" FROM events') == [(7,)]


def test_a_filter_on_the_partition_opens_only_its_files(own_home: Path) -> None:
    """The file of the other day is broken, so a query that opens it fails."""
    (broken,) = (own_home / "warehouse").rglob("session_date=1970-01-02/*.parquet")
    broken.write_bytes(b"broken")

    for condition in ("session_date < '1970-01-02'", "session_date IN ('1969-12-31', '1970-01-01')"):
        assert rows(own_home, f"SELECT count(*) FROM user_sessions WHERE {condition}") == [(2,)]
    with pytest.raises(InputError, match="cannot be read"):
        Warehouse(own_home).query("SELECT sum(event_count) FROM user_sessions")


def test_a_data_file_that_was_removed(own_home: Path) -> None:
    for file in (own_home / "warehouse").rglob("*.parquet"):
        file.unlink()

    with pytest.raises(InputError, match="cannot be read"):
        Warehouse(own_home).query("SELECT sum(event_count) FROM user_sessions")


def test_a_home_without_tables(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no tables yet"):
        Warehouse(tmp_path / "nowhere").query("SELECT 1")
    open_catalog(tmp_path)
    with pytest.raises(ConfigError) as caught:
        Warehouse(tmp_path).query("SELECT * FROM user_sessions")
    assert "run a pipeline first" in str(caught.value)


@pytest.mark.parametrize(
    ("sql", "hint"),
    [
        ("SELECT nosuch FROM events", "events has uuid, event_time_ms"),
        ("SELECT * FROM user_session", "tables: events, rejected_events, user_sessions"),
        ("SELECT * FROM nowhere.events", "tables: events"),
        ("SELECT FROM WHERE", "DuckDB SQL"),
        ("SELECT 'x'::INTEGER", "could not convert"),
        ("SELECT $1", "parameters"),
        ("SELECT '\udcff'", "DuckDB SQL"),
    ],
)
def test_mistakes_are_explained(home: Path, sql: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Warehouse(home).query(sql)

    assert hint.lower() in str(caught.value).lower()


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT 1; SELECT 2", "one statement"),
        ("", "one statement"),
        ("-- nothing", "one statement"),
        ("DROP VIEW events", "can only read"),
        ("INSERT INTO events VALUES (1)", "can only read"),
        ("CREATE TABLE t AS FROM events", "can only read"),
        ("COPY events TO '{out}'", "can only read"),
        ("EXPORT DATABASE '{out}'", "can only read"),
        ("ATTACH '{out}' AS x", "can only read"),
        ("INSTALL httpfs", "can only read"),
        ("LOAD httpfs", "can only read"),
        ("SET enable_external_access = true", "can only read"),
        ("RESET lock_configuration", "can only read"),
        ("PRAGMA database_list", "can only read"),
        ("CALL pragma_version()", "can only read"),
        ("EXPLAIN ANALYZE COPY events TO '{out}'", "can only read"),
        ("WITH x AS (COPY events TO '{out}') SELECT 1", "can only read"),
        ("WITH x AS (COPY events TO '{data}') SELECT 1", "can only read"),
        ("WITH x AS (INSERT INTO events VALUES (1)) SELECT 1", "cannot be run"),
        ("WITH x AS (DELETE FROM events) SELECT 1", "cannot be run"),
        ("SELECT * FROM read_csv('/etc/passwd')", "can only read"),
        ("SELECT * FROM read_text('/etc/passwd')", "can only read"),
        ("SELECT * FROM glob('/*')", "can only read"),
        ("SELECT * FROM '{data}'", "can only read"),
        ("SELECT * FROM parquet_metadata('{data}')", "can only read"),
        ("SELECT * FROM 'https://localhost:1/x.parquet'", "can"),
        ("SELECT * FROM sniff_csv('/etc/passwd')", "can only read"),
        ("SELECT * FROM sqlite_scan('{catalog}', 'iceberg_tables')", "cannot be run"),
        ("SELECT getenv('HOME')", "cannot be run"),
        ("SELECT * FROM query('COPY events TO ''{out}''')", "can"),
    ],
)
def test_a_query_can_do_nothing_but_read_the_tables(home: Path, tmp_path: Path, sql: str, message: str) -> None:
    data = next((home / "warehouse").rglob("*.parquet"))
    before = {path: path.read_bytes() for path in (home / "warehouse").rglob("*") if path.is_file()}

    with pytest.raises(ConfigError, match=message):
        Warehouse(home).query(sql.format(out=tmp_path / "out", data=data, catalog=home / "catalog.db"))

    assert not (tmp_path / "out").exists()
    assert {path: path.read_bytes() for path in (home / "warehouse").rglob("*") if path.is_file()} == before


def test_deeply_nested_sql_is_an_error_and_no_crash(home: Path) -> None:
    with pytest.raises(ConfigError):
        Warehouse(home).query("SELECT " + "(" * 20_000 + "1" + ")" * 20_000)
