"""The incremental model, run by dbt on DuckDB: after every batch, late or not, it has the sessions of the reference."""

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sessionize.app.options import RuleOptions
from sessionize.app.sql import SqlOptions, TableOptions
from sessionize.errors import ConfigError
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules
from sessionize.testing.comparison import events_table, expected_sessions

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-sql" / "bin" / "python"
TABLE = TableOptions(
    table="raw.events", user="user", time="event_time_ms", time_format="ms", loaded_at="loaded_at",
    event_id="event_id", event_type="event_type", page="page", value="value",
)  # fmt: skip
PROJECT = {
    "dbt_project.yml": "name: shop\nversion: 1.0.0\nprofile: shop\nconfig-version: 2\n",
    "profiles.yml": "shop:\n  target: dev\n  outputs:\n    dev: {type: duckdb, path: warehouse.duckdb, threads: 1}\n",
}
RULES = RuleOptions(
    gap="20ms", max_duration="70ms", start_events=["login"], end_events=["logout"], excluded_events=["{{x}}"]
)
POLICY = Policy(gap_ms=20, max_duration_ms=70)
LISTED = Rules(
    start_events=frozenset({"login"}),
    end_events=frozenset({"logout"}),
    excluded_events=frozenset({"{{x}}"}),
    conversion_events=frozenset({"purchase", "booking", "order"}),
)


def batches(seed: int) -> list[list[dict[str, Any]]]:
    """Events that come in their order but for some, which are late by anything; the last batches have few users."""
    chosen = random.Random(seed)
    made = []
    for number in range(4):
        users = "abcdefgh" if number < 3 else "ab"
        batch, now = [], 100 * number
        for _ in range(50 if number < 3 else 6):
            late = chosen.random() < 0.2
            batch.append(
                {
                    "user": chosen.choice(users),
                    "time": chosen.randint(-50, now) if late else chosen.randint(now, now + 110),
                    "id": chosen.choice([None, "1", "2"]),
                    "type": chosen.choice([None, "view", "login", "logout", "purchase", "{{x}}"]),
                    "page": chosen.choice([None, "home", "{% raw %}"]),
                    "amount": chosen.choice([None, 0.1, 2.5]),
                }
            )
        made.append(batch)
    # nothing but an event that counts for nothing, long after: it says that all the others have ended
    return [*made, [{"user": "z", "time": 10_000, "id": None, "type": "{{x}}", "page": None, "amount": None}]]


def project(folder: Path, rows: list[list[dict[str, Any]]]) -> None:
    for name, content in PROJECT.items():
        (folder / name).write_text(content)
    SqlOptions(dialect="duckdb", table=TABLE, rules=RULES, lookback="1s").dbt_project(folder, warn=lambda text: None)
    for number, batch in enumerate(rows):
        table = events_table(batch)
        # two batches share their time of loading, and the lookback is longer than the time between some
        loaded = pa.array([number // 2 * 2_000_000] * len(batch), pa.timestamp("us"))
        pq.write_table(table.append_column("loaded_at", loaded), folder / f"batch{number}.parquet")


def run(folder: Path, steps: list[Any]) -> "subprocess.CompletedProcess[str]":
    if not PYTHON.exists():
        pytest.skip("dbt is not installed: scripts/setup dbt")
    (folder / "steps.json").write_text(json.dumps(steps))
    driver = Path(__file__).with_name("driver.py")
    return subprocess.run([str(PYTHON), str(driver), str(folder)], capture_output=True, text=True, timeout=300)


def sessions(folder: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((folder / f"{name}.json").read_text())
    return sorted(rows, key=lambda row: (row["user"], row["session_start_time_ms"], row["session_id"]))


def expected(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [dict(row) for row in expected_sessions(rows, POLICY, LISTED)]
    for row in found:
        row["session_date"] = str(row["session_date"])
        del row["user_hash_bucket"]
    return sorted(found, key=lambda row: (row["user"], row["session_start_time_ms"], row["session_id"]))


def test_after_every_batch_the_model_is_a_full_refresh(tmp_path: Path):
    rows = batches(7)
    project(tmp_path, rows)
    read = "FROM main.user_sessions SELECT * EXCLUDE (loaded_up_to, input_end_time_ms)"
    steps: list[Any] = [{"sql": ["CREATE SCHEMA raw", "CREATE TABLE raw.events AS FROM 'batch0.parquet' LIMIT 0"]}]
    for number in range(len(rows)):
        insert = f"INSERT INTO raw.events FROM 'batch{number}.parquet'"
        steps += [{"sql": [insert]}, ["run"], {"sql": [read], "rows": f"after{number}"}]
    lose = "DELETE FROM main.user_sessions WHERE session_id = (SELECT MIN(session_id) FROM main.user_sessions)"
    steps += [["run"], {"sql": [read], "rows": "again"}, ["test"]]
    steps += [["run", "--full-refresh"], {"sql": [read], "rows": "full"}]
    done = run(tmp_path, steps)
    assert done.returncode == 0, done.stderr
    known: list[dict[str, Any]] = []
    for number, batch in enumerate(rows):
        known += batch
        assert sessions(tmp_path, f"after{number}") == expected(known), f"batch {number}"
    assert sessions(tmp_path, "again") == sessions(tmp_path, "full") == expected(known)
    done = run(tmp_path, [{"sql": [lose]}, ["test"]])
    assert done.returncode == 1
    assert "equal_a_recomputation" in done.stderr


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"table": TableOptions(user="u", time="t")}, "when rows were loaded"),
        ({"rules": RuleOptions(session_ids="running")}, "cannot number"),
        ({"rules": RuleOptions(duplicates="id")}, "no duplicates at other times"),
        ({"labels": True}, "no labels"),
    ],
)
def test_what_no_model_can_be(tmp_path: Path, asked: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        SqlOptions(**{"dialect": "duckdb", "table": TABLE, **asked}).dbt_project(tmp_path, warn=lambda text: None)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_somebody_elses_stays(tmp_path: Path):
    mine = SqlOptions(dialect="duckdb", table=TABLE)
    first = mine.dbt_project(tmp_path, warn=lambda text: None)
    assert mine.dbt_project(tmp_path, warn=lambda text: None) == first
    first[-1].write_text("select 1")
    with pytest.raises(ConfigError, match="not from sessionize"):
        mine.dbt_project(tmp_path, warn=lambda text: None)
    assert first[-1].read_text() == "select 1"
