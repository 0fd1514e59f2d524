"""A stream that ends by itself, in one go: what the built-in generator makes.

Lateness and watermark work as in the local engine, but the state lives in this process for the length of one run, and
everything becomes visible at its end, at once.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from sessionize.engine.batch import Job
from sessionize.engine.lateness import Front, front_of
from sessionize.engine.outputs import Outputs, keep
from sessionize.engine.totals import Progress, Totals, ignore
from sessionize.kernel.sessionizer import Sessionizer
from sessionize.ports import Sink, Source
from sessionize.session import columns as col
from sessionize.session.policy import WatermarkRule


def run_stream(
    source: Source,
    outputs: Outputs,
    job: Job,
    *,
    lateness_ms: int,
    watermark: WatermarkRule = "confirmed",
    progress: Progress = ignore,
    stop: Callable[[], bool] = lambda: False,
) -> Totals:
    """Run until the source ends (or stop() says so, between two batches), then end every session and commit.

    watermark: what moves the front (engine/lateness.py). progress hears "read" with the bytes of each batch. On an
    error no output shows anything of the run (Outputs.committed).
    """
    totals = Totals()
    front = front_of(watermark, lateness_ms)
    sessionizer = Sessionizer(job.policy, rules=job.rules, columns=job.columns, user_name=job.user_name)
    with outputs.committed():
        for batch in source.batches():
            totals.take_in(batch, outputs.rejected)
            if batch.events.num_rows:
                accepted = _set_late_aside(batch.events, front, outputs, totals, job.user_name)
                keep(outputs.events, accepted, job.user_name)
                sessionizer.push(accepted)
                if front.latest_ms is not None:
                    _write(outputs.sessions, sessionizer.advance(front.latest_ms - lateness_ms), totals)
                totals.take_over(sessionizer)
            progress("read", batch.read_bytes, totals)
            if stop():
                break
        _write(outputs.sessions, sessionizer.flush(), totals)
        totals.take_over(sessionizer)
    return totals


def _set_late_aside(events: pa.Table, front: Front, outputs: Outputs, totals: Totals, user_name: str) -> pa.Table:
    late = front.late(events[col.EVENT_TIME].to_numpy(), events[col.USER], now_ms=None, waited_ms=0)
    if not late.any():
        return events
    totals.late += int(np.count_nonzero(late))
    keep(outputs.late, events.filter(pa.array(late)), user_name)
    return events.filter(pa.array(~late))


def _write(sink: Sink, sessions: pa.Table, totals: Totals) -> None:
    if sessions.num_rows:
        sink.write(sessions)
        totals.sessions += sessions.num_rows
