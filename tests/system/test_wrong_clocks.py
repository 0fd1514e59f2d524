"""One wrong clock among many right ones, through whole pipelines: it costs its own event, and nobody else's."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sessionize.app.config.pipeline import PipelineConfig, load_pipeline
from sessionize.app.tables.reconcile import reconcile_tables
from sessionize.testing.services.kafka import KafkaServers
from sessionize.testing.tables import iceberg_rows
from tests.system.whole_runs import event, filled_topic, run

START_MS = 1_700_000_000_000
MINUTE_MS, HOUR_MS = 60_000, 3_600_000
FOLDER = """
name = "field"
[input]
kind = "directory"
paths = ["{folder}"]
[input.mapping]
user = "user_id"
time = "ts"
event_id = "id"
[run]
once = true
home = "{home}"
[stream]
reconcile = "none"
"""


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def visits(prefix: str, first_minute: int, count: int) -> list[dict[str, Any]]:
    return [
        {"user_id": f"n{i % 3}", "ts": START_MS + (first_minute + i) * MINUTE_MS, "id": f"{prefix}{i}"}
        for i in range(count)
    ]


def followed(folder: Path, **settings: object) -> PipelineConfig:
    """Three users for two hours, a clock eleven hours ahead in the middle, a phone that was offline at the end."""
    inbox = folder / "in"
    inbox.mkdir()
    fast = {"user_id": "fastclock", "ts": START_MS + 12 * HOUR_MS, "id": "fc"}
    phone = [{"user_id": "phone", "ts": START_MS + (1 + i) * MINUTE_MS, "id": f"c{i}"} for i in range(5)]
    for number, rows in enumerate((visits("a", 0, 60), [fast, *visits("b", 60, 60)], phone)):
        path = inbox / f"stream-{number}.ndjson"
        path.write_text(lines(rows))
        os.utime(path, (START_MS / 1000 + number, START_MS / 1000 + number))
    file = folder / "p.toml"
    file.write_text(FOLDER.format(folder=inbox, home=folder / "home"))
    return load_pipeline(str(file), environ={}, overrides=settings)


def test_a_followed_folder_with_a_fast_clock_and_a_phone_that_was_offline(tmp_path: Path) -> None:
    config = followed(tmp_path)
    accounting = run(config)
    assert Counter(row["user_id"] for row in iceberg_rows(config.home, "events")) == {
        "n0": 40,
        "n1": 40,
        "n2": 40,
        "fastclock": 1,
    }
    assert [row["user_id"] for row in iceberg_rows(config.home, "late_events")] == ["phone"] * 5
    assert (accounting.late, accounting.settled) == (5, 121)
    done = reconcile_tables(config.home, config, drained=True)
    assert done.added == 1
    counts = {row["user_id"]: row["event_count"] for row in iceberg_rows(config.home, "user_sessions")}
    assert counts == {"n0": 40, "n1": 40, "n2": 40, "fastclock": 1, "phone": 5}


def test_a_later_run_is_not_late_either(tmp_path: Path) -> None:
    """A run with --once ends the session of the fast clock too, and the watermark does not follow it."""
    config = followed(tmp_path)
    run(config)
    later = tmp_path / "in" / "stream-9.ndjson"
    later.write_text(lines(visits("d", 120 + 31, 60)))
    accounting = run(config)
    assert (accounting.late, accounting.settled) == (5, 181)


@pytest.mark.parametrize("place", [0, 1_000])
def test_one_clock_a_day_ahead_in_a_topic_of_now(tmp_path: Path, kafka: KafkaServers, place: int) -> None:
    """In the first of two partitions; the second one is healthy, and ends before the first."""
    import time

    now_ms = time.time_ns() // 1_000_000
    parts = [
        [event(f"u{p}{i % 40}", now_ms - 400_000 + i * 200) for i in range(count)]
        for p, count in enumerate((2_000, 1_000))
    ]
    parts[0].insert(place, event("fast", now_ms + 23 * HOUR_MS))
    topic = filled_topic(kafka, parts)
    file = tmp_path / "p.toml"
    file.write_text(
        f'name = "p"\n[input]\nkind = "kafka"\n[input.kafka]\nservers = "{kafka.servers}"\ntopic = "{topic}"\n'
        f'[run]\nonce = true\nhome = "{tmp_path / "home"}"\n[stream]\nepoch_rows = 300\n[rules]\nlateness = "1m"\n'
    )
    config = load_pipeline(str(file), environ={})
    accounting = run(config)
    assert (accounting.late, accounting.settled, accounting.rejected) == (0, 3_001, 0)
    kafka.send(topic, [event(f"v{i % 40}", now_ms + 1_800_001 + i * 200) for i in range(500)], partition=1)
    assert run(config).late == 0


def test_the_maximum_makes_all_late_that_comes_after(tmp_path: Path) -> None:
    config = followed(tmp_path, **{"rules.watermark": "maximum"})
    assert run(config).late == 65
