"""Processes that share a Kafka topic: each takes its place among the others before it reads, and says when it ended.

engine/stream/shares.py decides; here are the tables that remember, and the source that begins where others have ended.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sessionize.app.config.pipeline import PipelineConfig
from sessionize.app.config.secrets import resolved
from sessionize.app.streams.avro_input import client_settings
from sessionize.app.streams.build import instance_of
from sessionize.engine.stream.checkpoints import RecoveredState
from sessionize.engine.stream.shares import Place, Process, Share, check_place, drained, take_place
from sessionize.ports import Positions, Ranges, StreamBatch, StreamSource

if TYPE_CHECKING:
    from sessionize.connectors.iceberg import IcebergEpochSink


@dataclass(frozen=True, slots=True)
class Sharing:
    """A process and its place, which its tables look at before each epoch."""

    process: Process
    place: Place
    tables: "IcebergEpochSink"

    def source(self, source: StreamSource) -> StreamSource:
        """The source, reading on from where others have ended."""
        return _FromOthers(source, self.place.begin) if self.place.generation > 1 else source

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


@dataclass(slots=True)
class _FromOthers:
    """A source that reads partitions on from where other processes have ended, unless its own state is further."""

    source: StreamSource
    begin: Positions

    @property
    def event_columns(self) -> frozenset[str]:
        """As the source's."""
        return self.source.event_columns

    @property
    def user_name(self) -> str:
        """As the source's."""
        return self.source.user_name

    def partitions(self) -> frozenset[str]:
        """As the source's."""
        return self.source.partitions()

    def seek(self, positions: Positions) -> None:
        """Go on from these offsets, or from those of the others. Partitions that others read now do not count."""
        wanted = {
            place: max(positions.get(place, 0), self.begin.get(place, 0))
            for place in self.source.partitions()
            if place in positions or place in self.begin
        }
        self.source.seek(wanted)

    def poll(self, *, timeout_s: float, now_ms: int) -> list[StreamBatch]:
        """As the source's."""
        return self.source.poll(timeout_s=timeout_s, now_ms=now_ms)

    def read(self, ranges: Ranges, *, now_ms: int) -> Iterator[StreamBatch]:
        """As the source's."""
        return self.source.read(ranges, now_ms=now_ms)

    def caught_up(self) -> frozenset[str]:
        """As the source's."""
        return self.source.caught_up()

    def lag(self) -> int | None:
        """As the source's."""
        return self.source.lag()

    def close(self) -> None:
        """As the source's."""
        self.source.close()
