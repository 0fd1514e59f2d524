"""Some dozens of kills, and every table equal to the oracle. `make chaos` does a thousand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sessionize.testing.services.kafka import KafkaServers

KILLS = 20
CHAOS = Path(__file__).with_name("chaos.py")


@pytest.mark.parametrize(("seed", "more"), [(1, ["--no-topics"]), (1001, [])])
def test_killed_again_and_again(kafka: KafkaServers, seed: int, more: list[str]) -> None:
    command = [sys.executable, str(CHAOS), "--kills", str(KILLS), "--each", str(KILLS), "--seed", str(seed), "--json"]
    done = subprocess.run(
        [*command, "--servers", kafka.servers, *more], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.stdout, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["differences"] == []
    assert found["kills"] == KILLS + found["by_step"]["reconcile"]
    assert found["by_step"]["reconcile"] >= 2
    assert done.returncode == 0
    assert len(found["by_step"]) >= 4  # kills of several kinds took place
