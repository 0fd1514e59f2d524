"""What the commands say of themselves comes out as it was written."""

from collections.abc import Iterator

import click
import pytest
import typer
from rich.text import Text
from typer.testing import CliRunner

from sessionize.cli.app import app


def described(command: click.Command, path: str) -> Iterator[tuple[str, str]]:
    """Every text of a command, its parameters and the commands below it."""
    for text in (command.help, command.epilog, *(getattr(each, "help", None) for each in command.params)):
        if text:
            yield path, text
    for name, below in getattr(command, "commands", {}).items():
        yield from described(below, f"{path} {name}".strip())


TEXTS = list(described(typer.main.get_command(app), ""))


@pytest.mark.parametrize("path", sorted({path for path, _ in TEXTS}))
def test_no_brackets_are_taken_for_markup(path: str) -> None:
    for where, text in TEXTS:
        assert where != path or Text.from_markup(text).plain == text


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command that does something itself."""
    below = getattr(command, "commands", {})
    if not below:
        yield path
    for name, each in below.items():
        yield from commands(each, (*path, name))


@pytest.mark.parametrize("path", sorted(commands(typer.main.get_command(app))), ids=" ".join)
def test_arguments_are_in_capital_letters(path: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    (usage,) = (line for line in done.stdout.splitlines() if "Usage:" in line)
    arguments = usage.partition("[OPTIONS]")[2].split()
    assert arguments == USAGE.get(" ".join(path), [])


def test_paragraphs_break_where_the_terminal_ends() -> None:
    said = CliRunner().invoke(app, ["explain", "--help"], env={"COLUMNS": "200"}).stdout
    assert "With --input, the events come from files, and the rules from --pipeline or the defaults." in said


USAGE = {
    "run": ["[PIPELINE]"],
    "batch": ["FILES..."],
    "label": ["FILES..."],
    "query": ["SQL"],
    "explain": ["USER"],
    "inspect": ["FILES..."],
    "tune": ["FILES..."],
    "check": ["[PIPELINE|FILES]..."],
    "diff": ["A", "B", "FILES..."],
    "sql": ["[PIPELINE]"],
    "reconcile": ["[PIPELINE]"],
    "rejected retry": ["[PIPELINE]"],
    "maintain": ["[TABLE]..."],
    "init": ["[PRESET]"],
}
