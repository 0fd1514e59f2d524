"""The rules of a command line: what is named lies over a definition, and both over the defaults."""

import json
from pathlib import Path
from typing import Any

import pytest

from sessionize import GapBy, Policy, Rules, definition
from sessionize.app.config.pipeline import load_pipeline
from sessionize.app.options import FileOptions, RecordOptions, RuleOptions
from sessionize.cli.fast_batch import quick_command
from sessionize.errors import ConfigError
from sessionize.session.known_definitions import DEFINITIONS


def over(**options: Any) -> tuple[Policy, Rules]:
    return RuleOptions(**options).over(
        Policy(), Rules(conversion_events=frozenset({"booking"})), warn=lambda text: None
    )


def test_every_rule_has_an_option() -> None:
    policy, rules = over(
        split_on_change=["source", "medium"], split_ignore=["(direct)"], day_start="Europe/Berlin", gap_by="app",
        gap_of=["tv=4h", "a=b=10"], max_events="500", min_events="2", min_duration="5s", bounce=["one_page", "10s"],
        duplicates="id", duplicates_within="1h",
    )  # fmt: skip
    assert policy == Policy(
        gap_by=GapBy(field="app", gaps=(("tv", 14_400_000), ("a=b", 600_000))), day_start="Europe/Berlin",
        max_events=500, min_events=2, min_duration_ms=5_000, bounce=("one_page", "10s"),
        duplicates="id", duplicates_within_ms=3_600_000,
    )  # fmt: skip
    assert rules.split_fields == ("medium", "source")
    assert rules.split_ignore == {"(direct)"}
    assert rules.conversion_events == {"booking"}
    assert over(gap_by="timeout:s")[0].gap_by == GapBy(field="timeout", unit="s")


@pytest.mark.parametrize("name", sorted(DEFINITIONS))
def test_a_definition_is_the_same_everywhere(name: str, tmp_path: Path) -> None:
    policy, rules = over(definition=name)
    assert policy == definition(name).policy
    assert rules.split_on_change == definition(name).rules.split_on_change
    assert rules.conversion_events == {"booking"}
    file = tmp_path / "p.toml"
    file.write_text(f"rules.definition = '{name}'\n")
    config = load_pipeline(str(file), environ={})
    assert config.policy() == policy
    assert config.rules.rules().split_on_change == rules.split_on_change
    assert all(source.startswith("https://") for source in definition(name).source)


def test_what_is_named_lies_over_the_definition() -> None:
    policy, rules = over(
        definition="matomo", gap="10m", max_duration="1h", day_start="none", split_on_change=["none"],
        max_events="none", bounce=["none"], session_ids="running",
    )  # fmt: skip
    assert policy == Policy(gap_ms=600_000, max_duration_ms=3_600_000, session_ids="running")
    assert not rules.split_on_change
    assert over(definition="posthog", max_duration="none")[0].max_duration_ms is None


def test_keys_of_a_file_lie_over_the_definition(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text(
        "[rules]\ndefinition = 'matomo'\ngap = '30m'\nday_start = 'none'\nsplit_on_change = []\nmax_events = 'none'\n"
        "bounce = []\nmax_duration = '2h'\n"
    )
    config = load_pipeline(str(file), environ={})
    assert config.policy() == Policy()
    file.write_text("[rules]\ndefinition = 'posthog'\nmax_duration = 'none'\n")
    assert load_pipeline(str(file), environ={}).policy() == Policy(max_duration_ms=None)
    assert load_pipeline(str(file), environ={"SESSIONIZE_RULES__DEFINITION": "adobe"}).policy().max_events == 2_500


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"definition": "ga5"}, "unknown definition"),
        ({"gap_of": ["tv=4h"]}, "--gap-of needs --gap-by"),
        ({"gap_by": "app", "gap_of": ["tv"]}, "--gap-of needs a value"),
        ({"gap_by": "timeout:weeks"}, "unknown unit"),
        ({"max_events": "many"}, "not a whole number"),
        ({"min_events": "2.5"}, "not a whole number"),
        ({"max_events": "0"}, "at least 1"),
        ({"split_ignore": ["x"]}, "no effect"),
        ({"day_start": "Mars"}, "unknown time zone"),
        ({"bounce": ["quick"]}, "unknown condition"),
        ({"duplicates": "time"}, "unknown duplicates"),
        ({"duplicates_within": "1h"}, "duplicates_within has no effect"),
        ({"duplicates": "id", "duplicates_within": "0s"}, "duplicates_within_ms must be at least 1"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        over(**options)


def test_a_command_line_with_every_rule(tmp_path: Path) -> None:
    """Missing sources split nothing; a session of one event is not written, and counted."""
    rows = [
        {"u": "a", "t": 0, "source": "news", "app": "tv"},
        {"u": "a", "t": 3_600_000, "app": "web"},
        {"u": "a", "t": 3_600_001, "source": "shop"},
        {"u": "a", "t": 3_600_002, "source": "pay.example"},
        {"u": "a", "t": 90_000_000},
    ]
    (tmp_path / "in.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = (
        "batch in.ndjson --user u --time t --field source=source --field app=app --split-on-change source "
        "--split-ignore pay.* --gap-by app --gap-of tv=2h --max-events 100 --min-events 2 --day-start UTC "
        "--bounce one_event -o out.ndjson"
    )
    command = quick_command([str(tmp_path / word) if "ndjson" in word else word for word in words.split()])
    assert command is not None  # read without typer
    command()
    made = [json.loads(line) for line in (tmp_path / "out.ndjson").read_text().splitlines()]
    assert [(row["event_count"], row["start_reason"], row["end_reason"], row["is_bounce"]) for row in made] == [
        (2, "inactivity", "rule:split_on_change", False),
        (2, "rule:split_on_change", "inactivity", False),
    ]


def test_a_field_that_is_not_mapped_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_text('{"u": "a", "t": 0}\n')
    records = RecordOptions(user="u", time="t")
    options = FileOptions(
        inputs=[str(tmp_path / "in.ndjson")],
        output=str(tmp_path / "out.csv"),
        records=records,
        rules=RuleOptions(definition="matomo"),
    )
    with pytest.raises(ConfigError, match="split_on_change needs a field") as refused:
        options.plan("sessions", now_ms=0, warn=lambda text: None)
    assert refused.value.hint == "map it with --field NAME=PATH, or turn split_on_change off"
    file = tmp_path / "p.toml"
    file.write_text("input.mapping = {user = 'u', time = 't'}\nrules.gap_by = {field = 'app'}\n")
    config = load_pipeline(str(file), environ={})
    with pytest.raises(ConfigError, match="gap_by needs a field"):
        config.definition(config.dialect().columns, "u")
