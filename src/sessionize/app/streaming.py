"""A pipeline's configuration → the parts of a stream, opened and wired. The composition root of streams.

What a part needs to be installed is said when it is asked for; what was opened is closed in any case.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sessionize.app.config import PipelineConfig
from sessionize.app.stream_parts import instance_of, live_view, open_source, sinks_of, state_folder
from sessionize.engine.batch import Job
from sessionize.engine.checkpoint import Checkpoints
from sessionize.engine.livefeed import LiveFeed
from sessionize.engine.local import Clock, LocalEngine, Tempo
from sessionize.engine.status import EpochReport, Status
from sessionize.engine.totals import Totals
from sessionize.errors import UnavailableError
from sessionize.ports import EpochSink
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
    clock: Clock | None = None,
) -> Iterator[StreamRun]:
    """Everything that the pipeline names, opened. clock: None for the machine's.

    Errors: ConfigError, MissingExtraError, and those of the parts.
    """
    writer, telling = writer_name(config), _Telling(log, on_status, on_epoch)
    with ExitStack() as opened:
        checkpoints = Checkpoints(state_folder(config, writer), writer=writer)
        opened.callback(checkpoints.close)
        source = open_source(config, writer)
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
        view = live_view(config, writer, job)
        feed = None
        if view is not None:
            opened.callback(view.close)
            every_s = parse_duration_ms(config.stream.live, name="stream.live") / 1000
            feed = LiveFeed(view, every_s=every_s, on_outage=telling.view)
        engine = LocalEngine(
            source,
            sinks,
            job,
            checkpoints,
            lateness_ms=config.rules.lateness_ms,
            tempo=tempo_of(config),
            writer=writer,
            live=feed,
            enrich=config.output.kafka is not None and config.output.kafka.enriched is not None,
            clock=clock,
            stopping=stopping,
            on_status=telling.status,
            on_epoch=telling.epoch,
            on_step=on_step,
        )
        yield StreamRun(config, engine)


class _Telling:
    """Passes on what the engine tells, with the servers that it does not wait for: those of live views."""

    def __init__(
        self,
        log: "StreamLog | None",
        on_status: Callable[[Status], None],
        on_epoch: Callable[[EpochReport], None],
    ) -> None:
        self._log, self._on_status, self._on_epoch = log, on_status, on_epoch
        self._views: dict[str, str] = {}

    def status(self, now: Status) -> None:
        whole = replace(now, away={**now.away, **self._views})
        if self._log is not None:
            self._log.away(whole.away)
        self._on_status(whole)

    def epoch(self, report: EpochReport) -> None:
        if self._log is not None:
            self._log.epoch(report)
        self._on_epoch(report)

    def view(self, error: UnavailableError | None) -> None:
        """The view is away, or (None) back; told with the next status."""
        self._views = {} if error is None else {"redis": error.message}


def writer_name(config: PipelineConfig) -> str:
    """Under which name epochs are recorded: one for each process that may write."""
    if config.stream.writer is not None:
        return config.stream.writer
    share = instance_of(config)
    if config.input.kind == "kafka" and config.input.kafka.partitions is not None:
        return f"{config.name}-p{config.input.kafka.partitions.replace(' ', '').replace(',', '_')}"
    return config.name if share is None else f"{config.name}-{share[0]}"


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
