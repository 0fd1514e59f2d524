"""The benchmark of the tables as a user starts it, small: every figure is there, and every check holds."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "tables.py"


def test_all_tasks_at_a_tiny_size(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    command = [sys.executable, str(BENCHMARK), "--tiny", "--json", str(result)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(result.read_text())
    assert found["problems"] == []
    assert list(found["tables"]) == ["layouts", "backfill", "day", "reconcile", "statistics"]
    tables = {
        name: [dict(zip(header, row, strict=True)) for row in rows] for name, (header, rows) in found["tables"].items()
    }
    assert [row["layout"] for row in tables["layouts"]] == ["auto", "date", "date_bucket", "month", "none"]
    assert [row["phase"] for row in tables["day"]] == ["written", "maintained"]
    assert [row["on disk"] for row in tables["day"]] == ["12", "1"]
    for rows in tables.values():
        assert all(cell for row in rows for column, cell in row.items() if column != "peak MB")
