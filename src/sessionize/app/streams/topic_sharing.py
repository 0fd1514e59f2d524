"""Processes that share a Kafka topic: each takes its place among the others before it reads, and says when it ended.

engine/stream/topic_shares.py decides; here are the tables that remember.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sessionize.app.config.pipeline import PipelineConfig
from sessionize.app.config.secrets import resolved
from sessionize.app.streams.avro_input import client_settings
from sessionize.app.streams.names import instance_of
from sessionize.engine.stream.checkpoints import RecoveredState
from sessionize.engine.stream.topic_shares import Place, Process, Share, check_place, drained, take_place
from sessionize.ports import Positions

if TYPE_CHECKING:
    from sessionize.connectors.iceberg import IcebergEpochSink


@dataclass(frozen=True, slots=True)
class Sharing:
    """A process and its place, which its tables look at before each epoch."""

    process: Process
    place: Place
    tables: "IcebergEpochSink"

    @property
    def begin(self) -> Positions | None:
        """Where other processes have ended and the engine resumes; None where there was none before."""
        return self.place.begin if self.place.generation > 1 else None

    def ended(self, found: RecoveredState | None) -> None:
        """Every session of this process has ended and is committed: others may take over from here.

        found: the state now. Errors: those of a commit.
        """
        if found is None or found.header is None or found.plans:
            return
        changes = drained(self.process, self.place.generation, found.epoch, found.header["positions"])
        self.tables.note(lambda properties, epochs: changes)


def take_part(config: PipelineConfig, writer: str, tables: "IcebergEpochSink") -> Sharing:
    """Take a place among the processes that write these tables. Errors: those of take_place, and of a commit."""
    from sessionize.connectors.kafka.partitions import parse_partitions
    from sessionize.connectors.kafka.topic_id import topic_id

    kafka = config.input.kafka
    share = Share(
        None if kafka.partitions is None else parse_partitions(kafka.partitions), instance_of(config) or (0, 1)
    )
    process = Process(
        writer=writer,
        topic=kafka.topic,
        topic_id=topic_id(kafka.servers, kafka.topic, client_settings(resolved(kafka.settings))),
        share=share,
        take_over=kafka.take_over,
    )
    taken: list[Place] = []

    def decide(properties: Mapping[str, str], epochs: Mapping[str, int]) -> Mapping[str, str]:
        taken[:] = [take_place(process, properties, epochs)]
        return taken[0].changes

    tables.note(decide)
    place = taken[0]
    tables.before_each_epoch(lambda properties: check_place(process, place.generation, properties))
    return Sharing(process, place, tables)
