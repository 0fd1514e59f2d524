"""The local engine: a stream to sessions, in epochs, exactly once (docs/adr/0009-epochs.md).

    process   polls read; late events are set aside, the others pushed; nothing becomes final
    plan      what the epoch consists of is made durable
    write     the watermark advances, and every sink gets the rows, while the next epoch is read already
    commit    what changed goes into the checkpoint

After a crash the last checkpoint is loaded and planned epochs are repeated. Everything that decides about rows is in
the plan or in the checkpoint: offsets, watermark, the present.
"""

import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

from sessionize.engine import run_events as ev
from sessionize.engine.accounting import Accounting
from sessionize.engine.retry import Retrier
from sessionize.engine.run_events.reports import EpochReport
from sessionize.engine.stream.checkpoint_format import SETTLED, SILENCE
from sessionize.engine.stream.checkpoints import Checkpoints, Plan
from sessionize.engine.stream.clocks import SystemClock
from sessionize.engine.stream.epoch import Epoch, concat, enriched_rows, event_rows, final_rows
from sessionize.engine.stream.epoch_writer import AdvancedEpoch, EpochCommitter, EpochWriter
from sessionize.engine.stream.options import StreamOptions, StreamOutputs
from sessionize.engine.stream.recovery import RestoredRun, check_sinks, check_tables, missing_records, replan, restore
from sessionize.engine.stream.reporting import StatusReporter
from sessionize.engine.stream.topic_shares import positions_to_seek
from sessionize.engine.stream.watermarks import WatermarkTracker
from sessionize.errors import UnavailableError
from sessionize.kernel.operator import Operator
from sessionize.kernel.processor import EventProcessor
from sessionize.kernel.sessionizer import Sessionizer
from sessionize.ports import Clock, EpochId, Positions, StreamBatch, StreamSource
from sessionize.session import columns as col
from sessionize.session.definition import SessionDefinition
from sessionize.session.output_tables import ENRICHED_EVENTS, EVENTS, SESSIONS


