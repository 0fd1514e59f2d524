"""Session columns of one's own in pipelines: from the file to every output, in the plan, and in the tables' record."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sessionize.app.config.pipeline import load_pipeline
from sessionize.app.runs import plan
from sessionize.app.tables.reconcile import reconcile_tables
from sessionize.app.tables.warehouse import Warehouse
from sessionize.connectors.iceberg.archive import IcebergArchive
from sessionize.errors import ConfigError, SessionizeError, StateError
from sessionize.session.spec import SessionSpec
from tests.app.test_reconcile_tables import NOW_MS, batch_of, pipeline, rows_in, stored

EVENTS = [
    {"u": "a", "t": 1, "k": "view", "p": "/x", "ctx": {"ref": "g"}, "price": 1.5, "new": True},
    {"u": "a", "t": 1000, "k": "buy", "p": "/y", "ctx": {"ref": "h"}, "price": 2.25, "new": False},
    {"u": "b", "t": 1000, "k": "buy", "p": "/y", "price": 2},
]
PIPELINE = """
name = "own"
[input]
kind = "files"
paths = ["{events}"]
[input.mapping]
user = "u"
time = "t"
event_type = "k"
page = "p"
[input.fields]
referrer = "ctx.ref"
price = {{path = "price", type = "number"}}
new = {{path = "new", type = "boolean"}}
[output]
kind = "parquet"
path = "{folder}/out.parquet"
[session_columns]
first_referrer = {{ first = "referrer" }}
spent = {{ sum = "price", where = "event_type = 'buy'" }}
refs = {{ distinct = "referrer" }}
was_new = {{ first = "new" }}
ratio = {{ expression = "spent / event_count" }}
"""
OWN = {"first_referrer": ["g", None], "spent": [2.25, 2.0], "refs": [["g", "h"], []], "was_new": [True, None]}
OWN["ratio"] = [1.125, 2.0]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    events = tmp_path / "events.ndjson"
    events.write_text("".join(json.dumps(event) + "\n" for event in EVENTS))
    made = tmp_path / "own.toml"
    made.write_text(PIPELINE.format(events=events, folder=tmp_path))
    return made


def run(file: Path, **overrides: object) -> None:
    plan(
        load_pipeline(str(file), overrides={name.replace("__", "."): value for name, value in overrides.items()})
    ).run()


def in_tables(home: Path, sql: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = Warehouse(home).query(sql).to_pylist()
    return rows


def test_a_file_gets_them(file: Path):
    run(file)
    table = pq.read_table(file.parent / "out.parquet").sort_by("u")
    assert {name: table[name].to_pylist() for name in OWN} == OWN
    assert table.column_names[-5:] == list(OWN)


def test_the_plan_has_them_with_their_types(file: Path):
    planned = plan(load_pipeline(str(file)))
    shown = dict(planned.lines())["session columns"]
    for text in ('first_referrer = {"first": "referrer"} (text)', "(list of text)", "(boolean)", "event_type = 'buy'"):
        assert text in shown


@pytest.mark.parametrize(
    ("column", "told"),
    [
        ('{ first = "reffer" }', ["session_columns.spent.first", "'reffer'", "referrer"]),
        ('{ sum = "referrer" }', ["session_columns.spent.sum", "referrer is text"]),
        ('{ sum = "price", where = "price > \'x\'" }', ["session_columns.spent.where", "do not go together"]),
        ('{ mean = "value" }', ["session_columns.spent.mean", "'value'"]),
    ],
)
def test_a_column_that_cannot_be_made_is_refused_before_the_run(file: Path, column: str, told: list[str]):
    text = file.read_text().replace('{ sum = "price", where = "event_type = \'buy\'" }', column)
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        plan(load_pipeline(str(file)))
    assert [word for word in told if word not in str(raised.value)] == [], str(raised.value)


@pytest.mark.parametrize("value", ['{ first = "a", last = "b" }', '"first"', "{ count = 3 }", "{ nope = 1 }"])
def test_a_column_of_another_form_is_refused_with_the_file(file: Path, value: str):
    file.write_text(file.read_text().replace('{ first = "referrer" }', value))
    with pytest.raises(ConfigError, match=r"invalid session_columns") as raised:
        load_pipeline(str(file))
    assert "session_columns.first_referrer" in str(raised.value)
    assert str(file) in str(raised.value)


def test_a_higher_source_replaces_a_column_as_a_whole(file: Path):
    config = load_pipeline(str(file), overrides={"session_columns.first_referrer": {"last": "page"}})
    assert config.session_columns["first_referrer"] == {"last": "page"}
    assert set(config.session_columns) == set(OWN)


def test_an_added_column_is_null_in_older_rows_and_the_record_has_all(file: Path, tmp_path: Path):
    home = tmp_path / "home"
    tables = {"output__kind": "iceberg", "run__home": str(home), "input__known_files": "again"}
    whole = file.read_text()
    parts = [line for line in whole.splitlines() if not line.startswith(("was_new", "refs", "ratio"))]
    file.write_text("\n".join(parts))
    run(file, **tables)
    file.write_text(whole)
    run(file, **tables)
    file.write_text("\n".join(line for line in whole.splitlines() if not line.startswith("refs")))
    run(file, **tables)
    found = in_tables(home, "SELECT spent, was_new, refs, ratio FROM user_sessions WHERE u = 'a'")
    key = str
    assert sorted(found, key=key) == sorted(
        [
            {"spent": 2.25, "was_new": None, "refs": None, "ratio": None},
            {"spent": 2.25, "was_new": True, "refs": ["g", "h"], "ratio": 1.125},
            {"spent": 2.25, "was_new": True, "refs": None, "ratio": 1.125},
        ],
        key=key,
    )
    config = load_pipeline(str(file), overrides={name.replace("__", "."): value for name, value in tables.items()})
    definition = config.definition(config.dialect().columns, "u")
    archive = IcebergArchive.open(Warehouse.of(config).open(), "sessions", "user_sessions", definition)
    assert "refs" not in definition.columns.own
    assert {each.name for each in archive.definition.columns.own.columns} == set(OWN)  # reconciling loses none
    file.write_text(whole.replace('first = "referrer"', 'last = "referrer"'))
    with pytest.raises(StateError, match="other session columns") as raised:
        run(file, **tables)
    assert "session_columns.first_referrer" in str(raised.value)
    assert '"last": "referrer"' in str(raised.value)
    file.write_text(whole.replace('type = "number"', 'type = "integer"'))
    with pytest.raises(SessionizeError, match="other session columns"):
        run(file, **tables)


def test_events_that_were_stored_before_a_field_was_mapped_have_it_for_reconciling(file: Path, tmp_path: Path):
    """Then the table has the field in another type, and further values of it are in `properties`."""
    tables = {"output__kind": "iceberg", "run__home": str(tmp_path / "home"), "input__known_files": "again"}
    events, whole = tmp_path / "events.ndjson", file.read_text()
    events.write_text(json.dumps({"u": "a", "t": 1, "price": 3, "new": "yes"}) + "\n")
    file.write_text(
        whole.partition("[input.fields]")[0] + "[output]" + whole.partition("[output]")[2].partition("[sess")[0]
    )
    run(file, **tables)
    events.write_text("".join(json.dumps(event) + "\n" for event in EVENTS))
    file.write_text(whole)
    run(file, **tables)
    config = load_pipeline(str(file), overrides={name.replace("__", "."): value for name, value in tables.items()})
    catalog, definition = Warehouse.of(config).open(), config.definition(config.dialect().columns, "u")
    stored = Warehouse.of(config).query("SELECT price, properties FROM events WHERE u = 'a' ORDER BY price").to_pylist()
    archive = IcebergArchive.open(catalog, "sessions", "user_sessions", definition)
    found = archive.events(pa.array(["a", "b"]), frozenset(range(100)), None, rows_max=None)
    assert found is not None, stored
    rows = sorted(found.select(["event_time_ms", "user", "price", "new", "referrer"]).to_pylist(), key=str)
    assert [tuple(row.values()) for row in rows] == [
        (1, "a", 1.5, True, "g"),
        (1, "a", 3.0, None, None),
        (1000, "a", 2.25, False, "h"),
        (1000, "b", 2.0, None, None),
    ]


def test_a_record_comes_back_as_it_was(file: Path):
    spec = load_pipeline(str(file)).spec()
    assert SessionSpec.from_json(spec.to_json()) == spec
    assert spec.own.columns[0].type == "text"
    file.write_text(file.read_text().partition("[session_columns]")[0])
    bare = load_pipeline(str(file)).spec()
    assert "own_columns" not in json.loads(bare.to_json())  # as before there were any


def test_late_events_are_worked_in_exactly(tmp_path: Path):
    """Generated events, some of them late: after reconciling, the own columns are those of a batch over all."""
    generated = {"events": 1_200, "users": 30, "duration": "30h", "late_fraction": 0.05}
    settings: dict[str, object] = {
        **{f"input.generator.{name}": value for name, value in generated.items()},
        "input.kind": "generator",
        "rules.watermark": "maximum",
        "input.fields": {"address": "pageUrl", "spent": {"path": "amount", "type": "number"}},
        "session_columns": {
            "landing": {"first": "address"},
            "searched": {"distinct": "query_parameter(page, 'q')", "limit": 2},
            "spent_on": {"sum": "spent", "where": "value > 10 or page like '%a%'"},
            "views": {"count": True, "where": "event_type = 'PAGE_VIEW'"},
            "per_view": {"expression": "revenue / views"},
        },
    }
    config = pipeline(tmp_path, **settings)
    assert plan(config, now_ms=NOW_MS).run().late > 20
    assert rows_in(config, stored(config)) != batch_of(config)
    reconcile_tables(tmp_path, config)
    expected = batch_of(config)
    assert rows_in(config, stored(config)) == expected
    for name in ("landing", "searched", "spent_on", "views", "per_view"):
        assert any(row[name] for row in expected), name
