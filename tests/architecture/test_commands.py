"""Every command is a module of its name, which reads and prints; what it does is a use case that others can call."""

import ast
import importlib
from pathlib import Path

import typer.main

from sessionize.cli.app import app

CLI = Path(__file__).parents[2] / "src" / "sessionize" / "cli"
COMMANDS = vars(typer.main.get_command(app))["commands"]
# Shown in a terminal, beside what is loaded for it: they run the use cases of several commands, one after the other.
SHOWS = {"demo"}


def names_from_app(path: Path) -> set[str]:
    """What a module takes from sessionize.app, at its top or in a function; not what only types are checked by."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    return {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and id(node) not in for_types
        if (node.module or "").startswith("sessionize.app")
        for alias in node.names
    }


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 8


def test_every_command_is_in_the_module_of_its_name() -> None:
    for name, command in COMMANDS.items():
        module = importlib.import_module(f"sessionize.cli.{name}")
        own = getattr(module, name)
        if not hasattr(command, "commands"):
            assert own.__doc__.split()[:3] == command.help.split()[:3], name


def test_every_command_calls_a_use_case_and_opens_nothing_itself() -> None:
    """Parts, engines and catalogs are opened within a use case."""
    opens = {"open_stream", "open_batch", "open_stores", "sinks_of", "live_view", "load_pipeline", "run_query"}
    for name in COMMANDS.keys() - SHOWS:
        paths = [CLI / f"{name}.py"] + [CLI / "batch.py"] * (name == "label")
        names = set().union(*(names_from_app(path) for path in paths))
        assert names, f"{name} calls nothing of app"
        assert names & opens == set(), name
