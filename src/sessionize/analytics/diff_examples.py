"""Examples of what differs between two policies: a user's sessions on both sides, and the rules of their boundaries."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.analytics.boundary_reasons import why_began
from sessionize.analytics.two_cuts import Cut, Groups, Ints
from sessionize.session import columns as col
from sessionize.session.durations import format_duration

SHOWN_MAX = 8  # sessions and boundaries of one example
_SHOWN = (
    col.SESSION_START,
    col.SESSION_END,
    col.EVENT_COUNT,
    col.HAS_CONVERSION,
    col.REVENUE,
    col.START_REASON,
    col.END_REASON,
)


def examples(
    events: pa.Table, groups: Groups, of_kind: Mapping[str, Ints], one: Cut, other: Cut, *, keep: int
) -> dict[str, list[dict[str, Any]]]:
    """The first changes in time of each kind, at most `keep`. of_kind: the groups by kind."""
    time, users = events[col.EVENT_TIME].to_numpy(), events[col.USER].combine_chunks()
    found: dict[str, list[dict[str, Any]]] = {}
    for kind, there in of_kind.items():
        if not len(there):
            continue
        at = groups.first_row[there]
        if len(there) > keep:
            last = np.partition(time[at], keep - 1)[keep - 1]
            there, at = there[time[at] <= last], at[time[at] <= last]
        names = users.take(pa.array(at)).cast(pa.string())
        order = pc.sort_indices(
            pa.table({"t": time[at], "u": names}), sort_keys=[("t", "ascending"), ("u", "ascending")]
        )
        found[kind] = [
            {
                "user": names[place].as_py(),
                "time_ms": int(time[at[place]]),
                **_both(int(there[place]), time, groups, one, other),
            }
            for place in order.to_pylist()[:keep]
        ]
    return found


def _both(group: int, time: Ints, groups: Groups, one: Cut, other: Cut) -> dict[str, Any]:
    in_a, in_b = groups.members(group)
    rows = np.union1d(one.rows_of(in_a), other.rows_of(in_b))
    rows = rows[np.argsort(time[rows], kind="stable")]
    opens_a, opens_b = set(one.first_row[in_a].tolist()), set(other.first_row[in_b].tolist())
    alone = [int(row) for row in rows if (row in opens_a) != (row in opens_b)]
    return {
        "sessions_a": list(_sessions(one, in_a)),
        "sessions_b": list(_sessions(other, in_b)),
        "more_a": max(0, int(one.written[in_a].sum()) - SHOWN_MAX),
        "more_b": max(0, int(other.written[in_b].sum()) - SHOWN_MAX),
        "boundaries": [_boundary(row, rows, time, one, other, in_a=row in opens_a) for row in alone[:SHOWN_MAX]],
        "more_boundaries": max(0, len(alone) - SHOWN_MAX),
    }


def _sessions(cut: Cut, which: Ints) -> Iterable[dict[str, Any]]:
    for session in which[cut.written[which]][:SHOWN_MAX].tolist():
        row = cut.values.slice(session, 1).to_pylist()[0]
        yield {"session_id": cut.ids[session].as_py()} | {name: row[name] for name in _SHOWN if name in row}


def _boundary(row: int, rows: Ints, time: Ints, a: Cut, b: Cut, *, in_a: bool) -> dict[str, Any]:
    """Why one side opens a session at an event and the other one does not."""
    cut, not_cut = (a, b) if in_a else (b, a)
    reason = str(cut.began[int(cut.session[row])].as_py())
    before = rows[: int(np.flatnonzero(rows == row)[0])]
    silence = [_silence(row, before, time, each.session) for each in (cut, not_cut)]
    began = reason if silence[0] is None else why_began(reason, silence[0], cut.side.policy)
    if not_cut.session[row] < 0:
        other = "the event does not count"
    elif silence[1] is None:
        other = "the event before it does not count here"
    else:
        other = f"continues: silence {format_duration(silence[1])}, {not_cut.side.policy.describe()}"
    return {
        "time_ms": int(time[row]),
        "only_in": "a" if in_a else "b",
        "reason": reason,
        "why": began,
        "other_side": other,
    }


def _silence(row: int, before: Ints, time: Ints, session: Ints) -> int | None:
    """How long the user was silent before an event, as a side counts; None where the example has no event before."""
    counted = before[session[before] >= 0]
    return int(time[row] - time[counted[-1]]) if len(counted) else None
