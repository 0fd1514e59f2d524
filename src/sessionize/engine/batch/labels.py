"""Bounded input to labelled events: every event and the id of its session."""

import numpy as np
import pyarrow as pa

from sessionize.engine.accounting import Accounting, Progress, ignore
from sessionize.engine.batch.options import BatchOptions
from sessionize.engine.batch.outputs import Outputs
from sessionize.engine.batch.sessions import grouped_by_user, raise_if_all_rejected, read
from sessionize.engine.event_columns import with_room, with_user_name
from sessionize.kernel.labels import label_events
from sessionize.ports import Sink, Source
from sessionize.session import columns as col
from sessionize.session.definition import SessionDefinition, rule_columns


def run_label(
    source: Source,
    outputs: Outputs,
    definition: SessionDefinition,
    options: BatchOptions | None = None,
    *,
    progress: Progress = ignore,
) -> Accounting:
    """Write every event with its session id: in the order of the input while it fits in memory, by user beyond that.

    An event of an excluded type has no session id; a duplicate has that of the event it repeats. On an error no output
    shows anything of the run (Outputs.committed).
    """
    accounting, options = Accounting(), options or BatchOptions()
    with outputs.committed():
        tables = read(source, outputs, accounting, progress, user_name=definition.user_name)
        for group in grouped_by_user(tables, options, accounting):
            if len(group):
                _label(list(group.tables()), outputs.sessions, definition, accounting, progress)
        raise_if_all_rejected(accounting, outputs, options.dialect)
        progress("commit", 0, accounting)
    return accounting


def _label(
    group: list[pa.Table], sink: Sink, definition: SessionDefinition, accounting: Accounting, progress: Progress
) -> None:
    wanted = dict.fromkeys((*col.EVENT_TYPES, *sorted(rule_columns(definition.policy, definition.rules))))
    needed = [n for n in wanted if n in group[0].column_names and n != col.PROPERTIES]
    whole = pa.concat_tables([t if definition.rules.boundary is not None else t.select(needed) for t in group])
    labels = label_events(whole, definition.policy, rules=definition.rules)
    ids = labels.session_id
    accounting.sessions += len(ids.unique().drop_null())
    accounting.excluded += ids.null_count
    accounting.duplicate += int(np.count_nonzero(labels.duplicate))
    accounting.settled += len(ids) - ids.null_count - int(np.count_nonzero(labels.duplicate))
    at = 0
    for table in group:
        named = with_room(with_user_name(table, definition.user_name), [col.SESSION_ID])
        sink.write(named.append_column(col.SESSION_ID, ids.slice(at, table.num_rows)))
        at += table.num_rows
        progress("write", table.num_rows, accounting)
