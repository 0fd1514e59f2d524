"""The benchmark of SQL as a user starts it, small: the query and the batch make as many sessions."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "sql.py"


def test_two_tables_at_a_tiny_size(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    command = [sys.executable, str(BENCHMARK), "--tiny", "--tables", "one", "--json", str(result)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(result.read_text())
    assert [(row["table"], row["engine"]) for row in rows] == [("one", "batch"), ("one", "sql")]
    assert rows[0]["sessions"] == rows[1]["sessions"] > 100
