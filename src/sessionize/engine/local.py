"""Events to sessions as they come: lateness decided per record, the watermark moved, final sessions written.

The state lives in this process for the length of one run, and everything becomes visible at its end, at once.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sessionize.engine.batch import Job
from sessionize.engine.outputs import Outputs, keep
from sessionize.engine.totals import Progress, Totals, ignore
from sessionize.kernel.sessionizer import Sessionizer
from sessionize.ports import Sink, Source
from sessionize.session import columns as col


class LateRule:
    """A record is late when its time is below the latest before it, in the order of arrival, minus the lateness.

    So what is late depends on the data alone, never on how it was cut into batches.
    """

    def __init__(self, lateness_ms: int) -> None:
        self._lateness_ms = lateness_ms
        self.latest_ms: int | None = None

    def late(self, time: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """bool[n] for the next n records, int64[n] ms in order of arrival."""
        if not len(time):
            return np.zeros(0, bool)
        running = np.maximum.accumulate(time)
        if self.latest_ms is not None:
            np.maximum(running, self.latest_ms, out=running)
        before = np.append(time[0] if self.latest_ms is None else self.latest_ms, running[:-1])
        self.latest_ms = int(running[-1])
        late: npt.NDArray[np.bool_] = time < before - self._lateness_ms
        return late

    @property
    def watermark_ms(self) -> int | None:
        """No record that is not late can be below it; None before the first record."""
        return None if self.latest_ms is None else self.latest_ms - self._lateness_ms


def run_stream(
    source: Source,
    outputs: Outputs,
    job: Job,
    *,
    lateness_ms: int,
    progress: Progress = ignore,
    stop: Callable[[], bool] = lambda: False,
) -> Totals:
    """Run until the source ends (or stop() says so, between two batches), then end every session and commit.

    progress hears "read" with the bytes of each batch. On an error no output shows anything of the run
    (Outputs.committed).
    """
    totals = Totals()
    rule = LateRule(lateness_ms)
    sessionizer = Sessionizer(job.policy, rules=job.rules, columns=job.columns, user_name=job.user_name)
    with outputs.committed():
        for batch in source.batches():
            totals.take_in(batch, outputs.rejected)
            if batch.events.num_rows:
                accepted = _set_late_aside(batch.events, rule, outputs, totals, job.user_name)
                keep(outputs.events, accepted, job.user_name)
                sessionizer.push(accepted)
                if rule.watermark_ms is not None:
                    _write(outputs.sessions, sessionizer.advance(rule.watermark_ms), totals)
                _book(totals, sessionizer)
            progress("read", batch.read_bytes, totals)
            if stop():
                break
        _write(outputs.sessions, sessionizer.flush(rule.latest_ms), totals)
        _book(totals, sessionizer)
    return totals


def _set_late_aside(events: pa.Table, rule: LateRule, outputs: Outputs, totals: Totals, user_name: str) -> pa.Table:
    late = rule.late(events[col.EVENT_TIME].to_numpy())
    if not late.any():
        return events
    totals.late += int(np.count_nonzero(late))
    keep(outputs.late, events.filter(pa.array(late)), user_name)
    return events.filter(pa.array(~late))


def _write(sink: Sink, sessions: pa.Table, totals: Totals) -> None:
    if sessions.num_rows:
        sink.write(sessions)
        totals.sessions += sessions.num_rows


def _book(totals: Totals, sessionizer: Sessionizer) -> None:
    counts = sessionizer.counts
    totals.settled, totals.pending = counts.settled, counts.pending
    totals.duplicate, totals.excluded = counts.duplicate, counts.excluded
