"""The local engine's runs: the parts of a stream, opened as app/build.py says and wired; closed in any case."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, cast

from sessionize.app.build import STREAM_SOURCES, TABLES, SinkRun, live_view, sinks_of
from sessionize.app.config.pipeline import PipelineConfig
from sessionize.app.streams.logs import warnings_observed
from sessionize.app.streams.maintain import StreamMaintainer, stream_maintainer
from sessionize.app.streams.names import name_of_input, state_folder, writer_name
from sessionize.app.streams.reconcile import StreamReconciler, stream_reconciler
from sessionize.app.streams.startup import AvailabilityTracker, Opener, StoppedError
from sessionize.app.streams.topic_sharing import Sharing, take_part
from sessionize.engine.accounting import Accounting, Progress, ignore
from sessionize.engine.nothing_usable import HINT_RETRY, nothing_usable
from sessionize.engine.retry import Retrier
from sessionize.engine.run_events import (
    UNOBSERVED,
    EpochCommitted,
    Event,
    Observer,
    Observers,
    RowsShortened,
    RowsSkipped,
    StreamStarted,
    StreamStopped,
    TableLayoutChanged,
)
from sessionize.engine.stream.checkpoints import Checkpoints
from sessionize.engine.stream.engine import LocalEngine
from sessionize.engine.stream.live_feed import LiveFeed
from sessionize.engine.stream.options import StreamOptions, StreamOutputs
from sessionize.errors import StateError
from sessionize.formats.dialects import Dialect
from sessionize.ports import Clock, EpochSink, LiveView
from sessionize.session.columns import check_user_name

if TYPE_CHECKING:
    from sessionize.connectors.iceberg import IcebergEpochSink
    from sessionize.connectors.kafka.oversized import Unfit


@dataclass(slots=True)
class StreamRun:
    """An opened stream. stopped: what open_stream reports when everything has closed; None while it runs."""

    config: PipelineConfig
    engine: LocalEngine
    writer: str
    read: "_RecordsRead"
    observer: Observer
    reconciler: StreamReconciler | None = None
    maintainer: StreamMaintainer | None = None
    ended: Callable[[], None] = lambda: None
    stopped: StreamStopped | None = None

    @property
    def size_bytes(self) -> None:
        """A stream has no end that could be measured."""
        return None

    @property
    def cut_short(self) -> bool:
        """A stream that is ended goes on with its next run, so nothing is cut off."""
        return False

    @property
    def open_sessions(self) -> int:
        """How many sessions an event on time may still join."""
        return self.engine.open_sessions

    @property
    def watermark_ms(self) -> int | None:
        """Sessions that end before it are final; None before the first event."""
        return self.engine.watermark_ms

    def run(self, progress: Progress = ignore) -> Accounting:
        """Resume where the last run stopped (LocalEngine.run), with late events merged as stream.reconcile says and the
        tables maintained as stream.maintain says.

        progress: is not called. Errors: those of LocalEngine.run; with run.once InputError when no record could be
        used, after all is written.
        """
        del progress
        self.observer.on_event(
            StreamStarted(
                writer=self.writer,
                input=name_of_input(self.config),
                output=self.config.destination(),
                dialect=self.config.dialect().name,
            )
        )
        run = self._to_the_end
        for beside in (self.reconciler, self.maintainer):
            if beside is not None:
                run = partial(beside.around, run)
        accounting = run()
        if self.config.run.once:
            self.read.raise_if_all_rejected(accounting, self.config.dialect(), kept=self.config.output.rejected)
        self.stopped = StreamStopped(
            accounting=accounting,
            watermark_ms=self.engine.watermark_ms,
            output=self.config.destination(),
            rules=self.config.policy().describe(),
        )
        return accounting

    def _to_the_end(self) -> Accounting:
        accounting = self.engine.run()
        self.ended()
        return accounting


@dataclass(slots=True)
class _RecordsRead:
    """An Observer that counts what this run reads. Rejected records after valid ones are no reason to fail."""

    consumed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def on_event(self, event: Event, /) -> None:
        """Count the records of a committed epoch."""
        if isinstance(event, EpochCommitted):
            self.consumed += event.report.consumed
            self.reasons.update(event.report.reasons)

    def raise_if_all_rejected(self, accounting: Accounting, dialect: Dialect, *, kept: bool) -> None:
        """Raise InputError when this run read records, and neither it nor a run before it could use any."""
        if self.consumed and accounting.consumed == accounting.rejected:
            then = (
                f"{HINT_RETRY}; another run does not read them again"
                if kept
                else "another run does not read them again"
            )
            raise nothing_usable(self.reasons.total(), self.reasons, then, accounting.absent_fields(dialect))


@contextmanager
def open_stream(
    config: PipelineConfig,
    *,
    stopping: threading.Event,
    observer: Observer = UNOBSERVED,
    live: LiveView | None = None,
    clock: Clock | None = None,
) -> Iterator[StreamRun]:
    """Everything that the pipeline names, opened; an unavailable server is retried for as long as in the run.

    observer: gets the events of the opening and of the run, and StreamStopped when everything has closed without an
    error. live: shows open sessions, in place of the view that the
    pipeline names. clock: None for the machine's. Errors: ConfigError,
    MissingExtraError, and those of the parts; StoppedError when stopping is set meanwhile.
    """
    check_user_name(config.dialect().user_name, events=config.output.events)
    writer, options, input_name = writer_name(config), stream_options_of(config), name_of_input(config)
    read = _RecordsRead()
    tracker = AvailabilityTracker(Observers(read, observer), source=input_name, dialect=config.dialect().name)
    retrier = Retrier(options.retry_timeout_s, stopping=stopping, observer=tracker)
    opening = Opener(retrier, tracker, stopping=stopping)

    with _stop_reported(tracker), ExitStack() as opened:
        opened.enter_context(warnings_observed(tracker))
        checkpoints = opening.call("state", lambda: _checkpoints(config, writer))
        opened.callback(checkpoints.close)
        source = opening.call(input_name, lambda: STREAM_SOURCES[config.input.kind](config, writer))
        opened.callback(source.close)
        definition = config.definition(source.event_columns, source.user_name)
        run = SinkRun(
            config=config,
            writer=writer,
            definition=definition,
            on_change=lambda change: tracker.on_event(TableLayoutChanged(change)),
            on_unfit=lambda unfit: tracker.on_event(_unfit_event(unfit)),
        )
        sinks, sharing = _open_sinks(run, opening, opened)
        feed = _live_feed(run, opened, live, tracker)
        enrich = config.output.kafka is not None and config.output.kafka.enriched is not None
        engine = LocalEngine(
            source,
            StreamOutputs(sinks=sinks, live=feed, enrich=enrich),
            definition,
            checkpoints,
            lateness_ms=config.rules.lateness_ms,
            options=options,
            writer=writer,
            begin=None if sharing is None else sharing.begin,
            observer=tracker,
            clock=clock,
            stopping=stopping,
        )
        reconciler = stream_reconciler(config, writer, definition, stopping=stopping, observer=tracker, clock=clock)
        maintainer = stream_maintainer(config, stopping=stopping, observer=tracker, clock=clock)
        ended = _ended(sharing, engine, checkpoints, retrier)
        stream = StreamRun(config, engine, writer, read, tracker, reconciler, maintainer, ended)
        yield stream
    if stream.stopped is not None:
        tracker.on_event(stream.stopped)


@contextmanager
def _stop_reported(observer: Observer) -> Iterator[None]:
    """Report a stop during the opening, when what was open has closed without another error."""
    try:
        yield
    except StoppedError as error:
        observer.on_event(StreamStopped(reason=f"{error.message}; nothing was read or written"))
        raise


def _live_feed(run: SinkRun, opened: ExitStack, live: LiveView | None, tracker: AvailabilityTracker) -> LiveFeed | None:
    """live: in place of the view that the pipeline names; it is not closed."""
    every_s = run.config.stream.live_s
    if live is not None:
        return LiveFeed(live, every_s=every_s, server="live view", observer=tracker)
    view = live_view(run)
    if view is None:
        return None
    opened.callback(view.close)
    return LiveFeed(view, every_s=every_s, server="redis", observer=tracker)


def _open_sinks(run: SinkRun, opening: Opener, opened: ExitStack) -> tuple[dict[str, EpochSink], Sharing | None]:
    """The sinks by name, and this process's place among those that share its topic."""
    sharing: Sharing | None = None
    sinks: dict[str, EpochSink] = {}
    for name, make in sinks_of(run).items():
        sinks[name] = opening.call(name, make)
        opened.callback(sinks[name].close)
        if name == TABLES and run.config.input.kind == "kafka":
            tables = cast("IcebergEpochSink", sinks[TABLES])
            sharing = opening.call(name, lambda tables=tables: take_part(run.config, run.writer, tables))  # type: ignore[misc]
    return sinks, sharing


