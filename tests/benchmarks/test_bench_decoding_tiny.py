"""The benchmark of decoding as a user starts it, small: both make the same rows, and the ratio is there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "decoding.py"


def test_logs_beside_duckdb(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    command = [sys.executable, str(BENCHMARK), "--tiny", "--json", str(result)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(result.read_text())
    assert found["wrong"] == []
    assert list(found["ratios"]) == ["sessionize", "DuckDB, the whole line", "DuckDB, up to the page"]
    assert all(ratio > 0 for ratios in found["ratios"].values() for ratio in ratios)


@pytest.mark.parametrize("kind", ["csv", "ndjson"])
def test_sessionize_alone(kind: str) -> None:
    command = [sys.executable, str(BENCHMARK), "--alone", kind, "--lines", "1000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    cost = json.loads(done.stdout)
    assert cost["problem"] is None
    assert cost["cpu_s"] > 0
