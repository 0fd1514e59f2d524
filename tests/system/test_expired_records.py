"""Records that Kafka deletes between an epoch's plan and its repetition: no two outputs may differ in silence."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from sessionize.app.config.pipeline import PipelineConfig, load_pipeline
from sessionize.engine.accounting import Accounting
from sessionize.engine.run_events import RecordsExpired
from sessionize.errors import InputError, StateError
from sessionize.testing.observers import RecordedEvents
from sessionize.testing.services.kafka import KafkaServers
from sessionize.testing.tables import check_run, iceberg_rows
from tests.system.whole_runs import Crash, crash_before, oracle_of, run

START_MS = 1_700_000_000_000
PIPELINE = """
name = "p"
[input]
kind = "kafka"
[input.kafka]
servers = "{servers}"
topic = "{topic}"
[rules]
lateness = "5m"
[output.sqlite]
path = "store.sqlite"
[output.lake]
path = "lake"
[stream]
reconcile = "none"
poll = "20ms"
[run]
once = true
home = "{home}"
"""


def records(first: int, count: int) -> list[bytes]:
    """On time, a few users, a session of each goes on from one call to the next."""
    return [
        json.dumps(
            {"uuid": f"u{n % 5}", "event_timestamp": str(START_MS + n * 1_000), "event_id": str(n), "page_name": "home"}
        ).encode()
        for n in range(first, first + count)
    ]


class Pipeline:
    """A topic of two partitions, which a pipeline has read a part of."""

    def __init__(self, folder: Path, kafka: KafkaServers) -> None:
        self.folder, self.kafka = folder, kafka
        self.topic = kafka.create_topic(f"in-{uuid.uuid4().hex[:8]}", 2)
        self.parts: list[list[bytes]] = [[], []]
        self.send(0, 40)
        self.run()

    def send(self, first: int, count: int) -> None:
        for number, part in enumerate(self.parts):
            more = records(first, count)[number::2]
            self.kafka.send(self.topic, more, partition=number)
            part += more

    def config(self, *, on_expired: str, drain: bool) -> PipelineConfig:
        path = self.folder / "p.toml"
        path.write_text(
            PIPELINE.format(servers=self.kafka.servers, topic=self.topic, home=self.folder / "home").replace(
                "[rules]", f'on_expired = "{on_expired}"\n[rules]'
            )
        )
        return load_pipeline(str(path), overrides={"stream.drain": drain}, environ={})

    def run(self, *, on_expired: str = "earliest", drain: bool = False, **more: Any) -> Accounting:
        return run(self.config(on_expired=on_expired, drain=drain), **more)

    def check(self, accounting: Accounting, *, gone: int = 0) -> None:
        """gone: so many of partition 0, behind the first 20 of it, were never read for good."""
        config = self.config(on_expired="fail", drain=True)
        parts = [self.parts[0][:20] + self.parts[0][20 + gone :], self.parts[1]]
        oracle = oracle_of(config, parts)
        assert not oracle.late
        check_run(config.home, oracle, config.policy(), config.event_rules(), accounting, user="uuid")

    def everything(self) -> list[list[str]]:
        names = ("user_sessions", "events", "late_events", "rejected_events")
        return [sorted(map(repr, iceberg_rows(self.folder / "home", name))) for name in names]


@pytest.fixture
def pipeline(tmp_path: Path, kafka: KafkaServers) -> Pipeline:
    return Pipeline(tmp_path, kafka)


def test_an_epoch_that_nobody_has_is_repeated_without_them(pipeline: Pipeline) -> None:
    pipeline.send(40, 100)
    with pytest.raises(Crash):
        pipeline.run(on_step=crash_before("write sqlite"))
    pipeline.kafka.delete_records(pipeline.topic, {0: 30})
    with pytest.raises(InputError, match=r"the next records to read have expired"):
        pipeline.run(on_expired="fail")
    events = RecordedEvents()
    with pytest.raises(Crash):  # one output has what is left, the others do not
        pipeline.run(on_step=crash_before("write iceberg"), observer=events)
    (expired,) = events.of(RecordsExpired)
    assert (expired.epoch, expired.level, expired.problem) == (
        2,
        "error",
        f"the source has only {pipeline.topic}[0]: 40 of 50 records from offset 20 to before 70; the epoch is planned "
        "again without the others",
    )
    pipeline.run()
    pipeline.send(140, 20)
    pipeline.check(pipeline.run(drain=True), gone=10)


@pytest.mark.parametrize("step", ["write iceberg", "commit"])
def test_an_epoch_that_an_output_has_is_not_repeated_without_them(pipeline: Pipeline, step: str) -> None:
    pipeline.send(40, 100)
    with pytest.raises(Crash):
        pipeline.run(on_step=crash_before(step))
    before = pipeline.everything()
    pipeline.kafka.delete_records(pipeline.topic, {0: 30, 1: 70})
    for _again in range(2):
        with pytest.raises(StateError, match="written already are gone") as caught:
            pipeline.run()
        assert f"{pipeline.topic}[0]: 40 of 50 records from offset 20 to before 70" in str(caught.value.detail)
        assert f"{pipeline.topic}[1]: 0 of 50 records" in str(caught.value.detail)
        assert "sqlite" in str(caught.value.detail)
        assert caught.value.hint
    assert pipeline.everything() == before


def test_more_is_gone_after_one_output_has_what_was_left(pipeline: Pipeline) -> None:
    pipeline.send(40, 100)
    with pytest.raises(Crash):
        pipeline.run(on_step=crash_before("planned"))
    pipeline.kafka.delete_records(pipeline.topic, {0: 30})
    with pytest.raises(Crash):
        pipeline.run(on_step=crash_before("write sqlite"))
    pipeline.kafka.delete_records(pipeline.topic, {0: 35})
    with pytest.raises(Crash):
        pipeline.run(on_step=crash_before("write lake"))
    pipeline.kafka.delete_records(pipeline.topic, {0: 36})
    with pytest.raises(StateError, match="written already are gone"):
        pipeline.run()


def test_a_whole_range_is_gone_and_more_behind_it(pipeline: Pipeline) -> None:
    pipeline.send(40, 20)
    with pytest.raises(Crash):
        pipeline.run(on_step=crash_before("write sqlite"))
    pipeline.send(60, 20)
    pipeline.kafka.delete_records(pipeline.topic, {0: 35})
    pipeline.send(80, 20)
    pipeline.check(pipeline.run(drain=True), gone=15)
    assert pipeline.run(drain=True).balanced
