"""What the documents say is there, is there; and what is there is in the documents."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from sessionize.app.config.presets import preset_names
from sessionize.cli.app import app
from sessionize.formats.dialects import dialect_named
from sessionize.session.columns import SESSION_COLUMNS, USER

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SPEC = (ROOT / "docs" / "spec" / "sessions.md").read_text()
ROOT_COMMAND = typer.main.get_command(app)
COMMANDS = vars(ROOT_COMMAND)["commands"]


def commands_shown():
    """(command, options) of each `sessionize …` line in the README's blocks."""
    for line in README.splitlines():
        if line.startswith("$ sessionize "):
            words = shlex.split(line.removeprefix("$ "), comments=True)
            options = [word for word in words[1:] if word.startswith("-")]
            yield ("" if words[1] in options else words[1]), options


def test_the_readme_shows_commands():
    assert len(list(commands_shown())) >= 8


@pytest.mark.parametrize(("command", "options"), list(commands_shown()))
def test_commands_in_the_readme_exist(command, options):
    params = COMMANDS[command].params if command else ROOT_COMMAND.params
    known = {name for parameter in params for name in parameter.opts}
    assert set(options) <= known


def test_every_command_is_in_the_readme_or_the_changelog():
    told = README + (ROOT / "CHANGELOG.md").read_text()
    assert [name for name in COMMANDS if not re.search(rf"\b{name}\b", told)] == []


def test_every_session_column_is_in_the_spec():
    assert [name for name in SESSION_COLUMNS if name != USER and f"`{name}`" not in SPEC] == []


def test_every_preset_and_dialect_is_told():
    told = README + (ROOT / "CHANGELOG.md").read_text()
    dialects = ["clickstream", "user-events", "user_activity", "clicks", "ecommerce"]
    assert [name for name, _ in preset_names() if name not in told] == []
    assert [name for name in dialects if f"`{name}`" not in README or dialect_named(name).name != name] == []


def test_the_index_of_decisions_is_complete():
    folder = ROOT / "docs" / "adr"
    index = (folder / "README.md").read_text()
    assert [path.name for path in folder.glob("0*.md") if f"({path.name})" not in index] == []


@pytest.mark.parametrize("document", sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md")), ids=str)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        assert (document.parent / target).exists(), target


ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()


def test_every_module_that_architecture_names_is_there():
    package = ROOT / "src" / "sessionize"
    named = re.findall(r"`((?:[a-z_*<>]+/)+[a-z_*<>]+\.py)`", ARCHITECTURE)
    assert len(named) > 25
    missing = [name for name in named if "<" not in name and not any(list(at.glob(name)) for at in (package, ROOT))]
    assert missing == []


def test_every_room_is_in_architecture():
    package = ROOT / "src" / "sessionize"
    rooms = [p.name for p in package.iterdir() if p.is_dir() and (p / "__init__.py").exists()]
    rooms += [p.parent.name for p in package.glob("engine/*/__init__.py")] + [
        p.parent.name for p in package.glob("app/*/__init__.py")
    ]
    rooms += [p.parent.name for p in package.glob("connectors/*/__init__.py")]
    assert [room for room in rooms if room not in ARCHITECTURE] == []
