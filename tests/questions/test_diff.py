"""`diff` as a command: policies as they are typed, and the answer as tables, JSON and a page."""

from dataclasses import replace
from pathlib import Path

import pytest

from sessionize.app.questions.policies import side_of
from sessionize.errors import ConfigError
from sessionize.formats.dialects import dialect_named
from sessionize.session.known_definitions import DEFINITIONS, definition
from sessionize.session.policy import Policy
from tests.questions.commands import answer, asked, read_page

HOSTILE = "<script>alert(1)</script>&\"'\x1b[31m"
WORDS = ("--user", "user", "--time", "ts", "--event-type", "kind", "--page", "page", "--max-future", "none")


@pytest.fixture
def visits(tmp_path: Path) -> Path:
    """Two users: one with silences of 20 minutes, one who stays for three hours."""
    path = tmp_path / "visits.csv"
    quoted = HOSTILE.replace('"', '""')
    rows = [f'"{quoted}",{minute * 60_000},view,"{quoted}"' for minute in (0, 20, 40)]
    rows += [f"b,{minute * 60_000},{'exit' if minute == 60 else 'view'},/" for minute in range(0, 181, 10)]
    path.write_text("user,ts,kind,page\n" + "\n".join(rows) + "\n")
    return path


def test_the_summary_counts_and_explains(visits: Path) -> None:
    found = answer("diff", "gap=30m", "gap=15m,max_duration=none", visits, *WORDS)
    assert found["equal"] is False
    assert found["users_changed"] == 2
    assert found["figures"]["sessions"] == {"a": 3, "b": 4, "difference": 1}
    counts = {kind: each["count"] for kind, each in found["changes"].items() if each["count"]}
    assert counts == {"split": 1, "merged": 1}
    assert found["boundaries"] == [
        {"only_in": "b", "reason": "inactivity", "count": 2},
        {"only_in": "a", "reason": "max_duration", "count": 1},
    ]
    (split,) = found["examples"]["split"]
    assert split["user"] == HOSTILE
    assert split["boundaries"][0]["why"] == "inactivity: silence 20m > gap 15m"


def test_nothing_differs_from_itself(visits: Path) -> None:
    found = answer("diff", "default", "gap=30m", visits, *WORDS)
    assert (found["equal"], found["boundaries"], found["examples"]) == (True, [], {})
    assert "make the same sessions" in asked("diff", "default", "default", visits, *WORDS)


def test_a_rule_is_named_behind_its_boundary(visits: Path) -> None:
    found = answer("diff", "default", "end_events=exit", visits, *WORDS)
    assert {"only_in": "b", "reason": "rule:end_events", "count": 1} in found["boundaries"]


@pytest.mark.parametrize("memory", ["2GB", "1KB"])
def test_examples_are_as_many_as_wanted(visits: Path, memory: str) -> None:
    found = answer("diff", "gap=30m", "gap=5m", visits, *WORDS, "--limit", 0, "--memory", memory)
    assert found["examples"] == {}
    split = found["changes"]["split"]
    assert (split["count"], split["sessions_a"], split["sessions_b"]) == (3, 3, 22)


@pytest.mark.parametrize("width", [60, 100])
def test_the_terminal_shows_it_without_control_characters(visits: Path, width: int) -> None:
    said = asked("diff", "gap=30m", "gap=15m", visits, *WORDS, width=width)
    assert "\x1b" not in said
    assert "only in B" in said
    assert "B makes" in said


def test_the_page_shows_hostile_users_as_text(visits: Path, tmp_path: Path) -> None:
    report = tmp_path / "diff.html"
    asked("diff", "gap=30m", "gap=15m,max_duration=none", visits, *WORDS, "-o", report)
    said = "".join(read_page(report.read_text(encoding="utf-8")).itertext())
    assert HOSTILE.replace("\x1b", "\N{REPLACEMENT CHARACTER}") in said
    assert "silence 20m > gap 15m" in said


DIALECT = dialect_named("clickstream")


def test_a_policy_is_keys_a_pipeline_or_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSIONIZE_RULES__GAP", "7m")
    assert side_of("default", DIALECT).policy == Policy()
    assert side_of("gap=45,max-duration=none", DIALECT).policy == Policy.of(gap="45m", max_duration=None)
    assert side_of("rules.gap=45m,max_duration=3", DIALECT).policy == Policy.of(gap="45m", max_duration="3h")
    monkeypatch.delenv("SESSIONIZE_RULES__GAP")
    file = tmp_path / "my.toml"
    file.write_text('[rules]\ngap = "20m"\nend_events = ["logout"]\n')
    assert side_of(str(file), DIALECT).policy == Policy.of(gap="20m")
    both = side_of(f'{file},gap_boundary=inclusive,start_events=["a,b", "c"]', DIALECT)
    assert both.policy == Policy.of(gap="20m", gap_boundary="inclusive")
    assert both.rules.start_events == {"a,b", "c"}
    assert both.rules.end_events == {"logout"}
    assert both.rules.conversion_events == set(DIALECT.conversion_events)
    assert side_of("conversion_events=paid", DIALECT).rules.conversion_events == {"paid"}


@pytest.mark.parametrize("name", sorted(DEFINITIONS))
def test_definitions_of_other_products_are_policies(name: str) -> None:
    known = definition(name)
    assert side_of(name, DIALECT).policy == known.policy
    assert side_of(name, DIALECT).rules.split_on_change == known.rules.split_on_change
    assert side_of(f"{name},gap=7m", DIALECT).policy == replace(known.policy, gap_ms=420_000)


def test_the_rules_that_compare_events_are_keys_too() -> None:
    side = side_of(
        'split_on_change=["source"],day_start=UTC,max_events=7,gap_by={field="page",gaps={tv="4h"}}', DIALECT
    )
    assert side.policy == Policy.of(day_start="UTC", max_events=7, gap_by={"field": "page", "gaps": {"tv": "4h"}})
    assert side.rules.split_on_change == {"source"}


def test_a_change_of_day_is_named_behind_its_boundary(tmp_path: Path) -> None:
    path = tmp_path / "night.csv"
    path.write_text("user,ts,kind,page\n" + "".join(f"a,{ms},view,/\n" for ms in (86_000_000, 86_399_999, 86_400_000)))
    found = answer("diff", "ga4", "mixpanel", path, *WORDS)
    assert found["boundaries"] == [{"only_in": "b", "reason": "rule:day_start", "count": 1}]
    assert found["changes"]["split"]["count"] == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gop=30m", "unknown rule"),
        ("gap=30m,x", "keys of its rules"),
        ("gap=soon", "gap"),
        ("nowhere", "no policy of this name"),
    ],
)
def test_what_is_no_policy_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        side_of(text, DIALECT)
