"""A pipeline's configuration → the parts of a stream, opened and wired. The composition root of streams.

What a part needs to be installed is said when it is asked for; what was opened is closed in any case.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sessionize.app.config import PipelineConfig
from sessionize.app.secrets import resolved, secret
from sessionize.engine.batch import Job
from sessionize.engine.checkpoint import Checkpoints
from sessionize.engine.livefeed import LiveFeed
from sessionize.engine.local import LocalEngine, Tempo
from sessionize.engine.status import EpochReport, Status
from sessionize.engine.totals import Totals
from sessionize.errors import MissingExtraError, UnavailableError
from sessionize.ports import EpochSink, StreamSource
from sessionize.session import columns as col
from sessionize.session.durations import parse_duration_ms

if TYPE_CHECKING:
    from sessionize.app.logs import StreamLog

STREAMS = ("kafka", "directory")


@dataclass(frozen=True, slots=True)
class StreamRun:
    """An opened stream."""

    config: PipelineConfig
    engine: LocalEngine

    def run(self) -> Totals:
        """Go on where the last run stopped (LocalEngine.run)."""
        return self.engine.run()

    def describe(self) -> str:
        """Where the sessions go."""
        output = self.config.output
        return output.path or f"{output.database}.{output.table} in {self.config.home}"


@contextmanager
def open_stream(
    config: PipelineConfig,
    *,
    stopping: threading.Event,
    log: "StreamLog | None" = None,
    on_status: Callable[[Status], None] = lambda status: None,
    on_epoch: Callable[[EpochReport], None] = lambda report: None,
    on_step: Callable[[str], None] = lambda step: None,
) -> Iterator[StreamRun]:
    """Everything that the pipeline names, opened. Errors: ConfigError, MissingExtraError, and those of the parts."""
    writer = writer_name(config)

    def status(now: Status) -> None:
        if log is not None:
            log.away(now.away)
        on_status(now)

    def committed(report: EpochReport) -> None:
        if log is not None:
            log.epoch(report)
        on_epoch(report)

    with ExitStack() as opened:
        checkpoints = Checkpoints(config.home / "state" / writer, writer=writer)
        opened.callback(checkpoints.close)
        source = open_source(config)
        opened.callback(source.close)
        job = Job(
            policy=config.policy(),
            rules=config.event_rules(),
            columns=col.SessionColumns.made_of(
                source.event_columns, only=None if config.output.columns is None else tuple(config.output.columns)
            ),
            user_name=source.user_name,
        )
        sinks: dict[str, EpochSink] = {}
        for name, make in sinks_of(config, writer, job).items():
            sinks[name] = make()
            opened.callback(sinks[name].close)
        engine = LocalEngine(
            source,
            sinks,
            job,
            checkpoints,
            lateness_ms=config.rules.lateness_ms,
            tempo=tempo_of(config),
            writer=writer,
            live=live_feed(config, job, log),
            enrich=config.output.kafka is not None and config.output.kafka.enriched is not None,
            stopping=stopping,
            on_status=status,
            on_epoch=committed,
            on_step=on_step,
        )
        yield StreamRun(config, engine)


def writer_name(config: PipelineConfig) -> str:
    """Under which name epochs are recorded: one for each process that may write."""
    if config.stream.writer is not None:
        return config.stream.writer
    share = instance_of(config)
    if config.input.kind == "kafka" and config.input.kafka.partitions is not None:
        return f"{config.name}-p{config.input.kafka.partitions.replace(' ', '').replace(',', '_')}"
    return config.name if share is None else f"{config.name}-{share[0]}"


def instance_of(config: PipelineConfig) -> tuple[int, int] | None:
    """(i, n) when the topic is split between n processes, of which this is number i; None for a whole topic."""
    from sessionize.connectors.kafka.partitions import instance_of as told_by_host

    kafka = config.input.kafka
    if config.input.kind != "kafka" or kafka.instances == 1:
        return None
    if kafka.instance is not None:
        return (kafka.instance, kafka.instances)
    return told_by_host(os.uname().nodename, kafka.instances)


def tempo_of(config: PipelineConfig) -> Tempo:
    """How the engine moves."""
    stream = config.stream

    def seconds(key: str) -> float:
        return parse_duration_ms(getattr(stream, key), name=f"stream.{key}") / 1000

    return Tempo(
        epoch_s=seconds("epoch"),
        epoch_rows_max=stream.epoch_rows,
        poll_s=seconds("poll"),
        idle_after_s=seconds("idle_after"),
        outage_s_max=seconds("outage"),
        once=config.run.once,
        drain=stream.drain,
    )


def open_source(config: PipelineConfig) -> StreamSource:
    """The input. Errors: ConfigError, MissingExtraError, InputError, UnavailableError."""
    if config.input.kind == "directory":
        from sessionize.connectors.files.follow import DirectorySource

        return DirectorySource(
            list(config.input_paths()),
            dialect=config.dialect(),
            extras=config.output.events,
            max_future_ms=config.rules.max_future_ms,
        )
    try:
        from sessionize.connectors.kafka.source import KafkaSource
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "confluent-kafka", "kafka", "reading from Kafka") from error
    kafka = config.input.kafka
    return KafkaSource(
        kafka.servers,
        kafka.topic,
        config.dialect(),
        decoder=_decoder(config),
        extras=config.output.events,
        partitions=kafka.partitions,
        instance=instance_of(config),
        security=resolved(kafka.settings),
        max_future_ms=config.rules.max_future_ms,
        start=kafka.start,
        on_expired=kafka.on_expired,
    )


def sinks_of(config: PipelineConfig, writer: str, job: Job) -> dict[str, Callable[[], EpochSink]]:
    """Name -> how to open it, in the order of writing: tables first, what others listen to last."""
    output, makers = config.output, dict[str, Callable[[], EpochSink]]()
    makers["iceberg"] = lambda: _iceberg(config, job)
    if output.lake is not None:
        makers["lake"] = lambda: _lake(config, writer)
    if output.sqlite is not None:
        makers["sqlite"] = lambda: _sqlite(config, job)
    if output.postgres is not None:
        makers["postgres"] = lambda: _postgres(config, job)
    if output.kafka is not None:
        makers["kafka"] = lambda: _kafka(config, writer, job)
    if output.console:
        makers["console"] = _console
    return makers


def _iceberg(config: PipelineConfig, job: Job) -> EpochSink:
    from sessionize.connectors import iceberg

    output = config.output
    return iceberg.IcebergEpochSink(
        open_catalog_of(config),
        user_name=job.user_name,
        database=output.database,
        tables=iceberg.EpochTables(
            sessions=output.table,
            events=iceberg.EVENTS if output.events else None,
            late=iceberg.LATE_EVENTS if output.events else None,
            rejected=iceberg.REJECTED_EVENTS if output.rejected else None,
        ),
    )


def _lake(config: PipelineConfig, writer: str) -> EpochSink:
    from sessionize.connectors.lake import ParquetLakeSink

    assert config.output.lake is not None  # asked for by sinks_of
    return ParquetLakeSink(config.home / Path(config.output.lake.path).expanduser(), writer=writer)


def _sqlite(config: PipelineConfig, job: Job) -> EpochSink:
    from sessionize.connectors.store import SqliteStore, StoreSink

    assert config.output.sqlite is not None  # asked for by sinks_of
    path = config.home / Path(config.output.sqlite.path).expanduser()
    return StoreSink(SqliteStore(path), user_name=job.user_name)


def _decoder(config: PipelineConfig) -> None:
    return None
