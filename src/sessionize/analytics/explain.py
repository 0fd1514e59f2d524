"""Explains a user's session boundaries: every event, the silence before it, and the rule that decided.

It needs no stored data: the same core runs over the user's events again. The table's rows of the user are shown beside
the result, because they may be older: open sessions and late events that are not reconciled are missing there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.analytics.boundary_reasons import Course, why_began
from sessionize.kernel.labels import label_events
from sessionize.kernel.sessionizer import Sessionizer
from sessionize.session import columns as col
from sessionize.session.durations import format_duration
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules

# Whether a session is in the table: equal, with other events, or not.
StoredAs = Literal["yes", "otherwise", "no"]
_COMPARED = (col.SESSION_START, col.SESSION_END, col.EVENT_COUNT)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedEvent:
    """One event in order.

    silence_ms: since the previous event, None for the first. boundary: why a session began here, None if it continued.
    note: for events that do not count ("duplicate", "excluded"). late: too late for the stream.
    """

    time_ms: int
    event_type: str | None
    page: str | None
    silence_ms: int | None
    session_id: str | None
    boundary: str | None
    note: str | None
    late: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedSession:
    """One session. row: of the session table, with the user as `user`.

    began, ended: the rules of both ends, with the deciding numbers. short: too short to be written (rule 11). stored:
    whether the table has it, None without a table. in_table: the table's row with its id. times_stored: how often the
    table has that id, more than once if the same events were loaded again; None without a table.
    """

    row: dict[str, Any]
    began: str
    ended: str
    short: bool = False
    stored: StoredAs | None = None
    in_table: dict[str, Any] | None = None
    times_stored: int | None = None

    @property
    def id(self) -> str:
        """Its session_id."""
        return str(self.row[col.SESSION_ID])


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A user's events in order, and their sessions.

    only_in_table: sessions of the table that these events do not give, a row for each id, with times_stored.
    """

    user: str
    policy: Policy
    events: list[ExplainedEvent]
    sessions: list[ExplainedSession]
    only_in_table: list[dict[str, Any]]

    @property
    def counts(self) -> dict[str, int]:
        """The number of events, and of late, duplicate and excluded ones among them."""
        notes = [event.note for event in self.events]
        return {
            "events": len(notes),
            "late": sum(event.late for event in self.events),
            "duplicate": notes.count("duplicate"),
            "excluded": notes.count("excluded"),
        }

    def events_of(self, session: ExplainedSession) -> list[ExplainedEvent]:
        """Its events, with those in between that do not count."""
        return [event for part, events in self._parts() if part == session.id for event in events]

    def _parts(self) -> Iterator[tuple[str | None, list[ExplainedEvent]]]:
        part: list[ExplainedEvent] = []
        current: str | None = None
        for event in self.events:
            if event.boundary is not None:
                if part:
                    yield current, part
                part, current = [], event.session_id
            part.append(event)
        if part:
            yield current, part

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON-compatible values; a session is its row plus its fields here."""
        return {
            "user": self.user,
            "rules": self.policy.describe(),
            "counts": self.counts,
            "sessions": [
                {**each.row} | {name: getattr(each, name) for name in ExplainedSession.__slots__ if name != "row"}
                for each in self.sessions
            ],
            "only_in_table": self.only_in_table,
            "events": [{name: getattr(event, name) for name in ExplainedEvent.__slots__} for event in self.events],
        }


def explain(
    events: pa.Table,
    user: str,
    policy: Policy,
    *,
    rules: Rules | None = None,
    end_ms: int | None = None,
    late: pa.Table | None = None,
    stored: Sequence[Mapping[str, Any]] | None = None,
) -> Explanation:
    """Explain one user's sessions.

    events: canonical columns, of this user or of many; late: the user's late events. end_ms: the end of the whole
    input, default its latest event. stored: a table's rows of the user, None without a table.
    """
    rules = rules or Rules()
    if end_ms is None and events.num_rows:
        end_ms = pc.max(events[col.EVENT_TIME]).as_py()
    mine = events.filter(pc.equal(events[col.USER].cast(pa.string()), user))
    on_time = mine.num_rows
    if late is not None:
        mine = pa.concat_tables([mine, late], promote_options="permissive")
    has = frozenset(mine.column_names)
    every = replace(policy, min_events=1, min_duration_ms=0)  # also those that are not written
    sessionizer = Sessionizer(every, rules=rules, columns=col.SessionColumns.made_of(has, bounces=bool(policy.bounce)))
    sessionizer.push(mine)
    made = sessionizer.flush(end_ms)
    rows = made.cast(sessionizer.columns.schema()).sort_by(col.SESSION_START).to_pylist()
    explained = _events(mine, every, rules, {row[col.SESSION_ID]: row for row in rows}, on_time)
    there = None if stored is None else _by_id(stored)
    began = {event.session_id: event for event in explained if event.boundary is not None}
    sessions = []
    for number, row in enumerate(rows):
        after = rows[number + 1] if number + 1 < len(rows) else None
        same_id = [] if there is None else there.pop(row[col.SESSION_ID], [])
        in_table = next((each for each in same_id if _stored_as(row, each) == "yes"), same_id[0] if same_id else None)
        sessions.append(
            ExplainedSession(
                row=_plain(row),
                began=str(began[row[col.SESSION_ID]].boundary),
                ended=_why_ended(row, after, None if after is None else began[after[col.SESSION_ID]], end_ms, policy),
                short=not policy.keeps(row[col.EVENT_COUNT], row[col.SESSION_END] - row[col.SESSION_START]),
                stored=None if there is None else _stored_as(row, in_table),
                in_table=in_table,
                times_stored=None if there is None else len(same_id),
            )
        )
    others = [{**same_id[0], "times_stored": len(same_id)} for same_id in (there or {}).values()]
    return Explanation(user=user, policy=policy, events=explained, sessions=sessions, only_in_table=others)


def _by_id(stored: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in stored:
        found.setdefault(str(row[col.SESSION_ID]), []).append(_plain(row))
    return found


def instant(time_ms: int) -> str:
    """ISO 8601 in UTC with milliseconds; the bare number outside of the calendar."""
    try:
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)
    except OverflowError:
        return f"{time_ms} ms"
    return at.isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "Z")


def _events(
    mine: pa.Table, policy: Policy, rules: Rules, place: Mapping[str, dict[str, Any]], on_time: int
) -> list[ExplainedEvent]:
    labels = label_events(mine, policy, rules=rules)
    fields = [_column(mine, name) for name in (col.EVENT_TYPE, col.PAGE)]
    rows = zip(
        mine[col.EVENT_TIME].to_pylist(),
        labels.place.tolist(),
        labels.duplicate.tolist(),
        labels.session_id.to_pylist(),
        *fields,
        (np.arange(mine.num_rows) >= on_time).tolist(),
        strict=True,
    )
    explained: list[ExplainedEvent] = []
    course = Course(policy, rules, mine)
    before: int | None = None
    current = None
    ordered = sorted(enumerate(rows), key=lambda row: row[1][:3])
    for row, (time, _, duplicate, session_id, kind, page, late) in ordered:
        note = "excluded" if session_id is None else "duplicate" if duplicate else None
        boundary = None
        if note is None and session_id != current:
            current = session_id
            boundary = course.why(str(place[session_id][col.START_REASON]), row, time)
        explained.append(
            ExplainedEvent(
                time_ms=time,
                event_type=kind,
                page=page,
                silence_ms=None if before is None else time - before,
                session_id=session_id,
                boundary=boundary,
                note=note,
                late=late,
            )
        )
        if note is None:
            before = time
            course.take(row, time, str(place[session_id][col.START_REASON]) if boundary is not None else None)
    return explained


def _why_ended(
    session: Mapping[str, Any],
    after: Mapping[str, Any] | None,
    next_event: ExplainedEvent | None,
    end_ms: int | None,
    policy: Policy,
) -> str:
    """The rule of an end reason, with the deciding numbers. next_event: the first of the session after it."""
    reason = str(session[col.END_REASON])
    until = after[col.SESSION_START] if after is not None else end_ms
    silence = None if until is None else until - session[col.SESSION_END]
    if reason == "end_of_input":
        came = "" if not silence else f": the last event of all users came {format_duration(silence)} later"
        return f"{reason}{came}"
    if reason in ("inactivity", "timeout") and silence is not None:
        if policy.gap_by is not None:
            said = f"silence {format_duration(silence)}, longer than the gaps of its events"
        else:
            said = why_began("inactivity", silence, policy).partition(": ")[2]
        return f"{reason}: {said}" + ("" if after is not None else ", no later event of this user")
    if next_event is not None and str(next_event.boundary).partition(": ")[0] == reason:
        return str(next_event.boundary)  # what opened the next one
    return reason if silence is None else why_began(reason, silence, policy)


def _stored_as(row: Mapping[str, Any], in_table: Mapping[str, Any] | None) -> StoredAs:
    if in_table is None:
        return "no"
    return "yes" if all(row[name] == in_table.get(name) for name in _COMPARED) else "otherwise"


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of sessions with counts as a mapping, as in JSON."""
    kinds = row.get(col.EVENTS_BY_TYPE)
    return {**row, col.EVENTS_BY_TYPE: dict(kinds)} if kinds is not None else dict(row)


def _column(table: pa.Table, name: str) -> list[str | None]:
    if name not in table.column_names:
        return [None] * int(table.num_rows)
    values: list[str | None] = table[name].cast(pa.string()).to_pylist()
    return values
