"""A stream that ends by itself, in one go: what the built-in generator makes.

Lateness and watermark work as in the local engine, but the state lives in this process for the length of one run, and
everything becomes visible at its end, at once.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from sessionize.engine.accounting import Accounting, Progress, ignore
from sessionize.engine.batch.outputs import Outputs, write_events
from sessionize.engine.lateness import Front, front_of
from sessionize.kernel.sessionizer import Sessionizer
from sessionize.ports import Sink, Source
from sessionize.session import columns as col
from sessionize.session.definition import SessionDefinition
from sessionize.session.policy import WatermarkRule


def run_generated(
    source: Source,
    outputs: Outputs,
    definition: SessionDefinition,
    *,
    lateness_ms: int,
    watermark: WatermarkRule = "confirmed",
    progress: Progress = ignore,
    stop: Callable[[], bool] = lambda: False,
) -> Accounting:
    """Run until the source ends (or stop() says so, between two batches), then end every session and commit.

    watermark: what moves the front (engine/lateness.py). progress gets "read" with the bytes of each batch.
    On an error no output shows anything of the run (Outputs.committed).
    """
    accounting = Accounting()
    front = front_of(watermark, lateness_ms)
    sessionizer = Sessionizer.of(definition)
    with outputs.committed():
        for batch in source.batches():
            accounting.count_batch(batch, outputs.rejected)
            if batch.events.num_rows:
                accepted = _set_late_aside(batch.events, front, outputs, accounting, definition.user_name)
                write_events(outputs.events, accepted, definition.user_name)
                sessionizer.push(accepted)
                if front.latest_ms is not None:
                    _write(outputs.sessions, sessionizer.advance(front.latest_ms - lateness_ms), accounting)
                accounting.add_counts(sessionizer)
            progress("read", batch.read_bytes, accounting)
            if stop():
                break
        _write(outputs.sessions, sessionizer.flush(), accounting)
        accounting.add_counts(sessionizer)
    return accounting


def _set_late_aside(
    events: pa.Table, front: Front, outputs: Outputs, accounting: Accounting, user_name: str
) -> pa.Table:
    late = front.late(events[col.EVENT_TIME].to_numpy(), events[col.USER], now_ms=None, waited_ms=0)
    if not late.any():
        return events
    accounting.late += int(np.count_nonzero(late))
    write_events(outputs.late, events.filter(pa.array(late)), user_name)
    return events.filter(pa.array(~late))


def _write(sink: Sink, sessions: pa.Table, accounting: Accounting) -> None:
    if sessions.num_rows:
        sink.write(sessions)
        accounting.sessions += sessions.num_rows
