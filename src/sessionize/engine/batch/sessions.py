"""Bounded input to sessions: everything is pushed, then flushed, part of the users by part of the users.

Input beyond the memory limit is spilled to disk by user (engine/batch/spill.py) and read back part by part. The rows
are the same either way, only their order differs.
"""

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from sessionize.engine.accounting import Accounting, Progress, ignore
from sessionize.engine.batch.event_buffer import EventBuffer
from sessionize.engine.batch.options import BatchOptions
from sessionize.engine.batch.outputs import Outputs, write_events
from sessionize.engine.batch.shards import Shards, in_order
from sessionize.engine.batch.spill import Spill
from sessionize.engine.nothing_usable import HINT_RETRY, nothing_usable
from sessionize.engine.schema_union import SchemaUnion
from sessionize.formats.dialects import Dialect
from sessionize.kernel.sessionizer import Sessionizer
from sessionize.ports import Source
from sessionize.session import columns as col
from sessionize.session.definition import SessionDefinition

HINT_TELL = "the rejected records tell"
HINT_KEEP = (
    "to see what is wrong with each, keep them: --rejects FILE (batch, label), or output.rejected = true in a pipeline"
)


def run_batch(
    source: Source,
    outputs: Outputs,
    definition: SessionDefinition,
    options: BatchOptions | None = None,
    *,
    progress: Progress = ignore,
) -> Accounting:
    """Read everything, then write the sessions: nothing is late, in whatever order events and files come.

    progress gets "read" with the bytes of each batch, "write" with the events of each part, and "commit" before the
    first output is committed. On an error no output shows anything of the run (Outputs.committed).
    """
    accounting, options = Accounting(), options or BatchOptions()
    with outputs.committed():
        tables = read(source, outputs, accounting, progress, user_name=definition.user_name)
        for sessions, events in sessions_of(tables, definition, accounting, options):
            outputs.sessions.write(sessions)
            progress("write", events, accounting)
        raise_if_all_rejected(accounting, outputs, options.dialect)
        progress("commit", 0, accounting)
    return accounting


def raise_if_all_rejected(accounting: Accounting, outputs: Outputs, dialect: Dialect | None) -> None:
    """Raise InputError when every single record was rejected: a wrong field name or dialect, not a result.

    The rejected records are kept where they were to be kept, as they say what is wrong.
    """
    if accounting.consumed and accounting.consumed == accounting.rejected:
        if outputs.rejected is not None:
            outputs.rejected.commit()
        if outputs.rejected is None:
            then = HINT_KEEP
        else:
            then = (
                f"{HINT_RETRY}; or run it over the files again, which replaces them" if outputs.retried else HINT_TELL
            )
        absent = None if dialect is None else accounting.absent_fields(dialect)
        raise nothing_usable(
            accounting.rejected, accounting.rejected_by_reason, then, absent, accounting.findings.examples
        )


def read(
    source: Source, outputs: Outputs, accounting: Accounting, progress: Progress, *, user_name: str
) -> Iterator[pa.Table]:
    """The source's events, counted and kept; its rejected records go to their sink."""
    for batch in source.batches():
        accounting.count_batch(batch, outputs.rejected)
        write_events(outputs.events, batch.events, user_name)
        progress("read", batch.read_bytes, accounting)
        if batch.events.num_rows:
            yield batch.events


def sessions_of(
    tables: Iterable[pa.Table],
    definition: SessionDefinition,
    accounting: Accounting,
    options: BatchOptions | None = None,
) -> Iterator[tuple[pa.Table, int]]:
    """Sessions of bounded input, a part of the users at a time, each with the number of events it was made of."""
    latest: list[int] = []

    def watched() -> Iterator[pa.Table]:
        for table in tables:
            latest.append(pc.max(table[col.EVENT_TIME]).as_py())
            accounting.latest_ms = max(latest)
            yield table

    for group in grouped_by_user(watched(), options or BatchOptions(), accounting):
        yield from _sessions_of_group(group, definition, accounting, max(latest, default=0))


def grouped_by_user(tables: Iterable[pa.Table], options: BatchOptions, accounting: Accounting) -> Iterator[EventBuffer]:
    """The tables in groups that fit in memory, all events of a user in one: a single group, or parts of a spill.

    The first group comes when all the tables have been read, so all groups have the columns of all of them.
    """
    held = EventBuffer()
    spill: Spill | None = None
    union = SchemaUnion()
    try:
        for table in tables:
            union.add(held.add(table))
            if held.size_bytes > options.memory_bytes_max:
                spill = spill or Spill(options.spill_directory)
                spill.add(held)
                held = EventBuffer()
        if spill is None:
            held.align(union)
            yield held
            return
        spill.add(held)
        accounting.spilled = spill.rows
        for held in spill.parts():
            held.align(union)
            yield held
    finally:
        if spill is not None:
            spill.close()


def _sessions_of_group(
    held: EventBuffer, definition: SessionDefinition, accounting: Accounting, end_ms: int
) -> Iterator[tuple[pa.Table, int]]:
    shards = Shards(held)

    def work(part: int) -> tuple[Sessionizer, pa.Table]:
        events = shards.part(part)
        sessionizer = Sessionizer.of(definition)
        if events.num_rows:
            sessionizer.push(events)
        return sessionizer, sessionizer.flush(end_ms)

    for sessionizer, sessions in in_order(work, range(len(shards))):
        counts = sessionizer.counts
        accounting.settled += counts.settled
        accounting.duplicate += counts.duplicate
        accounting.excluded += counts.excluded
        accounting.short_sessions += counts.short_sessions
        accounting.sessions += sessions.num_rows
        yield sessions, counts.consumed
