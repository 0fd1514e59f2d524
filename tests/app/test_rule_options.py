"""The rules of a command line: what is named lies over a definition, and both over the defaults."""

from pathlib import Path
from typing import Any

import pytest

from sessionize import GapBy, Policy, Rules, definition
from sessionize.app.config.pipeline import load_pipeline
from sessionize.app.options import RuleOptions
from sessionize.errors import ConfigError
from sessionize.session.known_definitions import DEFINITIONS


def over(**options: Any) -> tuple[Policy, Rules]:
    return RuleOptions(**options).over(
        Policy(), Rules(conversion_events=frozenset({"booking"})), warn=lambda text: None
    )


def test_every_rule_has_an_option() -> None:
    policy, rules = over(
        split_on_change=["source", "medium"], split_ignore=["(direct)"], day_start="Europe/Berlin", gap_by="app",
        gap_of=["tv=4h", "a=b=10"], max_events="500", min_events=2, min_duration="5s", bounce=["one_page", "10s"],
    )  # fmt: skip
    assert policy == Policy(
        gap_by=GapBy(field="app", gaps=(("tv", 14_400_000), ("a=b", 600_000))), day_start="Europe/Berlin",
        max_events=500, min_events=2, min_duration_ms=5_000, bounce=("one_page", "10s"),
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
        ({"max_events": "0"}, "at least 1"),
        ({"split_ignore": ["x"]}, "no effect"),
        ({"day_start": "Mars"}, "unknown time zone"),
        ({"bounce": ["quick"]}, "unknown condition"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        over(**options)
