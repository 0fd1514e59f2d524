"""Kills at every point that has a name, and a hundred more; every table equals the oracle. `make chaos`: a thousand."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from sessionize.testing.services.kafka import KafkaServers
from tests.system.kills import ANY_MOMENT, points

KILLS = 100
ROOT = Path(__file__).parents[2]


def chaos(kafka: KafkaServers, *options: str, module: str = "chaos") -> Any:
    command = [sys.executable, "-m", f"tests.system.{module}", "--servers", kafka.servers, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, cwd=ROOT)
    assert done.stdout, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["differences"] == []
    assert done.returncode == 0
    return found


def test_killed_at_every_point_that_has_a_name(kafka: KafkaServers) -> None:
    found = chaos(kafka, "--json", "--each-point", "--seed", "1")
    assert set(points(with_topics=True)) <= set(found["by_step"])


def test_killed_again_and_again(kafka: KafkaServers) -> None:
    found = chaos(kafka, "--json", "--kills", str(KILLS), "--each", "50", "--pauses", "0", "--seed", "1001")
    assert found["kills"] >= KILLS
    assert found["by_step"][ANY_MOMENT] >= KILLS // 4
    assert len(found["by_step"]) >= 15  # kills of several kinds took place


def test_reconcile_and_maintain_killed_after_a_stream_and_beside_it(kafka: KafkaServers) -> None:
    found = chaos(kafka, "--kills", "5", "--seed", "1", module="chaos_upkeep")
    assert [found["by_step"][name] for name in ("reconcile", "maintain")] == [5, 5]
    assert [found["by_step"][f"{name} beside a stream"] for name in ("reconcile", "maintain")] == [5, 5]


def test_paused_killed_and_with_jumping_clocks_nothing_punctual_is_late(kafka: KafkaServers) -> None:
    found = chaos(kafka, "--pauses", "12", "--seed", "3", module="chaos_pauses")
    assert found["by_step"]["paused"] >= 5
    assert found["by_step"]["killed"] >= 1
    assert found["records"] > 500
