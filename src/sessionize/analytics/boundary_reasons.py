"""Why a session begins at an event, in words with the deciding numbers and values."""

from datetime import timedelta

import pyarrow as pa

from sessionize.session.durations import format_duration
from sessionize.session.event_gaps import event_gaps_ms
from sessionize.session.local_days import local_day
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules
from sessionize.session.split_values import split_values
from sessionize.session.time import EPOCH_DATE

_SPLIT = "rule:split_on_change"


class Course:
    """Goes along the events of a user that count, in their order, and remembers what the rules compare with.

    events: the user's, by whose rows it is asked. Errors: ConfigError where they lack a field of the rules.
    """

    def __init__(self, policy: Policy, rules: Rules, events: pa.Table) -> None:
        self._policy = policy
        self._gaps = None if policy.gap_by is None else event_gaps_ms(events, policy.gap_by, policy.gap_ms).tolist()
        self._values = {name: column.to_pylist() for name, column in split_values(events, rules).items()}
        self._before_ms: int | None = None
        self._reach_ms = 0
        self._known: dict[str, str] = {}

    def take(self, row: int, time_ms: int, opened_by: str | None) -> None:
        """The next event. opened_by: the reason if it begins a session."""
        if opened_by in ("first", "inactivity") or (opened_by is not None and _begins_run(opened_by)):
            self._known, self._reach_ms = {}, time_ms
        gap_ms = self._policy.gap_ms if self._gaps is None else self._gaps[row]
        self._reach_ms = max(self._reach_ms, time_ms + gap_ms - self._policy.inclusive_ms)
        self._known |= self._values_of(row)
        self._before_ms = time_ms

    def why(self, reason: str, row: int, time_ms: int) -> str:
        """The reason for which the next event begins a session, with what decided."""
        if self._before_ms is None:
            return f"{reason}: no earlier event of this user"
        policy, silence = self._policy, time_ms - self._before_ms
        if reason == "inactivity" and self._gaps is not None:
            over = format_duration(time_ms - self._reach_ms)
            return f"{reason}: silence {format_duration(silence)}, {over} after the gaps of all events before"
        if reason == _SPLIT:
            changed = [
                f"{name} {self._known[name]!r} → {value!r}"
                for name, value in self._values_of(row).items()
                if self._known.get(name, value) != value
            ]
            return f"{reason}: {', '.join(changed)}"
        if reason == "rule:day_start" and policy.day_start is not None:
            return f"{reason}: {_date(local_day(time_ms, policy.day_start))} in {policy.day_start}"
        return why_began(reason, silence, policy)

    def _values_of(self, row: int) -> dict[str, str]:
        return {name: values[row] for name, values in self._values.items() if values[row] is not None}


def _begins_run(reason: str) -> bool:
    return reason.startswith("rule:") and reason != _SPLIT


def why_began(reason: str, silence: int, policy: Policy) -> str:
    """The rule of a reason with the deciding numbers. silence: before the boundary, ms."""
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
        case "max_events":
            return f"max_events: {policy.max_events:,} events in the session before"
        case _:
            return reason


def _date(day: int) -> str:
    try:
        return (EPOCH_DATE + timedelta(days=day)).isoformat()
    except OverflowError:
        return f"day {day}"
