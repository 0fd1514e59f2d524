"""Case files: events, a policy and the sessions they must make, in TOML, for every engine to run.

start_ms = 0                       # what `at` counts from
policy = { gap = "30m", ... }      # the options of Policy.of
rules = { end_events = [...] }     # the options of Rules
fields = { price = "number" }      # further fields of the events, with their types
session_columns = { n = { sum = "price" } }
events = [ { user = "u", at = "1h30m", id = "1", type = "view", page = "home", amount = 1.5, source = "a" } ]
[[sessions]]                       # in the order of user and start; columns left out are not checked
event_count = 1
"""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sessionize.session.columns import EVENT_TYPES, USER, SessionColumns, event_types
from sessionize.session.durations import parse_duration_ms
from sessionize.session.own_columns import read_columns
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules


@dataclass(frozen=True, slots=True)
class Case:
    """A case: events as dicts (user, time, id, type, page, amount, further fields), and the columns expected of each
    session.
    """

    name: str
    policy: Policy
    rules: Rules
    events: list[dict[str, Any]]
    sessions: list[dict[str, Any]]
    columns: SessionColumns = field(default_factory=SessionColumns)
    fields: dict[str, str] = field(default_factory=dict)

    def check(self, rows: list[Any]) -> None:
        """Compare session rows, sorted by user and start, with what the case expects."""
        found = [{key: row[key] for key in wanted} for row, wanted in zip(rows, self.sessions, strict=False)]
        assert found == self.sessions, f"{self.name}: {found}"
        assert len(rows) == len(self.sessions), f"{self.name}: {len(rows)} sessions, {len(self.sessions)} expected"


def read_case(path: Path) -> Case:
    """Read a case file."""
    case = tomllib.loads(path.read_text())
    start_ms = case.get("start_ms", 0)
    events = [
        {"time": start_ms + _offset_ms(event["at"]), **{k: v for k, v in event.items() if k != "at"}}
        for event in case["events"]
    ]
    sets: dict[str, Any] = {name: frozenset(types) for name, types in case.get("rules", {}).items()}
    rules = Rules(**sets)
    fields: dict[str, str] = case.get("fields", {})
    policy, sessions = Policy.of(**case["policy"]), case.get("sessions", [])
    columns = SessionColumns.every(bounces=bool(policy.bounce)).with_own(
        read_columns(case.get("session_columns", {})), {**event_types(EVENT_TYPES), **fields}, USER
    )
    return Case(path.stem, policy, rules, events, sessions, columns, fields)


def read_cases(folder: Path) -> list[Case]:
    """Every case of a folder, by name."""
    return [read_case(path) for path in sorted(folder.glob("*.toml"))]


def _offset_ms(text: str) -> int:
    sign = -1 if text.startswith("-") else 1
    return sign * parse_duration_ms(text.removeprefix("-"), name="at")
