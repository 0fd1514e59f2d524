"""Under CI=true a skipped test is a failed one (tests/conftest.py)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

@pytest.mark.skip(reason="by mark")
def test_mark(): pass

def test_call(): pytest.skip("by call")

@pytest.mark.xfail(strict=True)
def test_known_fault(): assert False

def test_sound(): pass
"""
MODULE = "import pytest; pytest.importorskip('a_module_that_is_not_there')"


@pytest.mark.parametrize(
    ("ci", "exit_code", "summary"),
    [("true", 1, "1 failed, 1 passed, 1 xfailed, 2 errors"), ("", 0, "1 passed, 3 skipped, 1 xfailed")],
    ids=["in CI", "elsewhere"],
)
def test_skips_fail_only_in_ci(tmp_path: Path, ci: str, exit_code: int, summary: str) -> None:
    shutil.copy(Path(__file__).parents[1] / "conftest.py", tmp_path)
    (tmp_path / "test_some.py").write_text(TESTS, encoding="utf-8")
    (tmp_path / "test_whole.py").write_text(MODULE, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    options = ["-q", "-p", "no:cacheprovider", "--rootdir=.", "--continue-on-collection-errors"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=tmp_path,
        env=environment | {"CI": ci},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert summary in done.stdout
    assert done.returncode == exit_code
