"""Bounded input to labelled events: every event as it came, and the id of its session."""

import pyarrow as pa

from sessionize.engine.batch import Job, grouped_by_user, read
from sessionize.engine.totals import Progress, Totals, all_or_nothing, ignore
from sessionize.kernel.labels import session_id_of_rows
from sessionize.ports import Sink, Source
from sessionize.session import columns as col


def run_label(
    source: Source, sink: Sink, job: Job, *, rejects: Sink | None = None, progress: Progress = ignore
) -> Totals:
    """Write every event with its session id: in the order of the input while it fits in memory, by user beyond that.

    An event of an excluded type has no session id; a duplicate has that of the event it repeats.
    """
    totals = Totals()
    with all_or_nothing(sink, rejects):
        for group in grouped_by_user(read(source, totals, rejects, progress), job, totals):
            if group:
                _label(group, sink, job, totals, progress)
    return totals


def _label(group: list[pa.Table], sink: Sink, job: Job, totals: Totals, progress: Progress) -> None:
    needed = [
        n for n in (col.USER, col.EVENT_TIME, col.EVENT_ID, col.EVENT_TYPE, col.PAGE) if n in group[0].column_names
    ]
    whole = pa.concat_tables([t if job.rules.boundary is not None else t.select(needed) for t in group])
    ids = session_id_of_rows(whole, job.policy, rules=job.rules)
    totals.sessions += len(ids.unique().drop_null())
    totals.excluded += ids.null_count
    totals.settled += len(ids) - ids.null_count
    at = 0
    for table in group:
        names = [job.user_name if n == col.USER else n for n in table.column_names]
        sink.write(table.rename_columns(names).append_column(col.SESSION_ID, ids.slice(at, table.num_rows)))
        at += table.num_rows
        progress("write", table.num_rows, totals)
