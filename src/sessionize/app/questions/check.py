"""`check`: the quality of events and sessions, in files or in the tables of a home.

Events and stored sessions go through the batch engine's split by user together, so memory is bounded however many there
are; each part is recomputed and compared (analytics/session_quality.py).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.analytics.checks import Check, CheckReport, Limits, event_checks, session_checks
from sessionize.analytics.event_quality import EventQuality
from sessionize.analytics.session_quality import Expectation, SessionQuality, judged
from sessionize.app.config.check_section import CheckSection
from sessionize.app.questions.user_parts import of_each_part
from sessionize.engine.accounting import Accounting, Progress
from sessionize.engine.batch.options import BatchOptions
from sessionize.kernel.sessionizer import Sessionizer
from sessionize.session import columns as col
from sessionize.session.durations import parse_duration_ms
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules

_WHAT = "__what"  # of a row: an event, a late one, a session
EVENT, LATE, SESSION = 0, 1, 2
_OF_SESSION = "session:"


@dataclass(slots=True, kw_only=True)
class Checked:
    """What is to be checked.

    events: (LATE or EVENT, table) in the order in which they come; counted while they are read in accounting. sessions:
    stored ones, None where there are none to check. rejected: by reason, once the events are read. are_tables: of a
    home, where sessions may still be open; columns: the session columns that were made for them, None if unknown.
    """

    source: str
    policy: Policy
    rules: Rules
    events: Iterable[tuple[int, pa.Table]]
    sessions: Iterable[pa.Table] | None
    accounting: Accounting
    rejected: dict[str, int]
    options: BatchOptions
    lateness_ms: int
    has_ids: bool
    are_tables: bool = False
    columns: frozenset[str] | None = None
    size_bytes: int | None = None
    userless: int = field(default=0, init=False)  # stored sessions without a user

    def run(self, section: CheckSection, *, now_ms: int, progress: Progress) -> CheckReport:
        """Read everything and judge it. Errors: those of the inputs and of the rules."""
        limits = limits_of(section)
        quality = EventQuality(lateness_ms=self.lateness_ms, earliest_ms=limits.earliest_ms)
        late = EventQuality(lateness_ms=self.lateness_ms, earliest_ms=limits.earliest_ms)
        found, again = SessionQuality(), 0
        rows = self._rows(quality, late)
        if self.sessions is None and not self.has_ids:
            for _ in rows:
                pass
        else:
            for its, events in of_each_part(
                lambda part: self._judged(part, quality, late), rows, self.options, self.accounting
            ):
                found.add(its)
                progress("write", events, self.accounting)
            again = found.duplicates
            found.rows += self.userless
            found.faults["incomplete"] += self.userless
        checks: list[Check] = list(
            event_checks(limits, quality, self.rejected, again, now_ms, late.events if self.are_tables else None)
        )
        if self.sessions is not None:
            checks += session_checks(limits, found)
        return CheckReport(
            source=self.source,
            rules=self.policy.describe(),
            checks=tuple(checks),
            counts={
                "events": quality.events + late.events,
                "late": late.events if self.are_tables else quality.behind,
                "rejected": sum(self.rejected.values()),
                "sessions": found.rows,
            },
        )

    def _rows(self, quality: EventQuality, late: EventQuality) -> Iterator[pa.Table]:
        """Events and sessions as rows of one table, each with what it is."""
        for what, events in self.events:
            (late if what == LATE else quality).add(events)
            yield _marked(events, what)
        for sessions in self.sessions or ():
            nobody = sessions[col.USER].null_count
            if nobody:
                self.userless += nobody
                sessions = sessions.filter(pc.is_valid(sessions[col.USER]))
            names = [name if name == col.USER else f"{_OF_SESSION}{name}" for name in sessions.column_names]
            yield _marked(sessions.rename_columns(names), SESSION)

    def _judged(self, part: pa.Table, quality: EventQuality, late: EventQuality) -> tuple[SessionQuality, int]:
        if _WHAT not in part.column_names:
            return SessionQuality(), 0
        what = part[_WHAT].to_numpy()
        names = [name for name in part.column_names if name != _WHAT and not name.startswith(_OF_SESSION)]
        events, too_late = (part.filter(pa.array(what == each)).select(names) for each in (EVENT, LATE))
        if self.sessions is None:
            sessionizer = Sessionizer(self.policy, rules=self.rules, columns=col.SessionColumns((col.USER,)))
            sessionizer.push(events)
            sessionizer.flush()
            return SessionQuality(duplicates=sessionizer.counts.duplicate), events.num_rows
        theirs = [name for name in part.column_names if name.startswith(_OF_SESSION)]
        stored = part.filter(pa.array(what == SESSION)).select([col.USER, *theirs])
        stored = stored.rename_columns([col.USER, *(name.removeprefix(_OF_SESSION) for name in theirs)])
        newest = [each for each in (quality.newest_ms, late.newest_ms) if each is not None]
        by = Expectation(policy=self.policy, rules=self.rules, end_ms=max(newest, default=0))
        if self.are_tables:
            open_ms = self.policy.longest_silence_ms + self.lateness_ms
            by = replace(by, open_ms=open_ms, columns=self.columns, drained=True)
        return judged(events, too_late, stored, by), len(what)


def limits_of(section: CheckSection) -> Limits:
    """The limits that a section means."""
    return Limits(
        max_rejected=section.max_rejected,
        required=section.required,
        max_missing=section.max_missing,
        max_duplicates=section.max_duplicates,
        max_late=section.max_late,
        earliest_ms=section.earliest_ms,
        max_age_ms=None if section.max_age == "none" else parse_duration_ms(section.max_age, name="check.max_age"),
        min_volume=section.min_volume,
        max_volume=section.max_volume,
        min_accuracy=section.min_accuracy,
    )


def _marked(rows: pa.Table, what: int) -> pa.Table:
    return rows.append_column(_WHAT, pa.array(np.full(rows.num_rows, what, np.int8)))
