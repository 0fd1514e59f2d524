"""What a plain install lacks is said in one sentence with the command that installs it; what it has, works."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
MODULES = {"confluent-kafka": "confluent_kafka"}
# A process in which packages are missing, as they are after `pip install sessionize` without extras.
RUN = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
{code}
"""
MAIN = "from sessionize.cli import main; main()"
FOLDER = '[input]\nkind = "directory"\npaths = ["."]\n'


def packages_of(extra: str) -> set[str]:
    names = {Requirement(text).name for text in EXTRAS[extra]}
    return {MODULES.get(name, name) for name in names}


EVERY_EXTRA = set.union(*(packages_of(extra) for extra in EXTRAS if extra != "all"))


def run(
    folder: Path, *arguments: str, missing: set[str] = EVERY_EXTRA, code: str = MAIN
) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", RUN.format(missing=missing, code=code), *arguments]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SESSIONIZE_")}
    return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        {"uuid": f"u{n % 3}", "event_timestamp": 1_700_000_000_000 + 60_000 * n, "event_id": str(n)} for n in range(30)
    ]
    (tmp_path / "in.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "folder.toml").write_text(FOLDER)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "extras"),
    [
        (["run", "--once"], {"iceberg"}),
        (["run", "--test-mode"], {"iceberg"}),
        (["run", "kafka_stream"], {"stream", "kafka", "iceberg"}),
        (["run", "folder.toml"], {"stream", "iceberg"}),
        (["run", "folder.toml", "--set", "output.kind=csv", "--set", "output.path=o.csv"], {"stream"}),
        (["batch", "in.ndjson", "-o", "iceberg:a.b"], {"iceberg"}),
        (["label", "in.ndjson", "-o", "iceberg:a.b"], {"iceberg"}),
        (["batch", "delta:lake", "-o", "o.csv"], {"delta"}),
        (["batch", "iceberg:a.b", "--home", "there", "-o", "o.csv"], {"iceberg"}),
        (["query", "SELECT 1"], {"iceberg", "query"}),
        (["query", "SELECT 1", "--home", "there"], {"iceberg", "query"}),
        (["explain", "u", "--home", "there"], {"iceberg"}),
        (["pruning", "--home", "there"], {"iceberg"}),
        (["maintain", "--home", "there"], {"iceberg"}),
        (["reconcile", "folder.toml", "--home", "there"], {"iceberg"}),
        (["rejected", "--home", "there"], {"iceberg"}),
        (["rejected", "retry", "folder.toml", "--home", "there"], {"iceberg"}),
        (["produce", "--events", "5", "--kafka-servers", "x:1", "--topic", "t"], {"kafka"}),
        (["demo"], {"iceberg", "query"}),
        (["demo", "--stream"], {"iceberg", "query", "stream"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_command_says_what_is_missing_and_makes_nothing(folder: Path, arguments: list[str], extras: set[str]) -> None:
    before = sorted(os.listdir(folder))
    done = run(folder, *arguments)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith("error: ")
    assert "which is not installed" in lines[0]
    named = lines[1].partition("sessionize[")[2].partition("]")[0]
    assert lines[1] == f"  hint: pip install 'sessionize[{named}]'"
    assert named in extras
    assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["batch", "in.ndjson", "-o", "out.parquet", "--json"],
        ["label", "in.ndjson", "-o", "out.csv", "--json"],
        ["run", "--input", "in.ndjson", "--set", "output.kind=csv", "--set", "output.path=o.csv", "--json"],
        ["run", "--once", "--set", "output.kind=ndjson", "--set", "output.path=o.ndjson", "--json"],
        ["run", "kafka_stream", "--dry-run", "--json"],
        ["explain", "u1", "--input", "in.ndjson", "--json"],
        ["produce", "--sample"],
    ],
    ids=" ".join,
)
def test_what_a_plain_install_can_do(folder: Path, arguments: list[str]) -> None:
    done = run(folder, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout.splitlines()[0])


def test_frames_and_the_core_in_a_plain_install(folder: Path) -> None:
    code = """
import pyarrow as pa, sessionize
frame = pa.table({"u": ["a", "b"], "t": [1, 2]})
assert sessionize.sessions(frame, user="u", time="t").num_rows == 2
assert sessionize.label(frame, user="u", time="t").num_rows == 2
core = sessionize.Sessionizer(sessionize.Policy.of(gap="30m", max_duration="2h"))
core.push(pa.table({"user": ["a"], "event_time_ms": [1]}))
assert core.flush().num_rows == 1
"""
    done = run(folder, code=code)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_run_is_done_though_its_result_cannot_be_queried(folder: Path) -> None:
    """--test-mode shows the sessions at the end, which takes DuckDB."""
    done = run(folder, "run", "--test-mode", missing=packages_of("query"))
    assert done.returncode == 0, done
    assert done.stderr.splitlines()[-1] == (
        "a query needs the package duckdb, which is not installed: pip install 'sessionize[query]'"
    )


@pytest.mark.parametrize("extra", [extra for extra in EXTRAS if extra not in ("all", "iceberg", "stream")])
def test_one_extra_that_is_missing_stops_only_what_needs_it(folder: Path, extra: str) -> None:
    (folder / "inbox").mkdir()
    (folder / "folder.toml").write_text(FOLDER.replace('"."', '"inbox"'))
    done = run(folder, "run", "folder.toml", "--once", "--json", missing=packages_of(extra))
    assert done.returncode == 0, done
    assert json.loads(done.stdout)["consumed"] == 0


def test_a_package_that_no_part_of_ours_has_named_is_found_among_the_extras() -> None:
    from sessionize.app.extras import missing_extra

    found = missing_extra(ModuleNotFoundError("No module named 'fastavro.schema'", name="fastavro.schema"))
    assert found is not None
    assert (found.package, found.extra) == ("fastavro", "kafka")
    assert missing_extra(ModuleNotFoundError("No module named 'x'", name="x")) is None
