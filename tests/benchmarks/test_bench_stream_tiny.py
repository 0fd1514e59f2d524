"""The streaming benchmark as a user starts it, with a few events: filled, run, judged, measured; or it says why not."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sessionize.testing.services.java_parts import ServiceMissing, java, server_jars

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
EVENTS = 20_000


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Ours without an archive beside one floor, by name."""
    try:
        java()
        server_jars("kafka")
    except ServiceMissing as missing:
        pytest.skip(str(missing))
    folder = tmp_path_factory.mktemp("bench-stream")
    command = [sys.executable, str(BENCHMARKS / "stream.py"), "--events", str(EVENTS), "--peers", "floor-consume"]
    given = ["--ours", "sessionize, no archive", "--folder", str(folder), "--json", str(folder / "result.json")]
    done = subprocess.run([*command, *given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((folder / "result.json").read_text())["results"][str(EVENTS)]
    return {row["name"]: row for row in found}


def test_every_row_is_measured(rows: dict[str, dict[str, Any]]) -> None:
    assert list(rows) == ["sessionize, no archive", "floor-consume"]
    for row in rows.values():
        assert row["problem"] is None
        (run,) = row["runs"]
        assert run["cpu_s"] > 0
        assert run["wall_s"] > 0
        assert len(row["broker_cpu_s"]) == 1


def test_sessions_were_judged_and_reading_alone_makes_none(rows: dict[str, dict[str, Any]]) -> None:
    assert rows["sessionize, no archive"]["sessions"] > 0
    assert rows["floor-consume"]["sessions"] is None


@pytest.mark.parametrize("project", ["flink", "kstreams"])
def test_a_java_peer_that_cannot_be_built_keeps_its_row(project: str) -> None:
    code = (
        "import os, pathlib, tempfile, stream_contenders as c;"
        "c.BUILT = pathlib.Path(tempfile.mkdtemp()); c.java = lambda: 'java'; os.environ['PATH'] = '';"
        f"print(c.built({project!r})[1])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True, check=True)
    assert done.stdout == "not installed: there is no Maven (mvn) to get it with\n"
