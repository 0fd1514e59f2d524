"""--json: exactly one JSON value on stdout, for every command that has it, with --dry-run too."""

import json

import pytest
import typer.main

from sessionize.cli.app import app

# Every command with --json, as it is run here; query is not among them, for it prints a line for each row.
COMMANDS = {
    "run": ["run", "--once", "--set", "input.generator.events=500", "--home", "again"],
    "batch": ["batch", "in.ndjson", "-o", "out.csv"],
    "label": ["label", "in.ndjson", "-o", "out.csv"],
    "explain": ["explain", "user-1", "--home", "home"],
    "pruning": ["pruning", "--home", "home"],
    "reconcile": ["reconcile", "--home", "home"],
    "rejected": ["rejected", "--home", "home"],
    "rejected show": ["rejected", "show", "--home", "home"],
    "rejected retry": ["rejected", "retry", "--home", "home"],
    "maintain": ["maintain", "--home", "home"],
    "tune": ["tune", "in.ndjson"],
    "inspect": ["inspect", "in.ndjson"],
    "check": ["check", "in.ndjson", "--max-future", "none"],
    "diff": ["diff", "default", "gap=5m", "in.ndjson"],
}


def options_of_commands(command=None, path=""):
    """{command: its options}, also of the commands below others."""
    command = command or typer.main.get_command(app)
    found: dict[str, set[str]] = {}
    for name, below in getattr(command, "commands", {}).items():
        found |= options_of_commands(below, f"{path} {name}".strip())
    if path:
        found[path] = {option for parameter in command.params for option in parameter.opts}
    return found


WITH_JSON = {path: options for path, options in options_of_commands().items() if "--json" in options}


def test_no_command_is_forgotten_here():
    assert set(WITH_JSON) == {*COMMANDS, "query"}


@pytest.fixture
def tables(sessionize, tmp_path):
    sessionize("run", "--once", "--set", "input.generator.events=2000", "--home", "home")
    sessionize("produce", "--events", "200", "-o", "in.ndjson", "-q")


def test_each_prints_one_value(sessionize, tables):
    for path, arguments in COMMANDS.items():
        ways = [["--json"], ["--json", "--dry-run"]] if "--dry-run" in WITH_JSON[path] else [["--json"]]
        for options in reversed(ways):  # the plan first, and then what it was of
            out = sessionize(*arguments, *options).out
            assert out.count("\n") == 1, f"{path} {options}: {out!r}"
            value = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
            assert isinstance(value, dict | list), (path, options)
            assert value, (path, options)


def test_query_prints_one_object_for_each_row(sessionize, tables):
    rows = sessionize("query", "SELECT sum(event_count) AS n FROM user_sessions", "--home", "home", "--json").rows
    assert isinstance(rows[0]["n"], int)
    assert sessionize("query", "FROM user_sessions LIMIT 3", "--home", "home", "--json").out.count("\n") == 3
    assert sessionize("query", "FROM user_sessions WHERE false", "--home", "home", "--json").out == ""


def test_a_plan_of_files_says_what_the_words_say(sessionize, tables):
    plan = sessionize("batch", "in.ndjson", "-o", "out.csv", "--gap", "45", "--dry-run", "--json").json
    assert plan["rules"].startswith("gap 45m (exclusive)")
    words = sessionize("batch", "in.ndjson", "-o", "out.csv", "--gap", "45", "--dry-run").out
    assert words == "".join(f"{name}: {value}\n" for name, value in plan.items())
