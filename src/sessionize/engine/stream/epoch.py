"""One epoch while it grows: the rows read so far, from which offsets they are, and what was late or rejected."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from sessionize.engine.accounting import Accounting, rejected_by_reason
from sessionize.engine.event_columns import with_room, with_user_name
from sessionize.engine.schema_union import SchemaUnion
from sessionize.engine.stream.checkpoint_format import DRAINED_TO, RECORDS, SETTLED, SILENCE, Plan
from sessionize.engine.stream.watermarks import WatermarkTracker
from sessionize.formats.sizes import decoded_bytes
from sessionize.kernel.processor import EventProcessor
from sessionize.kernel.sessionizer import Sessionizer
from sessionize.ports import EpochOutput, StreamBatch
from sessionize.session import columns as col
from sessionize.session.output_tables import LATE_EVENTS, REJECTED_EVENTS, SESSIONS


@dataclass(slots=True)
class Epoch:
    """Everything that belongs to the epoch with this number.

    opened_s: when it began, by the forward-only clock. size_bytes: of its rows as the sinks get them, about. reasons:
    how many records were rejected for which reason.
    """

    number: int
    now_ms: int
    opened_s: float
    ranges: dict[str, tuple[int, int]] = field(default_factory=dict)
    events: list[pa.Table] = field(default_factory=list)
    late: list[pa.Table] = field(default_factory=list)
    rejected: list[pa.Table] = field(default_factory=list)
    records: dict[str, int] = field(default_factory=dict)
    size_bytes: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def consumed(self) -> int:
        """Records read, good or bad; by partition they are in `records`."""
        return sum(self.records.values())

    def add(self, batch: StreamBatch, watermarks: WatermarkTracker, accounting: Accounting) -> pa.Table:
        """Add a batch, and count it in the accounting; the accepted events."""
        accounting.count_batch(batch, None)
        self.reasons.update(rejected_by_reason(batch))
        if batch.consumed:
            self.records[batch.partition] = self.records.get(batch.partition, 0) + batch.consumed
        self.size_bytes += decoded_bytes(batch.events) + batch.rejected.nbytes
        for split, (start, end) in batch.ranges.items():
            self.ranges[split] = (self.ranges[split][0] if split in self.ranges else start, end)
        if batch.rejected.num_rows:
            self.rejected.append(batch.rejected)
        accepted = batch.events
        if accepted.num_rows:
            late = watermarks.late(batch.partition, accepted, now_ms=self.now_ms)
            if late.any():
                accounting.late += int(np.count_nonzero(late))
                self.late.append(accepted.filter(pa.array(late)))
                accepted = accepted.filter(pa.array(~late))
            if accepted.num_rows:
                self.events.append(accepted)
        return accepted

    def planned(
        self,
        *,
        watermark_ms: int | None,
        silence: Mapping[str, int],
        settled: Mapping[str, int],
        drained_to_ms: int | None,
    ) -> Plan:
        """What it will do, from what was read. silence: WatermarkTracker.epoch_silence. settled:
        WatermarkTracker.settle_idle. drained_to_ms: where the watermark goes when every open session is ended; None
        for an epoch that ends none.
        """
        extra: dict[str, Any] = {RECORDS: dict(self.records)}
        if silence:
            extra[SILENCE] = dict(silence)
        if settled:
            extra[SETTLED] = dict(settled)
        if drained_to_ms is not None:
            extra[DRAINED_TO] = drained_to_ms
        return Plan(
            epoch=self.number,
            ranges=dict(self.ranges),
            watermark_ms=watermark_ms,
            now_ms=self.now_ms,
            drain=drained_to_ms is not None,
            extra=extra,
        )

    def output(self, made: Mapping[str, pa.Table], *, user_name: str, watermark_ms: int | None) -> EpochOutput:
        """What the sinks get: the tables that were made of the events, by name, and the records that were set aside."""
        aside = {
            LATE_EVENTS.name: event_rows(self.late, user_name),
            REJECTED_EVENTS.name: concat(self.rejected, col.REJECTED_SCHEMA),
        }
        return EpochOutput({**made, **aside}, watermark_ms)


def concat(tables: list[pa.Table], schema: pa.Schema) -> pa.Table:
    """One table of all; an empty one of the schema when there are none."""
    if not tables:
        return schema.empty_table()
    if all(table.schema.equals(tables[0].schema) for table in tables[1:]):
        return pa.concat_tables(tables)
    union = SchemaUnion()
    for table in tables:
        union.add(table)
    return pa.concat_tables(union.aligned(tables))


def final_rows(processor: EventProcessor, plan: Plan, *, drained_to_ms: int | None) -> dict[str, pa.Table]:
    """What becomes final by the plan, by table: the sessions always, those of other operators where there are rows.

    drained_to_ms: where the watermark goes after a drain, where the plan does not say it.
    """
    steps = [processor.advance(plan.watermark_ms)] if plan.watermark_ms is not None else []
    if plan.drain:
        steps.append(processor.flush())
        end_ms = plan.extra.get(DRAINED_TO, drained_to_ms)
        if end_ms is not None:
            steps.append(processor.advance(end_ms))
    made: dict[str, list[pa.Table]] = {SESSIONS.name: []}
    for step in steps:
        for name, rows in step.items():
            if rows.num_rows:
                made.setdefault(name, []).append(rows)
    definition = processor.definition
    final = {name: concat(rows, definition.columns.schema(definition.user_name)) for name, rows in made.items()}
    # the sessions have the input's name already, and operators know the user as `user` alone
    return {n: rows if n == SESSIONS.name else with_user_name(rows, definition.user_name) for n, rows in final.items()}


def event_rows(tables: list[pa.Table], user_name: str) -> pa.Table:
    """Events as the sinks take them."""
    empty = pa.schema([(col.USER, pa.string()), (col.EVENT_TIME, pa.int64())])
    return with_user_name(concat(tables, empty), user_name)


def enriched_rows(events: pa.Table, sessionizer: Sessionizer, *, now_ms: int) -> pa.Table:
    """The events pushed since the last epoch, each with its session so far and the moment of processing."""
    ids = sessionizer.pushed_session_ids()
    events = with_room(events, (col.SESSION_ID, col.PROCESSING_TIME))
    return events.append_column(col.SESSION_ID, ids).append_column(
        col.PROCESSING_TIME, pa.array(np.full(events.num_rows, now_ms, np.int64))
    )