class LocalEngine:
    """Runs one pipeline. writer: under which name sinks record its epochs. Not for several threads.

    lateness_ms: an event that is behind the front of its partition by more is late. clock: None for the machine's.
    operators: what is made of the events beside the sessions, new ones for each engine (kernel/operator.py).
    begin: where other processes have ended, from where partitions are read on. stopping: set when the run is to end.
    Errors: ConfigError for operators that do not fit together, or that make a table which a sink does not know.
    """

    def __init__(
        self,
        source: StreamSource,
        outputs: StreamOutputs,
        definition: SessionDefinition,
        checkpoints: Checkpoints,
        *,
        lateness_ms: int,
        options: StreamOptions,
        writer: str,
        operators: Sequence[Operator] = (),
        begin: Positions | None = None,
        observer: ev.Observer = ev.UNOBSERVED,
        clock: Clock | None = None,
        stopping: threading.Event | None = None,
    ) -> None:
        self._source, self._definition, self._checkpoints = source, definition, checkpoints
        self._sinks, self._live, self._enrich = outputs.sinks, outputs.live, outputs.enrich
        self._options, self._writer, self._lateness_ms = options, writer, lateness_ms
        self._clock = clock or SystemClock()
        self._stopping = stopping or threading.Event()
        observers = ev.Observers(observer)
        self._report = observers.on_event
        self._retrier = Retrier(options.retry_timeout_s, stopping=self._stopping, observer=observers)
        self._reporter = StatusReporter(observers, checkpoints)
        self._epoch_writer = EpochWriter(self._retrier)
        self._committer = EpochCommitter(
            self._sinks, checkpoints, self._retrier, self._reporter, observer=observers, clock=self._clock
        )
        self._accounting = Accounting()
        self._positions: dict[str, int] = {}
        self._begin, self._last_epoch = begin, 0
        self._has: dict[str, int | None] = {}  # the last epoch of each sink, when the run began
        self._operators = tuple(operators)
        check_tables(outputs.sinks, self._operators)
        self._processor = EventProcessor(definition, self._operators, track_changes=True)
        self._sessionizer = Sessionizer.over(self._processor)
        self._watermarks = self._new_watermarks(None, {})

    @property
    def accounting(self) -> Accounting:
        """The accounting over all epochs since the pipeline first ran, this one's records included."""
        return self._accounting

    @property
    def open_sessions(self) -> int:
        """How many sessions an event on time may still join."""
        return self._sessionizer.open_sessions

    @property
    def holds_state(self) -> bool:
        """Whether rows may still come out without a further record: of sessions, or of another operator."""
        return self._processor.holds_state

    @property
    def watermark_ms(self) -> int | None:
        """Sessions that end before it are final, and older events are late; None before the first event."""
        return self._sessionizer.watermark_ms

    def close(self) -> None:
        """Release the state's folder; the source and the sinks belong to whoever made them."""
        self._checkpoints.close()

    def run(self) -> Accounting:
        """Go on where the last run stopped, until the source ends (options.once), `stopping` is set, or an error.

        Errors: those of source and sinks, UnavailableError when one was unavailable for too long; what was read
        and not committed is read again by the next run.
        """
        try:
            self._recover()
            ended = False
            while not ended:
                epoch = self._open_epoch()
                ended = self._collect(epoch)
                drains = ended and self._options.once and self._options.drain and not self._stopping.is_set()
                self._finish(epoch, drain=drains)
            self._epoch_writer.wait()
            self._checkpoints.wait()
            self._reporter.merge_error()
            if self._live is not None:  # what the last epoch ended is no longer open
                self._live.finish(self._sessionizer, now_ms=self._clock.now_ms())
        except BaseException as error:
            self._epoch_writer.leave(error)
            raise
        return self._accounting

    # ---- process ----

    def _open_epoch(self) -> Epoch:
        return Epoch(self._last_epoch + 1, self._clock.now_ms(), self._clock.monotonic_s())

    def _collect(self, epoch: Epoch) -> bool:
        """Poll until the epoch is due; whether it is the last one."""
        options = self._options
        while True:
            if self._stopping.is_set():
                return True
            self._epoch_writer.look()  # an error of the writer ends the run now, not an epoch later
            at_s = self._clock.monotonic_s()
            full = epoch.consumed >= options.epoch_rows_max or epoch.size_bytes >= options.epoch_bytes_max
            if full or at_s - epoch.opened_s >= options.epoch_s:
                return False
            wait_s = max(0.0, min(options.poll_s, options.epoch_s - (at_s - epoch.opened_s)))
            try:
                batches = self._poll(epoch, wait_s)
            except UnavailableError:
                if epoch.consumed:
                    return False  # what was read becomes durable before the wait, which may be long
                batches = self._poll_with_retry(epoch, wait_s)
            self._take(epoch, batches)
            elapsed_s = max(self._clock.monotonic_s() - epoch.opened_s, 1e-9)
            rate = epoch.consumed / elapsed_s
            self._reporter.polled(self._accounting, self._sessionizer, rate=rate, lag=self._source.lag())
            if options.once and not batches and self._source.partitions() <= self._source.caught_up():
                return True

    def _poll(self, epoch: Epoch, wait_s: float) -> list[StreamBatch]:
        if self._stopping.is_set():
            return []
        if not epoch.consumed:  # what comes after a long wait is not judged by the time before it
            epoch.now_ms = self._clock.now_ms()
            self._watermarks.begin_epoch()
        try:
            batches = self._source.poll(timeout_s=wait_s, now_ms=epoch.now_ms)
        except UnavailableError:
            self._watermarks.interrupted()
            raise
        self._watermarks.polled(self._source.caught_up(), at_s=self._clock.monotonic_s(), wait_s=wait_s)
        return batches

    def _poll_with_retry(self, epoch: Epoch, wait_s: float) -> list[StreamBatch]:
        try:
            return self._retrier.call("source", lambda: self._poll(epoch, wait_s))
        except UnavailableError:
            self._epoch_writer.look()  # an epoch that cannot be written ends the wait for the source
            raise

    def _take(self, epoch: Epoch, batches: list[StreamBatch]) -> None:
        at_s = self._clock.monotonic_s()
        taken = [epoch.add(batch, self._watermarks, self._accounting) for batch in batches]
        accepted = [events for events in taken if events.num_rows]
        if accepted:
            events = concat(accepted, accepted[0].schema)
            self._sessionizer.push(events)
            if self._live is not None:
                self._live.touched(events[col.USER])
        for batch in batches:
            self._positions.update({split: end for split, (_, end) in batch.ranges.items()})
        self._count()
        if self._live is not None:
            self._live.refresh(self._sessionizer, at_s=at_s, now_ms=epoch.now_ms)

    # ---- plan ----

    def _finish(self, epoch: Epoch, *, drain: bool) -> None:
        now_ms, ended = self._clock.now_ms(), self._options.once
        read = self._source.partitions(), self._source.caught_up()
        watermark = self._watermarks.target_ms(*read, now_ms=now_ms, ended=ended)
        moves = watermark is not None and watermark != self._watermarks.floor_ms
        if not epoch.ranges and not (self.holds_state and (moves or drain)):
            return
        plan = epoch.planned(
            watermark_ms=watermark,
            silence=self._watermarks.epoch_silence(),
            settled=self._watermarks.settle_idle(*read, ended=ended),
            drained_to_ms=self._drained_to_ms(now_ms) if drain else None,
        )
        self._epoch_writer.wait()
        self._report(ev.StepReached("plan"))
        self._retrier.call("state", lambda: self._checkpoints.write_plan(plan))
        self._report(ev.StepReached("planned"))
        self._epoch_writer.start(partial(self._committer.commit, self._advance(epoch, plan)))

    def _drained_to_ms(self, now_ms: int) -> int | None:
        silence_ms, latest_ms = self._definition.policy.longest_silence_ms, self._processor.latest_ms
        return self._watermarks.drained_to_ms(latest_ms, silence_ms, now_ms=now_ms)

    def _advance(self, epoch: Epoch, plan: Plan) -> AdvancedEpoch:
        """Let final sessions fall out, and take from the state what the sinks and the checkpoint get."""
        definition = self._definition
        events = event_rows(epoch.events, definition.user_name)
        made = {EVENTS.name: events}
        if self._enrich:
            made[ENRICHED_EVENTS.name] = enriched_rows(events, self._sessionizer, now_ms=plan.now_ms)
        made |= final_rows(self._processor, plan, drained_to_ms=self._drained_to_ms(plan.now_ms))
        self._watermarks.floor_ms = self._sessionizer.watermark_ms
        self._last_epoch = plan.epoch
        output = epoch.output(made, user_name=definition.user_name, watermark_ms=self._sessionizer.watermark_ms)
        final = made[SESSIONS.name]
        self._accounting.sessions += final.num_rows
        self._count()
        changes = self._processor.changes()
        if self._live is not None:
            self._live.touched(final[definition.user_name])  # they have ended, and nothing new needs to come
        header = {
            "positions": dict(self._positions),
            "fronts": self._watermarks.state(),
            "totals": self._accounting.as_dict(),
        }
        epoch_id = EpochId(self._writer, plan.epoch, plan.digest)
        report = EpochReport.of(
            epoch_id,
            output,
            consumed=epoch.consumed,
            seconds=max(self._clock.monotonic_s() - epoch.opened_s, 1e-9),
            open_sessions=self._sessionizer.open_sessions,
            lag=self._source.lag(),
            accounting=self._accounting,
            reasons=dict(epoch.reasons),
        )
        return AdvancedEpoch(epoch_id, output, changes, header, report)

    # ---- recover ----

    def _recover(self) -> None:
        self._report(ev.StepReached("recover"))
        names = self._processor.names
        found = self._retrier.call("state", lambda: self._checkpoints.recover(names))
        if found is not None:
            for which in found.damaged:
                self._report(ev.CheckpointDamaged(which))
            self._take_over(restore(found, self._definition, self._operators))
        plans = found.plans if found is not None else ()
        begun = plans[-1].epoch if plans else self._last_epoch
        self._epoch_writer.start(lambda: self._check_sinks(begun=begun))
        self._epoch_writer.wait()
        positions = partial(positions_to_seek, self._positions, self._begin, self._source)
        self._retrier.call("source", lambda: self._source.seek(positions()))
        for plan in plans:
            self._repeat(plan)
        if self._live is not None:
            self._live.restart(self._sessionizer, now_ms=self._clock.now_ms())

    def _take_over(self, run: RestoredRun | None) -> None:
        if run is None:
            return
        self._processor, self._last_epoch = run.processor, run.epoch
        self._sessionizer = Sessionizer.over(run.processor)
        for name in run.processor.dropped:
            self._report(ev.OperatorDropped(name))
        self._positions, self._accounting = run.positions, run.accounting
        self._watermarks = self._new_watermarks(self._sessionizer.watermark_ms, run.fronts)

    def _check_sinks(self, *, begun: int) -> None:
        self._has = check_sinks(
            self._sinks,
            self._retrier,
            writer=self._writer,
            done=self._last_epoch,
            begun=begun,
            warn=lambda problem: self._report(ev.SinkBehindState(problem)),
        )

    def _new_watermarks(self, floor_ms: int | None, fronts: dict[str, Any]) -> WatermarkTracker:
        return WatermarkTracker(
            self._lateness_ms,
            idle_after_s=self._options.idle_after_s,
            rule=self._options.watermark,
            follows_clock=self._options.follows_clock,
            floor_ms=floor_ms,
            fronts=fronts,
        )

    def _repeat(self, plan: Plan) -> None:
        """The same offsets, watermark and present give the same rows."""
        self._report(ev.StepReached("repeat"))
        self._retrier.call("state", lambda: self._checkpoints.write_plan(plan))  # mends a damaged copy
        epoch, extra = Epoch(plan.epoch, plan.now_ms, self._clock.monotonic_s()), plan.extra
        self._watermarks.repeat_epoch(extra.get(SILENCE, {}))
        batches = self._retrier.call("source", lambda: list(self._source.read(plan.ranges, now_ms=plan.now_ms)))
        self._take(epoch, batches)
        self._watermarks.settle(extra.get(SETTLED, {}))
        self._positions.update({split: end for split, (_, end) in plan.ranges.items()})
        anew = replan(plan, epoch.records, self._has)
        if anew is not None:
            left = missing_records(plan, epoch.records)
            problem = f"the source has only {left}; the epoch is planned again without the others"
            self._report(ev.RecordsExpired(epoch=plan.epoch, problem=problem))
            self._retrier.call("state", lambda: self._checkpoints.write_plan(anew))
        self._epoch_writer.start(partial(self._committer.commit, self._advance(epoch, anew or plan)))
        self._epoch_writer.wait()

    def _count(self) -> None:
        self._accounting.add_counts(self._sessionizer)
        self._accounting.latest_ms = self._sessionizer.latest_ms
