"""The session of every event: the same pass as everything else, read per row instead of added up."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sessionize.kernel.sessionizer import Sessionizer
from sessionize.session import columns as col
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules

_ONLY_IDS = col.SessionColumns((col.USER, col.SESSION_ID))


@dataclass(frozen=True, slots=True)
class Labels:
    """What became of each event, in the order of the events.

    session_id: text, null for an event of an excluded type; a duplicate has the session of the event it repeats.
    duplicate bool[n]. place int64[n]: where the event comes in the order of rule 1 over all users, a duplicate right
    behind the event it repeats, -1 for an excluded one.
    """

    session_id: pa.Array
    duplicate: npt.NDArray[np.bool_]
    place: npt.NDArray[np.int64]


def label_events(events: pa.Table, policy: Policy, *, rules: Rules | None = None) -> Labels:
    """Say for each event of bounded input which session it is in. Errors: InputError as for Sessionizer.push."""
    n = events.num_rows
    duplicate, place, session_of_row = np.zeros(n, bool), np.full(n, -1, np.int64), np.full(n, -1, np.int64)
    # what cuts between simultaneous events depends on their order, and that on everything that sessions are made of
    cuts = policy.max_events is not None or (rules is not None and rules.cut)
    columns = col.SessionColumns.made_of(frozenset(events.column_names)) if cuts else _ONLY_IDS
    cut = Sessionizer(policy, rules=rules, columns=columns).cut_bounded(events)
    if cut is None:
        return Labels(pa.nulls(n, pa.string()), duplicate, place)
    done, ids, at = cut
    length = done.sessions.last - done.sessions.first + 1
    session = np.repeat(np.arange(len(length)), length)
    assert done.rows.order is not None
    counted = at[done.rows.order]
    session_of_row[counted] = session
    place[counted] = np.arange(len(counted))
    if done.duplicates is not None:
        again, twin = at[done.duplicates.order], done.duplicates.twin
        session_of_row[again], place[again], duplicate[again] = session[twin], twin, True
    return Labels(ids.take(pa.array(session_of_row, mask=session_of_row < 0)), duplicate, place)
