"""`reconcile`, `rejected show` and `rejected retry` as commands: what they print, and how they end."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from sessionize.app.config.pipeline import load_pipeline
from sessionize.app.runs import plan
from sessionize.app.tables.warehouse import Warehouse
from sessionize.cli import rejected
from sessionize.cli.declared import for_typer
from sessionize.cli.reconcile import reconcile
from sessionize.errors import ConfigError

commands = typer.Typer()
commands.command("reconcile")(for_typer(reconcile))
commands.add_typer(rejected.app, name="rejected")
SETTINGS = {
    "input.generator.duration": "3h",
    "input.generator.events": 800,
    "input.generator.users": 20,
    "input.generator.late_fraction": 0.05,
    "input.generator.broken_fraction": 0.02,
}


def run(*arguments: str | Path) -> str:
    done = CliRunner().invoke(commands, [str(each) for each in arguments], env={"COLUMNS": "160"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return str(done.stdout)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("home")
    config = load_pipeline("user_sessionization_pipeline", overrides={**SETTINGS, "run.home": str(made)})
    accounting = plan(config, now_ms=1_900_000_000_000).run()
    assert accounting.late > 10
    assert accounting.rejected > 5
    return made


def test_reconcile_in_json_dry_in_a_window_and_for_real(home: Path) -> None:
    sql = "SELECT sum(event_count) AS n FROM user_sessions"
    before = Warehouse(home).query(sql)["n"].to_pylist()
    dry: dict[str, Any] = json.loads(run("reconcile", "--home", home, "--dry-run", "--json"))
    window = json.loads(run("reconcile", "--home", home, "--dry-run", "--json", "--window", "1h"))
    assert dry["added"] > 0
    assert window["late_events"] < dry["late_events"]
    assert Warehouse(home).query(sql)["n"].to_pylist() == before
    printed = run("reconcile", "--home", home)
    assert "reconciled" in printed
    assert f"{dry['replaced']:,}" in printed
    assert Warehouse(home).query(sql)["n"].to_pylist() > before
    again = json.loads(run("reconcile", "--home", home, "--json", "--drained"))
    assert (again["late_events"], again["added"]) == (0, 0)


def test_input_that_was_appended_twice_is_explained(tmp_path: Path) -> None:
    """Events count once, their sessions are there twice: nothing of these users is touched."""
    again = {**SETTINGS, "run.home": str(tmp_path), "input.known_files": "again"}
    config = load_pipeline("user_sessionization_pipeline", overrides=again)
    for _ in range(2):
        plan(config, now_ms=1_900_000_000_000).run()
    printed = run("reconcile", "--home", tmp_path)
    done = json.loads(run("reconcile", "--home", tmp_path, "--json"))
    assert done["incomplete_users"] > 0
    assert done["waiting"] > 0
    assert "users skipped: their stored sessions have more events than the archive" in printed
    assert "appended twice" in printed
    assert "may still be open" not in printed  # it was a batch: no session is open


def test_rejected_show_and_retry(home: Path) -> None:
    reasons = json.loads(run("rejected", "show", "--home", home, "--json"))
    total = sum(each["count"] for each in reasons)
    assert set(reasons[0]) == {"reason", "count", "example"}
    shown = run("rejected", "show", "--home", home)
    assert f"{total:,} rejected records" in shown
    assert [f"{each['reason']}  {each['count']:,}, for example" in shown for each in reasons] == [True] * len(reasons)
    assert json.loads(run("rejected", "--home", home, "--json")) == reasons
    with pytest.raises(ConfigError, match="options must follow the command"):
        run("rejected", "--home", home, "retry")
    done = json.loads(run("rejected", "retry", "--home", home, "--dry-run", "--json"))
    assert done["looked_at"] == total
    assert done["usable"] + sum(done["unusable"].values()) == total
    one = reasons[0]["reason"]
    printed = run("rejected", "retry", "--home", home, "--reason", one)
    assert "valid now" in printed
    assert f"still {one}" in printed


@pytest.mark.parametrize("command", [("reconcile", "--dry-run"), ("rejected", "retry", "--dry-run")], ids=" ".join)
def test_other_rules_than_those_of_the_tables_are_named_once(home: Path, command: tuple[str, ...]) -> None:
    plain = CliRunner().invoke(commands, [*command, "--home", str(home), "--json"])
    settings = ("--set", "rules.gap=5m", "--set", "input.dialect=clicks")
    other = CliRunner().invoke(commands, [*command, "--home", str(home), "--json", *settings])
    assert (plain.exit_code, other.exit_code) == (0, 0)
    assert plain.stderr == ""
    assert other.stderr == (
        "warning: the tables were made with another policy; using those of the tables: user column: uuid there, "
        "user_id here; rules.gap: 30m there, 5m here; rules.conversion_events: booking there, none here\n"
    )
    if command[0] == "reconcile":  # a retry reads the records by the dialect that is given
        assert other.stdout == plain.stdout


def test_errors_reach_the_command_line(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no tables yet"):
        run("reconcile", "--home", tmp_path)
    with pytest.raises(ConfigError, match="no tables yet"):
        run("rejected", "retry", "--home", tmp_path)
    with pytest.raises(ConfigError, match="not made by this pipeline") as caught:
        run("reconcile", "--home", home, "--set", "name=shop")
    assert "name: user_sessionization_pipeline there, shop here" in str(caught.value)
    with pytest.raises(ConfigError, match="--window"):
        run("reconcile", "--home", tmp_path, "--window", "soon")
