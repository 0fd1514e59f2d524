"""The shape of the code: small modules, short functions, `__init__` that only re-exports, telling names."""

import ast
from pathlib import Path

import pytest

import sessionize

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "src").rglob("*.py"))
EVERYTHING = [
    *MODULES,
    *(path for name in ("tests", "benchmarks", "examples") for path in sorted((ROOT / name).rglob("*.py"))),
]
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
MODULES_OF_A_ROOM_MAX = 30
NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "misc"}


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a public function's docstring, whose sections users read. Other docstrings count as code."""
    text = ast.get_docstring(node, clean=False)
    return 0 if text is None or node.name not in sessionize.__all__ else text.count("\n") + 1


def test_there_are_modules_to_look_at() -> None:
    assert len(MODULES) > 10


def test_modules_are_small() -> None:
    lines = {shown(path): len(path.read_text(encoding="utf-8").splitlines()) for path in EVERYTHING}
    assert {path: n for path, n in lines.items() if n > MODULE_LINES_MAX} == {}


def test_functions_are_short() -> None:
    long = {
        f"{shown(path)}:{node.lineno} {node.name}": lines
        for path in MODULES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1 - docstring_lines(node)) > FUNCTION_LINES_MAX
    }
    assert long == {}


def test_every_module_opens_with_its_idea() -> None:
    assert [shown(path) for path in MODULES if ast.get_docstring(parsed(path)) is None] == []


@pytest.mark.parametrize("path", [p for p in MODULES if p.name == "__init__.py"], ids=shown)
def test_every_room_says_what_is_in_it(path: Path) -> None:
    idea = ast.get_docstring(parsed(path)) or ""
    assert len(idea.split()) >= 5, idea


def test_no_room_is_crowded() -> None:
    """A newcomer finds a module by reading one folder's names."""
    rooms: dict[Path, int] = {}
    for path in MODULES:
        rooms[path.parent] = rooms.get(path.parent, 0) + (path.name != "__init__.py")
    assert {shown(room): count for room, count in rooms.items() if count > MODULES_OF_A_ROOM_MAX} == {}


def test_no_module_is_named_after_nothing() -> None:
    found = {shown(path) for path in MODULES if {*path.parent.parts, path.stem} & NAMES_THAT_SAY_NOTHING}
    assert found == set()


@pytest.mark.parametrize("path", [p for p in MODULES if p.name == "__init__.py"], ids=shown)
def test_init_files_only_re_export(path: Path) -> None:
    others = [node for node in parsed(path).body if not only_re_exports(node)]
    found = [f"line {node.lineno}: {ast.unparse(node)[:80]}" for node in others]
    assert found == []


def only_re_exports(node: ast.stmt) -> bool:
    """A docstring, imports (also under TYPE_CHECKING), __all__, _private constants, the lazy __getattr__."""
    match node:
        case ast.Expr(value=ast.Constant(value=str())) | ast.Import() | ast.ImportFrom():
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=[]):
            return all(isinstance(inner, ast.Import | ast.ImportFrom) for inner in node.body)
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name.startswith("_") and not any(isinstance(inner, ast.Lambda) for inner in ast.walk(node))
        case ast.FunctionDef(name=name):
            return name in {"__getattr__", "__dir__"}
    return False
