"""Why a user's sessions are cut where they are: every event, the silence before it, and the rule that decided.

Nothing is stored for this: the same core runs over the user's events once more.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sessionize.kernel.labels import label_events
from sessionize.kernel.sessionizer import Sessionizer
from sessionize.session import columns as col
from sessionize.session.durations import format_duration
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedEvent:
    """One event in order. silence_ms: since the event before, None for the first. boundary: why a session began here,
    None where it went on. note: a word on events that count nowhere ("duplicate", "excluded")."""

    time_ms: int
    event_type: str | None
    page: str | None
    silence_ms: int | None
    session_id: str | None
    boundary: str | None
    note: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A user's events in order, and the sessions they make (rows of the session table)."""

    user: str
    policy: Policy
    events: list[ExplainedEvent]
    sessions: list[dict[str, Any]]


def explain(
    events: pa.Table, user: str, policy: Policy, *, rules: Rules | None = None, end_ms: int | None = None
) -> Explanation:
    """Explain one user's sessions.

    events: canonical columns, of this user or of many; end_ms: when the whole input ended, default its latest event.
    """
    rules = rules or Rules()
    if end_ms is None and events.num_rows:
        end_ms = pc.max(events[col.EVENT_TIME]).as_py()
    mine = events.filter(pc.equal(events[col.USER].cast(pa.string()), user))
    has = frozenset(mine.column_names)
    sessionizer = Sessionizer(policy, rules=rules, columns=col.SessionColumns.made_of(has))
    sessionizer.push(mine)
    made = sessionizer.flush(end_ms)
    sessions = made.cast(sessionizer.columns.schema()).sort_by(col.SESSION_START).to_pylist()
    place = {session[col.SESSION_ID]: session for session in sessions}
    labels = label_events(mine, policy, rules=rules)
    fields = [_column(mine, name) for name in (col.EVENT_TYPE, col.PAGE)]
    rows = zip(
        mine[col.EVENT_TIME].to_pylist(),
        labels.place.tolist(),
        labels.duplicate.tolist(),
        labels.session_id.to_pylist(),
        *fields,
        strict=True,
    )
    explained: list[ExplainedEvent] = []
    before: int | None = None
    current = None
    for time, _, duplicate, session_id, kind, page in sorted(rows, key=lambda row: row[:3]):
        note = "excluded" if session_id is None else "duplicate" if duplicate else None
        boundary = None
        if note is None and session_id != current:
            current = session_id
            boundary = _why(place[session_id], before, time, policy)
        explained.append(
            ExplainedEvent(
                time_ms=time,
                event_type=kind,
                page=page,
                silence_ms=None if before is None else time - before,
                session_id=session_id,
                boundary=boundary,
                note=note,
            )
        )
        before = time if note is None else before
    return Explanation(user=user, policy=policy, events=explained, sessions=sessions)


def instant(time_ms: int) -> str:
    """ISO 8601 in UTC with milliseconds; the bare number where the calendar ends."""
    try:
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)
    except OverflowError:
        return f"{time_ms} ms"
    return at.isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "Z")


def _why(session: dict[str, Any], before: int | None, time: int, policy: Policy) -> str:
    """The rule behind a start reason, with the numbers that decided."""
    reason = str(session[col.START_REASON])
    if before is None:
        return f"{reason}: no earlier event of this user"
    silence = time - before
    match reason:
        case "inactivity":
            sign = ">" if policy.gap_boundary == "exclusive" else ">="
            return f"inactivity: silence {format_duration(silence)} {sign} gap {format_duration(policy.gap_ms)}"
        case "max_duration":
            assert policy.max_duration_ms is not None
            limit = format_duration(policy.max_duration_ms)
            return (
                f"max_duration: the chain reaches a multiple of {limit}"
                if (policy.max_duration_mode == "anchored")
                else f"max_duration: {limit} or more since the session's start"
            )
        case _:
            return reason


def _column(table: pa.Table, name: str) -> list[str | None]:
    if name not in table.column_names:
        return [None] * int(table.num_rows)
    values: list[str | None] = table[name].cast(pa.string()).to_pylist()
    return values
