"""Bounded input to sessions: everything is pushed, then flushed, part of the users by part of the users.

Input beyond the memory limit goes to disk by user (engine/spill.py) and comes back a part at a time. The rows are the
same either way, only their order differs.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from sessionize.engine.alignment import Columns
from sessionize.engine.held import Held
from sessionize.engine.outputs import Outputs, keep
from sessionize.engine.shards import Shards, in_order
from sessionize.engine.spill import Spill
from sessionize.engine.totals import Progress, Totals, ignore
from sessionize.errors import InputError
from sessionize.formats.absent_fields import AbsentFields
from sessionize.formats.dialects import Dialect
from sessionize.kernel.sessionizer import Sessionizer
from sessionize.ports import Source
from sessionize.session import columns as col
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules

MEMORY_BYTES_MAX = 2_000_000_000
TELL = "the rejected records tell"
KEEP = (
    "to see what is wrong with each, keep them: --rejects FILE (batch, label), or output.rejected = true in a pipeline"
)
KEPT = (
    "the records were kept: once the pipeline can read them, `sessionize rejected retry` brings them in as late events,"
    " and `sessionize reconcile` makes sessions of them"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to make of events: policy, rules, which session columns, and what the user column is called.

    memory_bytes_max: events held in memory before they are spilled. spill_directory: where to, None for the system's
    place for temporary files. dialect: where the fields of the records are, None where nothing is to be said of it.
    """

    policy: Policy
    rules: Rules = field(default_factory=Rules)
    columns: col.SessionColumns = field(default_factory=col.SessionColumns)
    user_name: str = col.USER
    memory_bytes_max: int = MEMORY_BYTES_MAX
    spill_directory: Path | None = None
    dialect: Dialect | None = None


def run_batch(source: Source, outputs: Outputs, job: Job, *, progress: Progress = ignore) -> Totals:
    """Read everything, then write the sessions: nothing is late, in whatever order events and files come.

    progress hears "read" with the bytes of each batch, "write" with the events of each part, and "commit" before the
    first output is committed. On an error no output shows anything of the run (Outputs.committed).
    """
    totals = Totals()
    with outputs.committed():
        for sessions, events in sessions_of(read(source, outputs, job, totals, progress), job, totals):
            outputs.sessions.write(sessions)
            progress("write", events, totals)
        refuse_if_nothing_is_usable(totals, outputs, job.dialect)
        progress("commit", 0, totals)
    return totals


def refuse_if_nothing_is_usable(totals: Totals, outputs: Outputs, dialect: Dialect | None) -> None:
    """Raise InputError when every single record was rejected: a wrong field name or dialect, not a result.

    The rejected records are kept where they were to be kept, as they say what is wrong.
    """
    if totals.consumed and totals.consumed == totals.rejected:
        if outputs.rejected is not None:
            outputs.rejected.commit()
        if outputs.rejected is None:
            then = KEEP
        else:
            then = f"{KEPT}; or run it over the files again, which replaces them" if outputs.retried else TELL
        absent = None if dialect is None else totals.absent_fields(dialect)
        raise nothing_usable(totals.rejected, totals.rejected_by_reason, then, absent)


def nothing_usable(
    rejected: int, by_reason: Mapping[str, int], then: str, absent: AbsentFields | None = None
) -> InputError:
    """Records were there, and all of them were rejected. then: what to do about it. absent: fields none of them has."""
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in by_reason.items())
    return InputError(
        "none of the records could be used",
        detail=f"{rejected:,} rejected: {reasons}" + ("" if absent is None else f"; {absent.detail}"),
        hint="is it the right dialect, or are the fields named right? " + then
        if absent is None
        else f"{absent.hint}; {then}",
    )


def read(source: Source, outputs: Outputs, job: Job, totals: Totals, progress: Progress) -> Iterator[pa.Table]:
    """The source's events, counted and kept; its rejected records go to their sink."""
    for batch in source.batches():
        totals.take_in(batch, outputs.rejected)
        keep(outputs.events, batch.events, job.user_name)
        progress("read", batch.read_bytes, totals)
        if batch.events.num_rows:
            yield batch.events


def sessions_of(tables: Iterable[pa.Table], job: Job, totals: Totals) -> Iterator[tuple[pa.Table, int]]:
    """Sessions of bounded input, a part of the users at a time, each with the number of events it was made of."""
    latest: list[int] = []

    def watched() -> Iterator[pa.Table]:
        for table in tables:
            latest.append(pc.max(table[col.EVENT_TIME]).as_py())
            totals.latest_ms = max(latest)
            yield table

    for group in grouped_by_user(watched(), job, totals):
        yield from _sessions_of_group(group, job, totals, max(latest, default=0))


def grouped_by_user(tables: Iterable[pa.Table], job: Job, totals: Totals) -> Iterator[Held]:
    """The tables in groups that fit in memory, all events of a user in one: a single group, or parts of a spill.

    The first group comes when all the tables have been read, so all groups have the columns of all of them.
    """
    held = Held()
    spill: Spill | None = None
    columns = Columns()
    try:
        for table in tables:
            columns.learn(held.add(table))
            if held.size_bytes > job.memory_bytes_max:
                spill = spill or Spill(job.spill_directory)
                spill.add(held)
                held = Held()
        if spill is None:
            held.align(columns)
            yield held
            return
        spill.add(held)
        totals.spilled = spill.rows
        for held in spill.parts():
            held.align(columns)
            yield held
    finally:
        if spill is not None:
            spill.close()


def _sessions_of_group(held: Held, job: Job, totals: Totals, end_ms: int) -> Iterator[tuple[pa.Table, int]]:
    shards = Shards(held)

    def work(part: int) -> tuple[Sessionizer, pa.Table]:
        events = shards.part(part)
        sessionizer = Sessionizer(job.policy, rules=job.rules, columns=job.columns, user_name=job.user_name)
        if events.num_rows:
            sessionizer.push(events)
        return sessionizer, sessionizer.flush(end_ms)

    for sessionizer, sessions in in_order(work, range(len(shards))):
        counts = sessionizer.counts
        totals.settled += counts.settled
        totals.duplicate += counts.duplicate
        totals.excluded += counts.excluded
        totals.sessions += sessions.num_rows
        yield sessions, counts.consumed
