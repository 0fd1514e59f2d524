"""`sessionize sql`: what is asked for, by options and pipelines, and what cannot be meant."""

from pathlib import Path
from typing import Any

import duckdb
import pytest

from sessionize.app.options import RuleOptions
from sessionize.app.sql import SqlOptions, TableOptions
from sessionize.errors import ConfigError
from sessionize.sql import UNTESTED

MINE = TableOptions(table="clicks", user="user_id", time="ts", page="url")


def query(**asked: Any) -> str:
    return SqlOptions(**{"dialect": "duckdb", "table": MINE, **asked}).query(warn=lambda text: None)


def test_the_query_of_a_table_with_timestamps():
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE clicks (user_id INT, ts TIMESTAMPTZ, url TEXT)")
        rows = "(7, '2026-01-05 09:00:00Z', '/'), (7, '2026-01-05 09:30:00Z', '/cart')"
        rows += ", (7, '2026-01-05 10:00:00.001Z', NULL)"
        connection.execute(f"INSERT INTO clicks VALUES {rows}")
        found = connection.sql(query(rules=RuleOptions(max_duration="none")))
        assert found.columns[:2] == ["user_id", "session_id"]
        assert [row[1] for row in found.order("2").fetchall()] == ["7_1767603600000", "7_1767607200001"]
        assert found.order("2").fetchall()[0][found.columns.index("pages_visited")] == ["/", "/cart"]


def test_rules_and_mapping_come_from_the_pipeline(tmp_path: Path):
    pipeline = tmp_path / "mine.toml"
    pipeline.write_text(
        '[input.mapping]\nuser = "who"\ntime = "at"\npage = "url"\ntime_format = "s"\n'
        '[rules]\ngap = "45m"\nmax_duration = "none"\nsession_ids = "running"\n'
        '[output]\ncolumns = ["session_id", "event_count"]\n'
    )
    made = SqlOptions(dialect="duckdb", pipeline=str(pipeline)).query(warn=lambda text: None)
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE events AS SELECT 'u' AS who, unnest([0, 2700, 5401]) AS \"at\", '/' AS url")
        found = connection.sql(made)
        assert found.columns == ["who", "session_id", "event_count"]
        assert sorted(found.fetchall()) == [("u", "u-1", 2), ("u", "u-2", 1)]
    other = SqlOptions(dialect="duckdb", pipeline=str(pipeline), rules=RuleOptions(gap="1h"), settings=["name=other"])
    assert "gap 1h" in other.query(warn=lambda text: None)


@pytest.mark.parametrize(
    ("asked", "message", "hint"),
    [
        ({"table": TableOptions()}, "the columns of the user and the time", "--user COLUMN"),
        ({"dialect": "duckdbb"}, "unknown SQL dialect", "duckdb, postgres, clickhouse"),
        ({"dialect": "spark"}, "no test runs this SQL dialect", "--untested"),
        ({"rules": RuleOptions(start_events=["login"])}, "needs the event type", "--event-type"),
        ({"columns": "session_id,revenue"}, "cannot be filled", "map them"),
        ({"columns": "user_hash_bucket"}, "has no hash", "--session-columns"),
        ({"settings": ["rules.gap=1m"]}, "--set changes a key of a pipeline", "name the pipeline"),
        ({"table": TableOptions(table="a..b", user="u", time="t")}, "invalid table name", "analytics.events"),
        ({"table": TableOptions(user="u", time="t", time_format="iso8601")}, "cannot read this time", "timestamp"),
        ({"table": TableOptions(), "pipeline": "kafka_stream"}, "the name of a column", "--event-type"),
        ({"table": TableOptions(user="session_id", time="t")}, "same name", "rename"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant(asked: dict[str, Any], message: str, hint: str):
    with pytest.raises(ConfigError) as caught:
        query(**asked)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


def test_a_boundary_function_is_refused(tmp_path: Path):
    (tmp_path / "mine.py").write_text("def cut(events): return events['page']\n")
    pipeline = tmp_path / "mine.toml"
    pipeline.write_text('[input.mapping]\nuser = "who"\ntime = "at"\n[rules]\nboundary = "mine:cut"\n')
    with pytest.raises(ConfigError, match="Python boundary"):
        SqlOptions(dialect="duckdb", pipeline=str(pipeline)).query(warn=lambda text: None)


@pytest.mark.parametrize("dialect", UNTESTED)
def test_an_untested_dialect_says_so(dialect: str):
    made = query(dialect=dialect, untested=True)
    assert made.splitlines()[1].startswith("-- UNTESTED")


def test_what_the_dialect_cannot_fill_is_said():
    assert "-- without user_hash_bucket" in query()
    assert "user_hash_bucket" in query(dialect="clickhouse")


def test_every_step_says_why():
    lines = [line for line in query().splitlines() if " AS (" in line and ("WITH" in line or line.startswith(")"))]
    assert len(lines) > 8
    assert [line for line in lines if "/* " not in line] == []
