"""What `batch` and `label` read by themselves is what typer reads; what they leave to typer is all the rest."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from sessionize.cli.app import app
from sessionize.cli.batch import batch
from sessionize.cli.fast_batch import _parameters, arguments_of, quick_command
from sessionize.cli.label import label

TYPER = vars(typer.main.get_command(app))["commands"]
COMMANDS = {"batch": batch, "label": label}
ORDINARY = [
    ["a.csv", "-o", "b.csv"],
    ["-o", "b.csv", "a.csv", "c.csv"],
    ["a.csv", "--output=b.csv", "--json", "--gap", "45m"],
    ["-", "-o", "b.csv", "--inactivity-timeout", "45", "--max-session-duration=none"],
    ["a.csv", "-o", "b.csv", "--start-events", "login", "--start-events=open", "--excluded-events", "beat"],
    ["a.csv", "-o", "b.csv", "--rejects", "bad/x.ndjson", "--home", "here", "--overwrite", "--dry-run"],
    ["a.csv", "-o", "b.csv", "--user", "u.id", "--time", "t", "--time-format", "s", "--value", ""],
    ["a.csv", "-o", "b.csv", "--gap", "1m", "--gap", "2m"],
    ["a.csv", "-o", "b=c.csv", "--output=b=d.csv"],
]
LEFT_TO_TYPER = [
    [],
    ["a.csv"],
    ["-o", "b.csv"],
    ["a.csv", "-o"],
    ["a.csv", "-ob.csv"],
    ["a.csv", "-o=b.csv"],
    ["a.csv", "-o", "b.csv", "--help"],
    ["a.csv", "-o", "b.csv", "-h"],
    ["a.csv", "-o", "b.csv", "--gpa", "1m"],
    ["a.csv", "-o", "b.csv", "--json=true"],
    ["a.csv", "-o", "b.csv", "--gap", "-5m"],
    ["a.csv", "-o", "b.csv", "--", "--strange"],
]


def by_typer(command: str, words: list[str]) -> dict[str, object]:
    return dict(TYPER[command].make_context(command, list(words)).params)


def as_typer_has_it(given: dict[str, object] | None) -> dict[str, object]:
    """A path is text, and an empty list is none, until typer calls the command."""
    assert given is not None
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}
    return {name: None if value == [] else value for name, value in lists.items()}


@pytest.mark.parametrize("command", ["batch", "label"])
@pytest.mark.parametrize("words", ORDINARY, ids=" ".join)
def test_ordinary_command_lines_mean_the_same(command: str, words: list[str]) -> None:
    given = arguments_of(COMMANDS[command], words)
    assert as_typer_has_it(given) == as_typer_has_it(by_typer(command, words))


@pytest.mark.parametrize("command", ["batch", "label"])
@pytest.mark.parametrize("words", LEFT_TO_TYPER, ids=" ".join)
def test_all_others_are_left_to_typer(command: str, words: list[str]) -> None:
    assert arguments_of(COMMANDS[command], words) is None


@pytest.mark.parametrize("seed", range(30))
def test_any_mixture_of_options_means_the_same(seed: int) -> None:
    rng = random.Random(seed)
    command = rng.choice(["batch", "label"])
    parameters = [each for each in _parameters(COMMANDS[command]) if each.declared.is_option]
    words: list[list[str]] = [["in.csv"], [rng.choice(["-o", "--output"]), "out.csv"]]
    for each in rng.sample(parameters, rng.randint(0, len(parameters))):
        name, value = rng.choice(each.names), rng.choice(["x", "30m", "1", "a b", "ü", "a=b"])
        if each.is_flag:
            words.append([name])
        elif name.startswith("--") and rng.random() < 0.5:
            words.append([f"{name}={value}"])
        else:
            words.append([name, value])
    rng.shuffle(words)
    line = [word for part in words for word in part]
    given = arguments_of(COMMANDS[command], line)
    assert as_typer_has_it(given) == as_typer_has_it(by_typer(command, line))


def test_the_environment_names_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSIONIZE_HOME", "there")
    words = ["a.csv", "-o", "b.csv"]
    assert as_typer_has_it(arguments_of(batch, words)) == as_typer_has_it(by_typer("batch", words))
    given = arguments_of(batch, [*words, "--home", "here"])
    assert given is not None
    assert given["home"] == Path("here")


def test_other_commands_are_left_to_typer() -> None:
    for words in ([], ["--help"], ["run"], ["--version"], ["query", "SELECT 1"]):
        assert quick_command(words) is None


def test_a_batch_loads_neither_typer_nor_pydantic_nor_rich(tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_text('{"uuid": "u", "event_timestamp": 1700000000000}\n')
    code = (
        "import atexit, sys; from sessionize.cli.process import run_command_line\n"
        "sys.argv = ['sessionize', 'batch', 'in.ndjson', '-o', 'out.csv']\n"
        "assert run_command_line() == 0\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "records read" in done.stderr
    assert set(done.stdout.split()) & {"typer", "click", "pydantic", "rich", "pandas", "duckdb", "pyiceberg"} == set()
