"""The lock files: complete, hashed, and without any address: a machine uses the index it is set up for."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT_LOCK = ROOT / "requirements.lock"
BENCHMARKS_LOCK = ROOT / "benchmarks" / "requirements.lock"
SQL_LOCK = ROOT / "tests" / "sql" / "requirements.lock"


def locked(path: Path) -> dict[str, list[str]]:
    """Package name -> the versions that a lock file holds of it."""
    versions: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE):
        versions.setdefault(canonicalize_name(name), []).append(version)
    return versions


def wanted_by_project() -> list[str]:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = pyproject["project"]["optional-dependencies"].values()
    groups = [pyproject["project"]["dependencies"], *extras, *pyproject["dependency-groups"].values()]
    return [requirement for group in groups for requirement in group]


def wanted_beside(lock: Path) -> list[str]:
    lines = lock.with_suffix(".in").read_text(encoding="utf-8").splitlines()
    return [line.partition(" #")[0] for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        (PROJECT_LOCK, wanted_by_project()),
        (BENCHMARKS_LOCK, wanted_beside(BENCHMARKS_LOCK)),
        (SQL_LOCK, wanted_beside(SQL_LOCK)),
    ],
    ids=["project", "benchmarks", "sql"],
)
def test_lock_satisfies_what_is_asked_for(path: Path, wanted: list[str]) -> None:
    versions = locked(path)
    unmet = [
        text
        for text in wanted
        if (need := Requirement(text)).name != "sessionize"
        and not any(need.specifier.contains(v) for v in versions.get(canonicalize_name(need.name), []))
    ]
    assert unmet == [], "run `make lock`"


@pytest.mark.parametrize("path", [PROJECT_LOCK, BENCHMARKS_LOCK, SQL_LOCK], ids=["project", "benchmarks", "sql"])
def test_lock_is_hashed_and_names_no_address(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "://" not in text
    assert re.findall(r"^\s*-(?!-hash=sha256:).*", text, re.MULTILINE) == [], "an option, such as an index"
    entries = re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]
    assert len(entries) == sum(map(len, locked(path).values()))
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_both_lock_files_agree_on_the_packages_they_share() -> None:
    ours, theirs = locked(PROJECT_LOCK), locked(BENCHMARKS_LOCK)
    shared = ours.keys() & theirs.keys()
    assert "pyarrow" in shared
    assert {name: theirs[name] for name in shared} == {name: ours[name] for name in shared}
