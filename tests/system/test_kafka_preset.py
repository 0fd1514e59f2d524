"""The way into streams that the README shows: `produce`, the preset that reads a topic, and what may not change."""

import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

from sessionize.app.config.pipeline import PipelineConfig, load_pipeline
from sessionize.app.streams.run import open_stream
from sessionize.app.tables.warehouse import Warehouse
from sessionize.errors import InputError, StateError
from sessionize.testing.services.kafka import KafkaServers
from tests.system.whole_runs import run

COMMAND = Path(sys.executable).with_name("sessionize")


def done(folder: Path, *arguments: str) -> str:
    ended = subprocess.run([COMMAND, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def preset(folder: Path, kafka: KafkaServers, topic: str, **overrides: object) -> PipelineConfig:
    keys = {key.replace("__", "."): value for key, value in overrides.items()}
    fixed = {"input.kafka.servers": kafka.servers, "input.kafka.topic": topic, "run.once": True}
    return load_pipeline("kafka_stream", overrides={**fixed, "run.home": str(folder / "home"), **keys}, environ={})


def produced(folder: Path, kafka: KafkaServers) -> str:
    topic = f"web-events-{uuid.uuid4().hex[:8]}"
    done(folder, "produce", "--kafka-servers", kafka.servers, "--topic", topic, "--events", "400", "--num-users", "20")
    return topic


def test_what_produce_sends_becomes_sessions_by_the_command(tmp_path: Path, kafka: KafkaServers) -> None:
    topic = produced(tmp_path, kafka)
    where = ("--kafka-servers", kafka.servers, "--kafka-topic", topic)
    done(tmp_path, "run", "kafka_stream", *where, "--once", "--set", "rules.gap=30s", "--set", "rules.lateness=5s")
    home = tmp_path / "sessionize-data" / "kafka_stream"
    counted = (
        Warehouse(home).query("SELECT sum(event_count) AS events, count(*) AS sessions FROM user_sessions").to_pylist()
    )
    late = Warehouse(home).query("SELECT count(*) AS n FROM late_events").to_pylist()[0]["n"]
    assert counted[0]["events"] + late == 400
    assert counted[0]["sessions"] >= 20


def test_what_stands_in_the_way_of_a_run_names_the_option_that_helps(tmp_path: Path, kafka: KafkaServers) -> None:
    topic = produced(tmp_path, kafka)
    with pytest.raises(InputError) as not_there:
        run(preset(tmp_path, kafka, topic, input__kafka__partitions="99"))
    assert "--partitions" in str(not_there.value.hint)
    config = preset(tmp_path, kafka, topic, stream__drain=False)
    with open_stream(config, stopping=threading.Event()) as opened:
        with pytest.raises(StateError) as held, open_stream(config, stopping=threading.Event()):
            pass
        assert "--home" in str(held.value.hint)
        assert opened.run().pending > 0
    with pytest.raises(StateError, match="other policy") as changed:
        run(preset(tmp_path, kafka, topic, rules__gap="45m"))
    assert "(--once), then starts in a new --home" in str(changed.value.hint)
