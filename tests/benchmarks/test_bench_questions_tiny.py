"""The benchmark of the questions as it is started, with 100,000 events: every answer is measured and right."""

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_every_question_is_measured(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "questions.py"), "--size", "100k", "--repeat", "1"]
    done = subprocess.run([*command, "--folder", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in (
        "tune",
        "diff, another gap",
        "diff, nothing differs",
        "check, events alone",
        "check, sessions recomputed",
    ):
        assert name in done.stdout
