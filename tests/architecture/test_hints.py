"""A hint names only options that the command has: every text of the code that names one is looked at.

An option belongs to the command that is named with it ("run --once", "--rejects FILE (batch, label)"), else to every
command that can come by the text, as WHO_COMES_BY says for each module.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from sessionize.cli.app import app

SOURCE = Path(__file__).parents[2] / "src" / "sessionize"
LOOKING = ("query", "explain", "pruning", "maintain", "rejected show", "rejected retry", "reconcile")
TABLES = ("run", "batch", "label", *LOOKING, "demo")
# Which commands can show the texts of a module that name an option without a command. testing/ is no command's.
WHO_COMES_BY: dict[str, tuple[str, ...]] = {
    "app/config/pipeline.py": ("run",),
    "app/config/errors.py": ("run", "reconcile", "rejected retry"),  # of a value that came by --set
    "app/tables/explain.py": ("explain",),
    "analytics/inspection/guess.py": ("batch",),  # options of the command that it prints
    "analytics/inspection/oddities.py": ("batch",),
    "app/files.py": ("batch", "label"),
    "app/questions/tune.py": ("tune",),
    "app/questions/user_parts.py": ("tune", "diff", "check"),
    "app/questions/check_sources.py": ("check",),
    "formats/dialect.py": ("batch", "label", "explain", "tune", "diff", "check"),
    "app/tables/home_folders.py": LOOKING,
    "app/tables/warehouse.py": LOOKING[:6],
    "app/tables/grown_files.py": ("run", "batch", "label"),
    "app/tables/loading.py": ("run", "batch", "label"),
    "app/config/values.py": ("run", "reconcile", "rejected retry"),
    "app/produce.py": ("produce",),
    "app/tables/reconcile.py": ("reconcile",),
    "app/tables/retry_rejected.py": ("rejected retry",),
    "connectors/kafka/same_topic.py": ("run",),
    "app/streams/run.py": ("run",),
    "app/sql.py": ("sql",),
    "app/sql_dbt.py": ("sql",),
    "sql/dbt.py": ("sql",),
    "cli/sql.py": ("sql",),
    "sql/dialects.py": ("sql",),
    "sql/event_table.py": ("sql",),
    "sql/session_columns.py": ("sql",),
    "sql/steps.py": ("sql",),
    "app/tables/rules.py": ("run",),
    "cli/demo.py": ("demo",),
    "cli/demo_stream.py": ("demo",),
    "cli/explain.py": ("explain",),
    "app/format_options.py": ("batch", "label", "explain"),
    "app/options.py": ("batch", "label"),
    "cli/batch.py": ("batch", "label"),
    "formats/absent_fields.py": ("batch", "label", "explain"),
    "formats/csv_text/parser.py": ("batch", "label", "explain"),
    "cli/maintain.py": ("maintain",),
    "cli/options.py": ("batch", "label"),
    "cli/output.py": ("query",),
    "cli/produce.py": ("produce",),
    "cli/reconcile.py": ("reconcile",),
    "cli/rejected.py": ("rejected retry",),
    "cli/query.py": ("query",),
    "cli/tune.py": ("tune",),
    "connectors/iceberg/catalog.py": TABLES,
    "connectors/iceberg/errors.py": TABLES,
    "connectors/iceberg/tables.py": ("run", "batch", "label", "rejected retry"),
    "connectors/kafka/partitions.py": ("run",),
    "engine/stream/topic_shares.py": ("run",),
    "kernel/snapshot.py": ("run",),
}
# Texts that are shown by other commands than the rest of their module.
EXCEPTIONS: dict[tuple[str, str], tuple[str, ...]] = {
    ("app/tables/rules.py", "name the pipeline that made them, or the --home of this one"): (
        "explain",
        "reconcile",
        "rejected retry",
    ),
    ("app/options.py", "--user FIELD --time FIELD"): ("batch", "label", "explain"),
    ("app/options.py", "--again and --new-only exclude each other"): ("run", "batch", "label"),
    **{
        ("cli/options.py", text): LOOKING[:5]
        for text in (
            "Folder for tables, catalog and state; default: that of --pipeline, or the only one.",
            "Iceberg database; default: that of --pipeline, or the only one in the home.",
        )
    },
    # what the demo shows is a run
    ("cli/demo_stream.py", "[bold]3  resumed with --once: reads the rest, closes open sessions"): ("run",),
    # the program's own, not a command's
    ("cli/app.py", "--help"): (),
    ("cli/app.py", "--version"): (),
}
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")


def options_of() -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}

    def look(command: Any, name: str) -> None:
        found[name] = frozenset(option for each in command.params for option in each.opts)
        for below, its in getattr(command, "commands", {}).items():
            look(its, f"{name} {below}".strip())

    for name, command in vars(typer.main.get_command(app))["commands"].items():
        look(command, name)
    return found


OPTIONS = options_of()
COMMANDS = "|".join(sorted((name.replace(" ", r"\s+") for name in OPTIONS), key=len, reverse=True))
BEFORE = re.compile(rf"(?:^|[\s`(])({COMMANDS})(?:\s+[^;,()`]*?)?\s+$")
AFTER = re.compile(r"^--[a-z-]+[^()]*\(([a-z, ]+)\)")


def texts() -> Iterator[tuple[str, int, str]]:
    """(module, line, text) of every text outside of docstrings that names an option; what is filled in is {}."""
    for path in sorted(SOURCE.rglob("*.py")):
        module = path.relative_to(SOURCE).as_posix()
        if module.startswith("testing/"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        passed = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if id(node) in passed:
                continue
            if isinstance(node, ast.JoinedStr):
                passed |= {id(part) for part in ast.walk(node)}
                text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            else:
                continue
            if OPTION.search(text):
                yield module, node.lineno, text


def declared(module: str, text: str) -> bool:
    """Whether it is the name of an option where the option is made."""
    return module.startswith("cli/") and OPTION.fullmatch(text) is not None and (module, text) not in EXCEPTIONS


FOUND = [(module, line, text) for module, line, text in texts() if not declared(module, text)]


def test_there_are_texts_to_look_at() -> None:
    assert len(FOUND) > 50
    assert {"run", "batch", "explain", "rejected retry"} <= OPTIONS.keys()
    assert "--once" in OPTIONS["run"]


@pytest.mark.parametrize(("module", "line", "text"), FOUND, ids=[f"{module}:{line}" for module, line, _ in FOUND])
def test_the_command_has_the_option(module: str, line: int, text: str) -> None:
    for match in OPTION.finditer(text):
        option, before, after = match[0], BEFORE.search(text[: match.start()]), AFTER.match(text[match.start() :])
        if before is not None:
            commands: tuple[str, ...] = (re.sub(r"\s+", " ", before[1]),)
        elif after is not None and all(name.strip() in OPTIONS for name in after[1].split(",")):
            commands = tuple(name.strip() for name in after[1].split(","))
        else:
            known = EXCEPTIONS.get((module, text), WHO_COMES_BY.get(module))
            assert known is not None, f"{module}:{line}: say in WHO_COMES_BY which commands can show {text!r}"
            commands = known
        lacking = [name for name in commands if option not in OPTIONS[name]]
        assert lacking == [], f"{module}:{line}: {text!r} names {option}, which {', '.join(lacking)} does not have"


def test_nothing_is_excepted_that_is_not_there() -> None:
    there = {(module, text) for module, _, text in texts()}
    assert set(EXCEPTIONS) - there == set()
    assert set(WHO_COMES_BY) - {module for module, _, _ in FOUND} == set()
