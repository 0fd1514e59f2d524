"""Two pipelines that name one store: the second one is refused before it writes anything, whatever command it is."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sessionize.app.build import open_stores
from sessionize.app.config.pipeline import PipelineConfig, load_pipeline
from sessionize.app.tables.reconcile import reconcile_tables
from sessionize.app.tables.retry_rejected import retry_rejected
from sessionize.errors import StateError
from sessionize.testing.tables import iceberg_rows
from tests.system.whole_runs import run

TABLES = ("user_sessions", "late_events", "rejected_events", "events")
HOUR_MS = 3_600_000


def pipeline(folder: Path, name: str, gap: str, *, home: str, store: Path) -> PipelineConfig:
    path = folder / f"{home}.toml"
    path.write_text(
        f"""name = "{name}"
[input]
kind = "directory"
paths = ["{folder}/in"]
[input.mapping]
user = "user"
time = "ts"
[rules]
gap = "{gap}"
lateness = "1m"
watermark = "maximum"
[stream]
reconcile = "none"
[output.sqlite]
path = "{store}"
[run]
home = "{folder}/{home}"
once = true
"""
    )
    return load_pipeline(str(path), environ={})


def stored(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as store:
        names = sorted(row[0] for row in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'"))
        return [(name, store.execute(f"SELECT * FROM {name}").fetchall()) for name in names]


def tables_of(config: PipelineConfig) -> list[Any]:
    return [sorted(map(repr, iceberg_rows(config.home, name))) for name in TABLES]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Events of two users, a late one among them, and a record that is rejected."""
    (tmp_path / "in").mkdir()
    start = 1_700_000_000_000
    times = [start + 10 * HOUR_MS, start + 10 * HOUR_MS + 120_000, start]
    lines = [json.dumps({"user": user, "ts": time}) for time in times for user in ("ann", "bob")]
    (tmp_path / "in/one.ndjson").write_text("\n".join([*lines[:4], "{}", *lines[4:]]) + "\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "gap", "says"),
    [("shop", "30m", "another pipeline"), ("web", "1m", "another policy")],
    ids=["pipeline", "rules"],
)
def test_a_second_pipeline_does_not_write_into_the_store_of_the_first(
    folder: Path, name: str, gap: str, says: str
) -> None:
    shared = folder / "shared.db"
    first = pipeline(folder, "web", "30m", home="first", store=shared)
    run(first)
    before = stored(shared)
    assert len(dict(before)["user_sessions"]) >= 2
    second = pipeline(folder, name, gap, home="second", store=shared)

    with pytest.raises(StateError, match=says) as caught:
        run(second)

    assert str(shared) in str(caught.value)
    assert "output.sqlite.path" in str(caught.value.hint)
    assert stored(shared) == before
    run(first)
    assert dict(stored(shared))["user_sessions"] == dict(before)["user_sessions"]


@pytest.mark.parametrize(
    "command",
    [
        lambda config, stores: reconcile_tables(config.home, config, stores=stores, drained=True),
        lambda config, stores: retry_rejected(config.home, config, stores=stores),
    ],
    ids=["reconcile", "rejected retry"],
)
def test_commands_are_refused_before_they_change_tables(folder: Path, command: Callable[..., object]) -> None:
    shared = folder / "shared.db"
    run(pipeline(folder, "web", "30m", home="first", store=shared))
    run(pipeline(folder, "shop", "1m", home="second", store=folder / "own.db"))
    second = pipeline(folder, "shop", "1m", home="second", store=shared)
    before, tables = stored(shared), tables_of(second)

    with pytest.raises(StateError, match="another pipeline"), open_stores(second) as stores:
        command(second, stores)

    assert stored(shared) == before
    assert tables_of(second) == tables