def _ended(
    sharing: Sharing | None, engine: LocalEngine, checkpoints: Checkpoints, retrier: Retrier
) -> Callable[[], None]:
    """What to do when the engine has ended: where nothing is held, another process may resume from here."""

    def ended() -> None:
        if sharing is not None and not engine.holds_state:
            retrier.call(TABLES, lambda: sharing.ended(checkpoints.recover(only=())))

    return ended


def _checkpoints(config: PipelineConfig, writer: str) -> Checkpoints:
    try:
        return Checkpoints(state_folder(config, writer), writer=writer)
    except StateError as error:  # another process holds them
        error.hint = "stop it first, or give this one its own home: --home"
        raise


def _unfit_event(unfit: "Unfit") -> RowsShortened | RowsSkipped:
    kind = RowsShortened if unfit.shortened else RowsSkipped
    return kind(
        topic=unfit.topic,
        rows=unfit.count,
        limit_bytes=unfit.limit_bytes,
        largest=[row.as_log() for row in unfit.shown],
    )


def stream_options_of(config: PipelineConfig) -> StreamOptions:
    """The intervals and limits of the engine."""
    stream = config.stream
    return StreamOptions(
        epoch_s=stream.epoch_s,
        epoch_rows_max=stream.epoch_rows,
        poll_s=stream.poll_s,
        idle_after_s=stream.idle_after_s,
        retry_timeout_s=stream.outage_s,
        once=config.run.once,
        drain=stream.drain,
        watermark=config.rules.watermark,
        follows_clock=config.rules.max_future_ms is not None,
    )
