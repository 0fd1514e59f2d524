"""The session of every event: the same pass as everything else, read per row instead of added up."""

import numpy as np
import pyarrow as pa

from sessionize.kernel.sessionizer import Sessionizer
from sessionize.session import columns as col
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules

_ONLY_IDS = col.SessionColumns((col.USER, col.SESSION_ID))


def session_id_of_rows(events: pa.Table, policy: Policy, *, rules: Rules | None = None) -> pa.Array:
    """Session ids, one per event and in the order of the events.

    events: bounded input, as for Sessionizer.push; an event of an excluded type gets null, a duplicate gets the session
    of the event it repeats. Errors: InputError as for Sessionizer.push.
    """
    cut = Sessionizer(policy, rules=rules, columns=_ONLY_IDS).cut_once(events)
    if cut is None:
        return pa.nulls(events.num_rows, pa.string())
    done, ids, at = cut
    length = done.sessions.last - done.sessions.first + 1
    session = np.repeat(np.arange(len(length)), length)
    assert done.rows.order is not None
    session_of_row = np.full(events.num_rows, -1, np.int64)
    session_of_row[at[done.rows.order]] = session
    if done.duplicates is not None:
        session_of_row[at[done.duplicates.order]] = session[done.duplicates.twin]
    return ids.take(pa.array(session_of_row, mask=session_of_row < 0))
