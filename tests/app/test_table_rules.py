"""The rules belong to the tables: other runs are refused, and whoever computes sessions again goes by the tables."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sessionize.app import runs
from sessionize.app.batch import open_batch
from sessionize.app.config.pipeline import PipelineConfig, load_pipeline
from sessionize.app.files import FilePlan
from sessionize.app.hooks import Hooks
from sessionize.app.tables.reconcile import reconcile_tables
from sessionize.app.tables.retry_rejected import retry_rejected
from sessionize.app.tables.rules import by_the_tables
from sessionize.app.tables.warehouse import Warehouse
from sessionize.connectors.iceberg import USER_SESSIONS, load_table, open_catalog, spec_of, table_names
from sessionize.errors import ConfigError, InputError, StateError
from sessionize.formats.dialects import dialect_named
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules

NOW_MS = 1_900_000_000_000
GENERATED = {
    "input.kind": "generator",
    "input.generator.events": 300,
    "input.generator.users": 20,
    "input.generator.duration": "3h",
    "input.generator.late_fraction": 0.05,
}
PRESET = "user_sessionization_pipeline"


def pipeline(home: Path, preset: str = PRESET, **settings: object) -> PipelineConfig:
    return load_pipeline(preset, overrides={**GENERATED, "run.home": str(home), **settings})


def run(config: PipelineConfig) -> Any:
    return runs.plan(config, now_ms=NOW_MS).run()


def sessions(home: Path, columns: str = "*") -> list[dict[str, Any]]:
    return Warehouse(home).query(f"SELECT {columns} FROM user_sessions ORDER BY session_id").to_pylist()


def state(home: Path) -> dict[str, Any]:
    """What would change if anything was written."""
    catalog = open_catalog(home)
    names = table_names(catalog, "sessions")
    return {name: load_table(catalog, "sessions", name).metadata_location for name in names}


def test_reconcile_goes_by_the_rules_of_the_tables(tmp_path: Path) -> None:
    """What the preset says of the gap must not make other sessions of those that are there."""
    made = pipeline(tmp_path / "one", **{"rules.gap": "30s"})
    again = pipeline(tmp_path / "two", **{"rules.gap": "30s"})
    for config in (made, again):
        run(config)
    reconcile_tables(again.home, again)
    told: list[str] = []
    preset = by_the_tables(pipeline(tmp_path / "one"), warn=told.append)
    done = reconcile_tables(preset.home, preset)
    assert done.added > 0
    assert told == [
        "the tables were made with another policy; using those of the tables: rules.gap: 30s there, 30m here"
    ]
    assert sessions(made.home) == sessions(again.home)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"rules.gap": "45m"}, ["made with another policy", "rules.gap: 30m there, 45m here", "--iceberg-database"]),
        ({"rules.end_events": ["logout"]}, ["made with other rules", "rules.end_events: none there, logout here"]),
        ({"name": "shop"}, ["by another pipeline", f"name: {PRESET} there, shop here", "mix their sessions"]),
        ({"input.dialect": "clicks"}, ["user column: uuid there, user_id here"]),
        ({"output.table": "visits"}, ["output.table: user_sessions there, visits here"]),
    ],
    ids=lambda value: next(iter(value)),
)
def test_a_run_by_other_rules_is_refused_before_anything_is_written(
    tmp_path: Path, settings: dict[str, object], says: list[str]
) -> None:
    run(pipeline(tmp_path))
    before = state(tmp_path)
    with pytest.raises(StateError) as caught:
        runs.plan(pipeline(tmp_path, **settings), now_ms=NOW_MS).open()
    assert [part in str(caught.value) for part in says] == [True] * len(says), str(caught.value)
    assert state(tmp_path) == before


def test_the_same_rules_add_and_overwrite_takes_others(tmp_path: Path) -> None:
    run(pipeline(tmp_path))
    run(pipeline(tmp_path, **{"rules.gap": "1800s", "rules.lateness": "1h"}))
    twice = len(sessions(tmp_path))
    run(pipeline(tmp_path, **{"rules.gap": "45m", "output.mode": "overwrite"}))
    assert len(sessions(tmp_path)) < twice
    spec = spec_of(load_table(open_catalog(tmp_path), "sessions", USER_SESSIONS))
    assert spec is not None
    assert spec.policy.gap_ms == 45 * 60_000


def plan(inputs: Path, home: Path, gap_ms: int = 1_800_000, **more: Any) -> FilePlan:
    settings: dict[str, Any] = {"what": "sessions", "output": "iceberg:mine.s", "dialect": dialect_named("clicks")}
    return FilePlan(
        inputs=(str(inputs),), policy=Policy(gap_ms=gap_ms), rules=Rules(), home=home, **{**settings, **more}
    )


def test_batch_into_a_table(tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_text('{"user_id": "ann", "timestamp": 1}\n')
    plan(tmp_path / "in.ndjson", tmp_path).open().run()
    with pytest.raises(StateError, match=r"rules\.gap: 30m there, 30s here") as caught:
        plan(tmp_path / "in.ndjson", tmp_path, gap_ms=30_000).open()
    assert "--overwrite" in str(caught.value)
    assert "-o iceberg:DATABASE.TABLE" in str(caught.value)
    with pytest.raises(StateError, match="name: batch there, label here"):
        plan(tmp_path / "in.ndjson", tmp_path, what="labels").open()
    plan(tmp_path / "in.ndjson", tmp_path, gap_ms=30_000, overwrite=True).open().run()


def test_a_pipeline_that_never_wrote_them_is_refused(tmp_path: Path) -> None:
    run(pipeline(tmp_path))
    with pytest.raises(ConfigError, match="not made by this pipeline") as caught:
        by_the_tables(pipeline(tmp_path, name="shop"), warn=pytest.fail)
    assert f"name: {PRESET} there, shop here" in str(caught.value)


def test_tables_of_before_are_taken_by_the_pipelines_rules_and_that_is_said(tmp_path: Path) -> None:
    config = pipeline(tmp_path)
    run(config)
    for name in ("user_sessions", "events", "late_events", "rejected_events"):
        table = load_table(open_catalog(tmp_path), "sessions", name)
        ours = {"sessionize.pipeline", "sessionize.sessions", "sessionize.spec"}
        with table.transaction() as change:
            change.remove_properties(*(ours & table.properties.keys()))
    told: list[str] = []
    assert by_the_tables(config, warn=told.append).spec() == config.spec()
    assert len(told) == 1
    assert "an earlier version wrote them" in told[0]
    assert "gap 30m" in told[0]
    run(pipeline(tmp_path, **{"input.known_files": "again"}))
    assert by_the_tables(config, warn=pytest.fail).spec() == config.spec()


RECORDS = [{"who": f"u{i % 3}", "at": NOW_MS - i * 60_000, "where": "/a"} for i in range(12)]


def mapped(folder: Path, user: str) -> PipelineConfig:
    path = folder / "mine.toml"
    path.write_text('name = "mine"\n')
    (folder / "in.ndjson").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    settings: dict[str, object] = {
        "input.mapping.user": user,
        "input.mapping.time": "at",
        "input.mapping.page": "where",
    }
    settings |= {"input.kind": "files", "input.paths": [str(folder / "in.ndjson")], "run.home": str(folder / "data")}
    return load_pipeline(str(path), overrides=settings)


def test_a_first_try_with_a_wrong_user_column_binds_nobody(tmp_path: Path) -> None:
    """It rejects every record; the mended pipeline runs into the same tables."""
    with pytest.raises(InputError, match="none of the records"):
        run(mapped(tmp_path, "whom"))
    accounting = run(mapped(tmp_path, "who"))
    assert (accounting.settled, accounting.rejected) == (12, 0)
    assert sum(row["event_count"] for row in sessions(tmp_path / "data", "who, session_id, event_count")) == 12


def test_what_a_first_try_rejected_is_brought_in_once_the_column_is_right(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of the records"):
        run(mapped(tmp_path, "whom"))
    mended = by_the_tables(mapped(tmp_path, "who"), warn=pytest.fail)
    assert retry_rejected(mended.home, mended, now_ms=NOW_MS).usable == 12
    assert Warehouse(mended.home).query("SELECT count(who) AS n FROM late_events").to_pylist() == [{"n": 12}]


def test_a_first_try_that_was_killed_while_it_wrote_binds_nobody(tmp_path: Path) -> None:
    """`where` is a field of every record, so rows were staged under the wrong name for users."""
    first = open_batch(mapped(tmp_path, "where"), Hooks(), now_ms=NOW_MS)
    assert first.outputs.events is not None
    first.outputs.events.write(pa.table({"where": ["/a"], "event_time_ms": [0]}))
    accounting = run(mapped(tmp_path, "who"))
    assert accounting.settled == 12


def test_a_retry_names_the_user_as_the_tables_do(tmp_path: Path) -> None:
    """The mended pipeline finds the user in another field, which has another name."""
    nested = {"data": {"uid": "zoe"}, "at": NOW_MS}
    config = mapped(tmp_path, "who")
    with open(tmp_path / "in.ndjson", "a") as file:
        file.write(json.dumps(nested) + "\n")
    assert run(config).rejected == 1
    told: list[str] = []
    mended = by_the_tables(mapped(tmp_path, "data.uid"), warn=told.append)
    assert retry_rejected(mended.home, mended, now_ms=NOW_MS).usable == 1
    assert told == [
        "the tables were made with other rules; using those of the tables: user column: who there, uid here"
    ]
    assert Warehouse(mended.home).query("SELECT who FROM late_events").to_pylist() == [{"who": "zoe"}]
