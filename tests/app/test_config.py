"""The pipeline file: what it means, and which place wins. What is refused is in test_config_errors.py."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pytest

from sessionize.app.config.pipeline import PipelineConfig, explain_config, load_pipeline
from sessionize.app.config.sections import DialectName, ProfileName
from sessionize.connectors.generator.settings import PROFILE_NAMES
from sessionize.errors import ConfigError
from sessionize.formats.dialects import DIALECTS, PROFILE_DIALECTS
from sessionize.session.policy import Policy


def load(
    folder: Path,
    text: str | bytes,
    *,
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> PipelineConfig:
    path = folder / "my.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_pipeline(str(path), overrides=overrides or {}, environ=environ or {})


# What a pipeline means.


def test_an_empty_file_is_all_defaults_and_is_called_like_the_file(tmp_path: Path) -> None:
    config = load(tmp_path, "")
    assert config == PipelineConfig(name="my")
    assert config.policy() == Policy()
    assert (config.rules.lateness_ms, config.rules.max_future_ms) == (600_000, 86_400_000)
    assert config.run.memory_bytes == 10**9
    assert config.output.database == "sessions"


def test_a_file_name_that_is_no_pipeline_name_is_made_one(tmp_path: Path) -> None:
    path = tmp_path / "my web shop.toml"
    path.write_text("")
    assert load_pipeline(str(path), environ={}).name == "my_web_shop"


def test_every_rule_reaches_the_policy(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        '[rules]\ngap = "45m"\ngap_boundary = "inclusive"\nmax_duration = "4h"\n'
        'max_duration_mode = "rolling"\nsession_ids = "sequential"\nlateness = 0\nmax_future = "None"\n',
    )
    assert config.policy() == Policy(
        gap_ms=45 * 60_000,
        gap_boundary="inclusive",
        max_duration_ms=4 * 3_600_000,
        max_duration_mode="rolling",
        session_ids="sequential",
    )
    assert (config.rules.lateness, config.rules.lateness_ms) == ("0s", 0)
    assert (config.rules.max_future, config.rules.max_future_ms) == ("none", None)
    assert load(tmp_path, '[rules]\nmax_duration = "none"').policy().max_duration_ms is None


def test_the_dialect_says_what_the_pipeline_leaves_out(tmp_path: Path) -> None:
    config = load(tmp_path, '[input]\ndialect = "ecommerce"\n[rules]\nend_events = ["logout"]')
    assert config.dialect() == DIALECTS["ecommerce"]
    rules = config.event_rules()
    assert rules.start_events == frozenset()
    assert rules.end_events == {"logout"}
    assert rules.conversion_events == {"purchase"}
    stated = load(tmp_path, '[rules]\nconversion_events = ["paid", "booked"]')
    assert set(stated.dialect().conversion_events) == stated.event_rules().conversion_events == {"paid", "booked"}


def test_a_mapping_takes_the_place_of_a_dialect(tmp_path: Path) -> None:
    config = load(tmp_path, '[input.mapping]\nuser = "who.id"\ntime = "ts"\ntime_format = "s"')
    dialect = config.dialect()
    assert config.input.dialect is None
    assert (dialect.user, dialect.event_time_ms, dialect.page) == (("who.id",), ("ts",), ())
    assert (dialect.user_name, dialect.time_format) == ("id", "s")


@pytest.mark.parametrize(
    ("size", "events", "span_ms"),
    [
        ("", 100_000, 86_400_000),
        ("events = 10", 10, 86_400_000),
        ('duration = "1h"', 100_000, 3_600_000),
        ("rate = 50", 100_000, 2_000_000),
        ('rate = 2\nduration = "1m"', 120, 60_000),
        ("rate = 0.5\nevents = 10", 10, 20_000),
        ('events = 10\nduration = "1m"', 10, 60_000),
    ],
)
def test_two_of_events_duration_and_rate_give_the_third(tmp_path: Path, size: str, events: int, span_ms: int) -> None:
    made = load(tmp_path, f'[input]\nkind = "generator"\n[input.generator]\n{size}').generator()
    assert (made.total_events, made.span_ms) == (events, span_ms)


def test_late_generated_events_are_later_than_the_lateness(tmp_path: Path) -> None:
    made = load(
        tmp_path,
        'input.kind = "generator"\ninput.dialect = "clicks"\nrules.lateness = "1h"\n'
        'input.generator.out_of_order = "2m"\ninput.generator.late_fraction = 0.5\n'
        "input.generator.seed = 9223372036854775807\ninput.generator.skew = 5\n"
        "input.generator.users = 10000000\n",
    ).generator()
    assert made.late_by_ms > 3_600_000 + made.out_of_order_ms == 3_600_000 + 120_000
    assert (made.profile, made.late_fraction) == ("clicks", 0.5)


def test_files_without_a_path_are_an_error_only_when_they_are_read(tmp_path: Path) -> None:
    config = load(tmp_path, "")
    with pytest.raises(ConfigError, match=r"^nothing to read") as caught:
        config.input_paths()
    assert "--input" in str(caught.value.hint)
    assert load(tmp_path, 'input.paths = ["a", "b"]').input_paths() == ("a", "b")


def test_home_may_start_with_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(tmp_path, 'run.home = "~/data"').home == tmp_path / "data"


def test_a_config_cannot_be_changed(tmp_path: Path) -> None:
    config = load(tmp_path, "")
    with pytest.raises(ValueError, match="frozen"):
        config.rules.gap = "1h"


def test_the_names_of_dialects_are_those_there_are() -> None:
    assert set(get_args(ProfileName)) == set(PROFILE_DIALECTS) == set(PROFILE_NAMES)
    assert {name for kind in get_args(DialectName) for name in get_args(kind)} == set(DIALECTS)


# The custom boundary.


def test_the_boundary_is_a_function_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "rules_beside.py").write_text("def after(events):\n    return [True] * events.num_rows\n")
    config = load(tmp_path, 'rules.boundary = "rules_beside:after"')
    boundary = config.event_rules().boundary
    assert boundary is not None
    assert boundary(pa.table({"user": ["a", "b"]})) == [True, True]
    assert config.event_rules().boundary_name == "after"


def test_a_boundary_beside_the_file_wins_over_other_modules_of_its_name(tmp_path: Path) -> None:
    found: list[object] = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "json.py").write_text(f"def number(events):\n    return [{number}]\n")
        boundary = load(folder, 'rules.boundary = "json:number"').event_rules().boundary
        assert boundary is not None
        found.append(boundary(pa.table({})))
    assert found == [[1], [2]]
    assert hasattr(sys.modules["json"], "dumps")


def test_a_boundary_may_import_from_its_folder_and_lie_in_a_package(tmp_path: Path) -> None:
    (tmp_path / "beside_answer.py").write_text("ANSWER = [True]\n")
    (tmp_path / "rules_package").mkdir()
    (tmp_path / "rules_package" / "web.py").write_text(
        "from beside_answer import ANSWER\n\ndef after(events):\n    return ANSWER\n"
    )
    boundary = load(tmp_path, 'rules.boundary = "rules_package.web:after"').event_rules().boundary
    assert boundary is not None
    assert boundary(pa.table({})) == [True]
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize(
    ("source", "named", "expected"),
    [
        (None, "rules_absent:f", ["no Python module rules_absent", "rules_absent.py into"]),
        (
            "x = 1\ndef after_log(t): ...\n",
            "rules_a:after_logout",
            ["no function after_logout", "mean after_log?"],
        ),
        ("x = 1\n", "rules_b:x", ["no function x", "it has none"]),
        ("import nowhere_at_all\n", "rules_c:f", ["cannot be imported", "No module named 'nowhere_at_all'"]),
        ("raise SystemExit(0)\n", "rules_e:f", ["cannot be imported", "SystemExit: 0"]),
        ("1 / 0\n", "rules_d:f", ["cannot be imported", "ZeroDivisionError: division by zero"]),
    ],
)
def test_a_boundary_that_cannot_be_found_says_why(
    tmp_path: Path, source: str | None, named: str, expected: list[str]
) -> None:
    if source is not None:
        (tmp_path / f"{named.partition(':')[0]}.py").write_text(source)
    config = load(tmp_path, f'rules.boundary = "{named}"')
    with pytest.raises(ConfigError) as caught:
        config.event_rules()
    assert f"rules.boundary = {named!r}" in str(caught.value)
    for words in expected:
        assert words in str(caught.value)


# Which place wins.


def test_the_command_line_wins_over_the_environment_over_the_file_over_the_default(tmp_path: Path) -> None:
    text = '[rules]\ngap = "1m"\nlateness = "1m"\nmax_future = "1m"\n'
    environ = {"SESSIONIZE_RULES__GAP": "2m", "SESSIONIZE_RULES__LATENESS": "2m"}
    config = load(tmp_path, text, environ=environ, overrides={"rules.gap": "3m", "run.once": None})
    assert (config.rules.gap, config.rules.lateness, config.rules.max_future) == ("3m", "2m", "1m")
    assert (config.rules.max_duration, config.run.once) == ("2h", False)


def test_explain_says_where_each_value_came_from(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        '[rules]\ngap = "1m"\nstart_events = ["a", "b"]\n',
        environ={"SESSIONIZE_RULES__LATENESS": "2m", "SESSIONIZE_HOME": "/data"},
        overrides={"output.rejected": False},
    )
    rows = {key: (value, origin) for key, value, origin in explain_config(config)}
    assert rows["rules.gap"] == ('"1m"', f"file {tmp_path / 'my.toml'}")
    assert rows["rules.start_events"][0] == '["a", "b"]'
    assert rows["rules.lateness"] == ('"2m"', "environment SESSIONIZE_RULES__LATENESS")
    assert rows["run.home"] == ('"/data"', "environment SESSIONIZE_HOME")
    assert rows["output.rejected"] == ("false", "option")
    assert rows["rules.max_duration"] == ('"2h"', "default")
    assert rows["name"] == ('"my"', "default")
    assert "output.path" not in rows
    assert not any(key.startswith(("input.generator", "input.mapping")) for key in rows)


def test_the_environment_reads_values_and_tables_like_the_file(tmp_path: Path) -> None:
    environ = {
        "SESSIONIZE_INPUT__PATHS": '["a.ndjson", "b"]',
        "SESSIONIZE_OUTPUT__EVENTS": "false",
        "SESSIONIZE_RULES": '{ gap = "5m", end_events = ["logout"] }',
        "SESSIONIZE_LOG_LEVEL": "debug",
        "SESSIONIZE_DESCRIPTION": "web shop",
        "SESSIONIZE_NAME": "",
        "SESSIONIZER_OTHER": "is not ours",
        "PATH": "/bin",
    }
    config = load(tmp_path, "", environ=environ)
    assert config.input.paths == ("a.ndjson", "b")
    assert (config.output.events, config.run.log_level, config.rules.gap) == (False, "DEBUG", "5m")
    assert config.rules.end_events == ("logout",)
    assert (config.name, config.description) == ("my", "web shop")


def test_the_processs_own_environment_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSIONIZE_RULES__GAP", "7m")
    (tmp_path / "my.toml").write_text("")
    assert load_pipeline(str(tmp_path / "my.toml")).rules.gap == "7m"


@pytest.mark.parametrize(
    ("text", "overrides", "expected"),
    [
        (
            'input.kind = "generator"\ninput.generator.users = 5',
            {"input.kind": "files", "input.paths": ["a"]},
            {"input": {"kind": "files", "paths": ["a"], "dialect": "clickstream"}},
        ),
        (
            'input.paths = ["a"]\ninput.dialect = "clicks"',
            {"input.kind": "generator", "input.mapping.user": "u", "input.mapping.time": "t"},
            {"input": {"mapping": {"user": "u", "time": "t", "time_format": "auto"}}},
        ),
        (
            'input.mapping.user = "u"\ninput.mapping.time = "t"',
            {"input.dialect": "clicks"},
            {"input": {"dialect": "clicks"}},
        ),
        (
            'input.mapping.user = "u"\ninput.mapping.time = "t"',
            {"input.mapping.page": "p"},
            {"input": {"mapping": {"user": "u", "time": "t", "page": "p", "time_format": "auto"}}},
        ),
        (
            '[output]\nkind = "iceberg"\ntable = "t"\nevents = true\nmode = "append"',
            {"output.kind": "csv", "output.path": "o.csv"},
            {"output": {"kind": "csv", "path": "o.csv", "rejected": True}},
        ),
        (
            '[output]\nkind = "csv"\npath = "o.csv"',
            {"output.kind": "ndjson", "output.path": "o.jsonl"},
            {"output": {"kind": "ndjson", "path": "o.jsonl", "rejected": True}},
        ),
        (
            'rules.max_duration_mode = "rolling"',
            {"rules.max_duration": "none"},
            {"rules": {"max_duration": "none", "max_duration_mode": "anchored"}},
        ),
    ],
)
def test_a_newly_selected_mode_sets_aside_what_was_said_about_the_old_one(
    tmp_path: Path, text: str, overrides: dict[str, object], expected: dict[str, dict[str, object]]
) -> None:
    found = load(tmp_path, text, overrides=overrides).as_dict()
    for section, values in expected.items():
        if section == "output":
            assert found[section] == values
        else:
            assert found[section].items() >= values.items()
    assert ("mapping" in found["input"]) != ("dialect" in found["input"])


def test_configs_that_differ_are_not_equal(tmp_path: Path) -> None:
    assert load(tmp_path, "[rules]\ngap = '1m'") != load(tmp_path, "[rules]\ngap = '2m'")
