"""Two versions side by side as a developer starts it, with a few events: a repository with a sound and a broken one."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("src", "benchmarks", "scripts", "pyproject.toml", "requirements.lock")
BROKEN = "\nraise SystemExit(7)\n"


def git(repository: Path, *arguments: str) -> None:
    who = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
    subprocess.run(["git", "-C", str(repository), *who, *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tag sound, and the tag broken, whose command ends with 7; the files are those of sound."""
    folder = tmp_path_factory.mktemp("repository")
    for part in PARTS:
        if (ROOT / part).is_dir():
            skipped = shutil.ignore_patterns("__pycache__", "data", "results")
            shutil.copytree(ROOT / part, folder / part, ignore=skipped)
        else:
            shutil.copy(ROOT / part, folder / part)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "sound")
    git(folder, "tag", "sound")
    command = folder / "src" / "sessionize" / "cli" / "__init__.py"
    sound = command.read_text()
    command.write_text(sound + BROKEN)
    git(folder, "commit", "--quiet", "-am", "broken")
    git(folder, "tag", "broken")
    command.write_text(sound)
    return folder


def against(
    repository: Path, folder: Path, *arguments: str
) -> tuple[subprocess.CompletedProcess[str], dict[str, list[dict[str, Any]]]]:
    """What it said, and the rows by task: the other version's, then this one's."""
    result = folder / "result.json"
    command = [sys.executable, str(repository / "benchmarks" / "against.py"), "--tiny", "--folder", str(folder)]
    done = subprocess.run(
        [*command, "--json", str(result), *arguments], capture_output=True, text=True, check=False, cwd=folder
    )
    return done, json.loads(result.read_text())["results"] if result.exists() else {}


def test_both_versions_are_measured_and_judged(repository: Path, tmp_path: Path) -> None:
    done, results = against(repository, tmp_path, "sound", "--tasks", "batch,core,stream", "--variants", "A")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(results) == ["batch 100k A", "core 100,000", "stream, 100k", "stream, events kept, 100k"]
    for rows in results.values():
        assert [row["name"] for row in rows] == ["sound", "this"]
        for row in rows:
            assert row["problem"] is None
            (run,) = row["runs"]
            assert run["cpu_s"] > 0
    assert "with changes" in done.stdout
    assert "× CPU" in done.stdout


def test_it_is_the_other_version_that_runs(repository: Path, tmp_path: Path) -> None:
    done, results = against(repository, tmp_path, "broken", "--tasks", "batch", "--variants", "A")
    assert done.returncode == 1
    other, this = results["batch 100k A"]
    assert other["problem"] == "FAILED: exit code 7"
    assert this["problem"] is None


def test_a_revision_that_is_not_there_is_refused(repository: Path, tmp_path: Path) -> None:
    done, _ = against(repository, tmp_path, "no-such-version")
    assert done.returncode == 1
    assert "no-such-version" in done.stderr
