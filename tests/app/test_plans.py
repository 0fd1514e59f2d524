"""Plans of runs: values that say what a run comes to before anything is opened."""

import tomllib
from pathlib import Path
from typing import get_args

import pytest

from sessionize.app import build
from sessionize.app.config.pipeline import PipelineConfig, load_pipeline
from sessionize.app.config.sections import InputSection
from sessionize.app.hooks import Hooks
from sessionize.app.options import RunOptions
from sessionize.app.runs import ENGINES, RunPlan, plan
from sessionize.errors import ConfigError

STREAM = """
name = "web"
[input]
kind = "kafka"
dialect = "clicks"
[input.kafka]
servers = "broker-1:9092"
topic = "clicks"
instances = 4
[rules]
gap = "45m"
lateness = "5m"
start_events = ["login"]
[output.postgres]
dsn = "postgresql://user@db:5432/web?application_name=web"
password_env = "PGPASSWORD"
[output.redis]
url = "redis://cache:6379/1"
[output.kafka]
sessions = "out"
late = "out_late"
[stream]
maintain = "2h"
[run]
home = "here"
"""
FILES = """
name = "day"
[input]
paths = ["a.csv", "b.csv"]
[output]
kind = "csv"
path = "out/sessions.csv"
[run]
home = "here"
"""


def config(tmp_path: Path, text: str, **overrides: object) -> PipelineConfig:
    (tmp_path / "p.toml").write_text(text)
    return load_pipeline(str(tmp_path / "p.toml"), overrides=overrides, environ={})


def planned(tmp_path: Path, text: str, **overrides: object) -> RunPlan:
    return plan(config(tmp_path, text, **overrides))


def test_a_stream_is_planned_without_opening_anything(tmp_path: Path) -> None:
    """Neither the broker nor the database is there, and the host does not say which process it is."""
    assert dict(planned(tmp_path, STREAM).lines()) == {
        "pipeline": "web",
        "engine": "local",
        "input": "topic clicks at broker-1:9092, one of 4 processes",
        "records": "clicks",
        "rules": "gap 45m (exclusive), at most 2h (anchored), ids start; starts: login",
        "lateness": "5m (watermark confirmed)",
        "output postgres": "postgresql://user@db:5432/web?application_name=web",
        "output iceberg": "sessions.user_sessions in here",
        "output kafka": "topics out, out_late at broker-1:9092",
        "output redis (open sessions)": "redis://cache:6379/1",
        "state": "here/state/web-N",
        "beside it": "late events are reconciled every 1h; the tables are maintained every 2h",
    }
    assert not Path("here").exists()


def test_what_runs_beside_a_stream_depends_on_the_run(tmp_path: Path) -> None:
    once = planned(tmp_path, STREAM, **{"run.once": True, "input.kafka.instance": 2})
    assert once.beside == ("late events are reconciled once, at the end",)
    assert once.state == Path("here/state/web-2")
    assert planned(tmp_path, STREAM, **{"stream.reconcile": "none", "stream.maintain": "none"}).beside == ()


def test_files_are_planned(tmp_path: Path) -> None:
    assert dict(planned(tmp_path, FILES).lines()) == {
        "pipeline": "day",
        "engine": "batch",
        "input": "a.csv, b.csv",
        "records": "clickstream",
        "rules": "gap 30m (exclusive), at most 2h (anchored), ids start",
        "lateness": "none: files are read as a whole",
        "output csv": "out/sessions.csv",
        "output rejected records": "out/sessions.rejected.ndjson",
    }


@pytest.mark.parametrize("text", [STREAM, FILES])
def test_plans_are_equal_where_pipelines_are(tmp_path: Path, text: str) -> None:
    one, two = planned(tmp_path, text), planned(tmp_path, text)
    assert one == two
    assert one.lines() == two.lines()
    assert repr(one) == repr(two)
    assert one != planned(tmp_path, text, **{"rules.gap": "7m"})
    with pytest.raises(AttributeError):
        one.engine = "other"  # type: ignore[misc]


def test_what_cannot_be_done_is_told_when_the_plan_is_opened(tmp_path: Path) -> None:
    nothing = planned(tmp_path, FILES, **{"input.paths": []})
    assert nothing.input == "no files are named"
    with pytest.raises(ConfigError, match="nothing to read"), nothing.open():
        pytest.fail("it was opened")


def test_every_kind_of_input_has_a_factory_words_and_one_engine() -> None:
    kinds = set(get_args(InputSection.model_fields["kind"].annotation))
    assert set(build.SOURCES) | set(build.STREAM_SOURCES) == kinds == set(build.INPUTS)
    assert sorted(kind for engine in ENGINES.values() for kind in engine.inputs) == sorted(kinds)


def test_every_output_of_a_stream_has_a_factory() -> None:
    sections = {"postgres", "sqlite", "redis", "kafka", "lake", "console"}
    assert set(build.SINKS) | set(build.LIVE_VIEWS) == sections | {"iceberg"}
    assert set(build.STORES) <= set(build.SINKS)


def test_a_second_engine_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sessionize.app import runs

    opened: list[tuple[RunPlan, Hooks]] = []

    def open_other(each: RunPlan, hooks: Hooks) -> object:
        opened.append((each, hooks))
        raise ConfigError("the other engine was asked")

    other = runs.Engine(frozenset({"files"}), open_other)
    monkeypatch.setattr(runs, "ENGINES", {"other": other, **ENGINES})
    found = planned(tmp_path, FILES)
    assert found.engine == "other"
    hooks = Hooks()
    with pytest.raises(ConfigError, match="the other engine"):
        found.run(hooks)
    assert opened == [(found, hooks)]
    assert planned(tmp_path, STREAM).engine == "local"


def test_options_of_a_run_are_keys_of_its_pipeline() -> None:
    told: list[str] = []
    options = RunOptions(
        inputs=["a.csv"],
        once=True,
        again=True,
        gap="45",
        max_duration="120",
        settings=["rules.lateness=1m"],
        lateness="9m",
    )
    found = options.overrides(warn=told.append)
    assert {key: value for key, value in found.items() if value is not None} == {
        "input.kind": "files",
        "input.paths": ["a.csv"],
        "input.known_files": "again",
        "run.once": True,
        "rules.gap": "45m",
        "rules.max_duration": "5d",
        "rules.lateness": "1m",  # --set has the last word
    }
    assert told == ["--max-duration 120 is 120 hours; did you mean 120m?"]
    with pytest.raises(ConfigError, match="exclude each other"):
        RunOptions(again=True, new_only=True).overrides(warn=told.append)


def test_a_test_run_has_its_home_for_as_long_as_it_takes() -> None:
    options = RunOptions(test_mode=True)
    with options.loaded(warn=pytest.fail) as loaded:
        assert options.is_temporary
        assert loaded.home.is_dir()
        assert (loaded.input.kind, loaded.run.once) == ("generator", True)
    assert not loaded.home.exists()
    with RunOptions(test_mode=True, home=Path("kept")).loaded(warn=pytest.fail) as kept:
        assert kept.home == Path("kept")


def test_presets_are_planned() -> None:
    from sessionize.app.config.presets import preset_names, preset_text

    for name, _ in preset_names():
        found = plan(load_pipeline(name, environ={}))
        assert found.pipeline == tomllib.loads(preset_text(name)).get("name", name)
        assert found.lines()
