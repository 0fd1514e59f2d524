"""What the commands say of themselves comes out as it was written."""

from collections.abc import Iterator

import click
import pytest
import typer
from rich.text import Text

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
