"""Who may import what, beyond the layers that import-linter checks.

A heavy library has one door, and starting the program opens none, so that `import sessionize` and
`sessionize --help` stay quick.
"""

import ast
import graphlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"

# Library -> the only modules (with what is inside them) that may import it, anywhere in their code.
DOORS = {
    "confluent_kafka": ["sessionize.connectors.kafka", "sessionize.testing.services"],
    "deltalake": ["sessionize.connectors.delta"],
    "duckdb": ["sessionize.app.tables.query"],
    "fastavro": ["sessionize.formats.avro"],
    "msgspec": ["sessionize.formats"],
    "narwhals": ["sessionize.frames"],
    "psycopg": ["sessionize.connectors.sql_store.postgres", "sessionize.testing.services"],
    "pydantic": ["sessionize.app"],
    "pyiceberg": ["sessionize.connectors.iceberg"],
    "pyparsing": ["sessionize.connectors.iceberg"],
    "redis": ["sessionize.connectors.redis", "sessionize.testing.services"],
    "rich": ["sessionize.cli"],
    "sqlalchemy": ["sessionize.connectors.iceberg"],
    "sqlglot": ["sessionize.session.expressions", "sessionize.session.expression_values", "sessionize.sql"],
    "structlog": ["sessionize.app.streams.logs"],
    "tenacity": ["sessionize.engine"],
    "typer": ["sessionize.cli"],
}
# Import name -> name of the distribution, where the two differ.
DISTRIBUTIONS: dict[str, str] = {"confluent_kafka": "confluent-kafka"}
# sessionize.testing is used inside tests, so it may use the test libraries.
TEST_LIBRARIES = {"pytest", "hypothesis", "moto"}

# Loaded by the first command that needs them, never by starting up.
LATE = {*DOORS, "numpy", "pandas", "polars", "pyarrow"} - {"rich", "typer"}


def module_name(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def third_party_imports() -> Iterator[tuple[str, str, int]]:
    """Yields (importing module, imported top-level package, line), also for imports inside functions."""
    for path in sorted(SRC.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in imported_names(node):
                package = name.partition(".")[0]
                if package and package != "sessionize" and package not in sys.stdlib_module_names:
                    yield module_name(path), package, getattr(node, "lineno", 0)


def imported_names(node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names=aliases):
            return [alias.name for alias in aliases]
        case ast.ImportFrom(module=str(name), level=0):
            return [name]
        case ast.Call(func=ast.Name(id=call) | ast.Attribute(attr=call), args=[ast.Constant(value=str(name)), *_]):
            return [name] if call in {"import_module", "__import__", "find_spec"} else []
    return []


def is_inside(module: str, packages: list[str]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def test_each_heavy_library_has_one_door() -> None:
    found = [
        f"{module}:{line} imports {package}; only {', '.join(DOORS[package])} may"
        for module, package, line in third_party_imports()
        if package in DOORS and not is_inside(module, DOORS[package])
    ]
    assert found == []


def test_the_inside_does_not_import_the_outside() -> None:
    """`sessionize` re-exports from many layers; a layer that imported from it would import them all."""
    found = []
    for path in sorted(SRC.rglob("*.py")):
        module = module_name(path)
        if module == "sessionize" or is_inside(module, ["sessionize.cli", "sessionize.__main__"]):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Import(names=aliases) if any(alias.name == "sessionize" for alias in aliases):
                    found.append(f"{module}:{node.lineno}")
                case ast.ImportFrom(module="sessionize", names=aliases):
                    found += [f"{module}:{node.lineno}" for alias in aliases if not is_submodule(alias.name)]
    assert found == [], "write where the name lives: from sessionize.session.policy import Policy"


def is_submodule(name: str) -> bool:
    return (SRC / "sessionize" / name).is_dir() or (SRC / "sessionize" / f"{name}.py").is_file()


def test_every_import_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {Requirement(text).name for group in groups for text in group}
    found = [
        f"{module}:{line} imports {package}, which pyproject.toml does not list"
        for module, package, line in third_party_imports()
        if DISTRIBUTIONS.get(package, package) not in declared
        and not (package in TEST_LIBRARIES and is_inside(module, ["sessionize.testing"]))
    ]
    assert found == []


def modules_loaded_by(code: str) -> set[str]:
    """The top-level modules in a fresh interpreter after the code, which may exit. Warnings are errors."""
    report = "import atexit, sys; atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr))\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", report + code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stderr.split()}


def test_import_sessionize_loads_nothing_heavy() -> None:
    loaded = modules_loaded_by("import sessionize; assert sessionize.__all__")
    assert loaded & (LATE | {"rich", "typer"}) == set()


@pytest.mark.parametrize("arguments", ["--help", "batch --help", "run --help"])
def test_help_loads_nothing_heavy(arguments: str) -> None:
    argv = ["sessionize", *arguments.split()]
    call = f"from sessionize.cli.process import run_command_line; sys.argv = {argv!r}; sys.exit(run_command_line())"
    loaded = modules_loaded_by(call)
    assert "typer" in loaded
    assert loaded & (LATE - {"pydantic"}) == set()  # typer itself reads a command's options with pydantic


def test_the_package_has_its_public_names_and_nothing_else() -> None:
    code = (
        "import sessionize; assert sorted(dir(sessionize)) == sorted([*sessionize.__all__, '__version__'])\n"
        "assert all(hasattr(sessionize, name) for name in dir(sessionize))"
    )
    loaded = modules_loaded_by(code)
    assert "numpy" in loaded  # they are there when they are asked for


def test_the_version_is_that_of_the_package_and_costs_nothing_until_it_is_asked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    loaded = modules_loaded_by(f"import sessionize; assert sessionize.__version__ == {project['version']!r}")
    assert loaded & LATE == set()
    code = "import sys, sessionize; assert 'importlib.metadata' not in sys.modules"
    assert "sessionize" in modules_loaded_by(code)


def test_no_connector_is_left_out_of_the_rule_for_neighbours() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (rule,) = [contract for contract in contracts if contract["type"] == "independence"]
    packages = [path.parent.name for path in (SRC / "sessionize" / "connectors").glob("*/__init__.py")]
    assert sorted(rule["modules"]) == sorted(f"sessionize.connectors.{name}" for name in packages)


def imported_modules(path: Path, known: set[str]) -> set[str]:
    """The project's modules that a module imports, also within functions; what only types need does not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in {node.module, *inner} if name in known}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Not even within functions. A package that re-exports its own modules is one with them."""
    paths = {
        ".".join(path.relative_to(SRC).with_suffix("").parts): path
        for path in (SRC / "sessionize").rglob("*.py")
        if path.name != "__init__.py"
    }
    graph = {name: imported_modules(path, set(paths)) - {name} for name, path in paths.items()}
    assert sum(map(len, graph.values())) > 500
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle
