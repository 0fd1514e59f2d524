"""What tests of whole streams share: topics filled with records, runs to their end, the oracle of a pipeline."""

import json
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from sessionize.app.config.pipeline import PipelineConfig
from sessionize.app.streams.run import open_stream
from sessionize.engine.accounting import Accounting
from sessionize.engine.run_events import UNOBSERVED, Observer, Observers
from sessionize.testing.observers import Calls
from sessionize.testing.oracle import Oracle
from sessionize.testing.records import FAR_OFF_MS
from sessionize.testing.services.kafka import KafkaServers


class Crash(BaseException):
    """The process is gone."""


def crash_before(step: str, times: int = 1) -> Callable[[str], None]:
    """For on_step: the process is gone before the step comes for the n-th time."""
    left = [times]

    def crash(at: str) -> None:
        left[0] -= at == step
        if left[0] == 0:
            raise Crash

    return crash


def run(config: PipelineConfig, *, observer: Observer = UNOBSERVED, **more: Any) -> Accounting:
    """Run the pipeline as it is configured, to its end. more: of Calls, with on_ before the name; of open_stream."""
    calls = {name.removeprefix("on_"): more.pop(name) for name in tuple(more) if name.startswith("on_")}
    observers = Observers(Calls(**calls), observer)
    with open_stream(config, stopping=threading.Event(), observer=observers, **more) as opened:
        accounting = opened.run()
    assert accounting.balanced
    return accounting


def run_once(config: PipelineConfig, **more: Any) -> Accounting:
    """The same, until everything that is there now is processed."""
    return run(config.model_copy(update={"run": config.run.model_copy(update={"once": True})}), **more)


def filled_topic(kafka: KafkaServers, parts: Sequence[Sequence[bytes]]) -> str:
    """A new topic with these records in its partitions."""
    topic = kafka.create_topic(f"t-{uuid.uuid4().hex[:12]}", len(parts))
    for number, part in enumerate(parts):
        kafka.send(topic, part, partition=number)
    return topic


def oracle_of(config: PipelineConfig, parts: Sequence[Sequence[bytes]]) -> Oracle:
    """What the pipeline has to come to with these records."""
    return Oracle.of_json(
        parts,
        config.dialect(),
        lateness_ms=config.rules.lateness_ms,
        watermark=config.rules.watermark,
        latest_ms=FAR_OFF_MS,
    )


def event(user: str, time_ms: int, **more: Any) -> bytes:
    """A clickstream record with an id of its own."""
    record = {"uuid": user, "event_timestamp": str(time_ms), "event_id": uuid.uuid4().hex, "page_name": "home", **more}
    return json.dumps(record).encode()
