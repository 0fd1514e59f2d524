"""The checks: what was measured, the limit, and whether it holds; as JSON and as JUnit's XML."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sessionize.analytics.event_quality import DAYS_MIN, EventQuality, odd_days
from sessionize.analytics.page import text
from sessionize.analytics.session_quality import SessionQuality
from sessionize.analytics.tune import about, percent
from sessionize.session.limits import LIKELY_TIME_MS

Status = Literal["passed", "failed", "skipped"]
_OF_COMPLETENESS = frozenset({"missing_user", "missing_time", "empty_user"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is allowed; shares from 0 to 1. required: columns whose values may be missing in max_missing of the events.
    max_age_ms: None for any age. min_volume, max_volume: of the events of a usual day.
    """

    max_rejected: float = 0.001
    required: tuple[str, ...] = ()
    max_missing: float = 0.0
    max_duplicates: float = 0.01
    max_late: float = 0.05
    earliest_ms: int = LIKELY_TIME_MS[0]
    max_age_ms: int | None = None
    min_volume: float = 0.5
    max_volume: float = 2.0
    min_accuracy: float = 1.0


@dataclass(frozen=True, slots=True)
class Check:
    """One check. group: completeness, uniqueness …; measured and limit in words."""

    group: str
    name: str
    status: Status
    measured: str
    limit: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """All checks of what was looked at. source: in words. counts: of records, events and sessions."""

    source: str
    rules: str
    checks: tuple[Check, ...]
    counts: dict[str, int]

    @property
    def failed(self) -> int:
        """How many did not hold."""
        return sum(each.status == "failed" for each in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON-compatible values."""
        return {
            "source": self.source,
            "rules": self.rules,
            "passed": not self.failed,
            "failed": self.failed,
            "counts": self.counts,
            "checks": [{name: getattr(each, name) for name in Check.__slots__} for each in self.checks],
        }

    def junit(self) -> str:
        """The report as a JUnit test suite, for CI systems."""
        skipped = sum(each.status == "skipped" for each in self.checks)
        cases = []
        for each in self.checks:
            short = f"measured {each.measured}, limit {each.limit}"
            said = f"{short}\n{each.detail}" if each.detail else short
            inner = {
                "passed": f"<system-out>{text(said)}</system-out>",
                "failed": f'<failure message="{text(short)}">{text(said)}</failure>',
                "skipped": f'<skipped message="{text(each.detail)}"/>',
            }[each.status]
            cases.append(
                f'<testcase classname="sessionize.{text(each.group)}" name="{text(each.name)}">{inner}</testcase>'
            )
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f'<testsuites><testsuite name="sessionize check" tests="{len(self.checks)}" failures="{self.failed}" '
            f'errors="0" skipped="{skipped}">' + "".join(cases) + "</testsuite></testsuites>\n"
        )


def event_checks(
    limits: Limits, quality: EventQuality, rejected: dict[str, int], duplicates: int, now_ms: int, late: int | None
) -> Iterator[Check]:
    """The checks of events. rejected: records by reason. late: events that came too late for a stream, None where the
    order of the input says it.
    """
    records = quality.events + sum(rejected.values())
    for group, name, its in (
        ("completeness", "records have user and time", {r: n for r, n in rejected.items() if r in _OF_COMPLETENESS}),
        ("validity", "records can be read", {r: n for r, n in rejected.items() if r not in _OF_COMPLETENESS}),
    ):
        share = sum(its.values()) / max(records, 1)
        detail = ", ".join(f"{reason} {count:,}" for reason, count in sorted(its.items(), key=lambda item: -item[1]))
        yield _at_most(group, name, share, limits.max_rejected, detail)
    for name in limits.required:
        share = quality.missing_share(name)
        yield _at_most("completeness", f"events have {name}", share, limits.max_missing)
    yield _at_most("uniqueness", "events come once", duplicates / max(quality.events, 1), limits.max_duplicates)
    early = f"{quality.too_early:,} events before {_day(limits.earliest_ms // 86_400_000)}"
    yield _none("validity", "times are plausible", quality.too_early, early if quality.too_early else "")
    if late is None:
        share = quality.behind / max(quality.events, 1)
        detail = f"behind by more than {about(quality.lateness_ms)}; the furthest by {about(quality.furthest_ms)}"
    else:
        share, detail = late / max(quality.events + late, 1), "in the table of late events"
    yield _at_most("order", "events come in time", share, limits.max_late, detail)
    yield _fresh(limits, quality, now_ms)
    yield _volume(limits, quality)


def session_checks(limits: Limits, found: SessionQuality) -> Iterator[Check]:
    """The checks of stored sessions."""
    faults = found.faults

    def none(group: str, name: str, fault: str) -> Check:
        return _none(group, name, faults[fault], "; ".join(found.examples.get(fault, ())))

    yield none("completeness", "sessions have id, times and count", "incomplete")
    yield none("uniqueness", "sessions are stored once", "repeated")
    yield none("validity", "values of sessions agree", "invalid")
    yield none("invariants", "no session reaches the maximum duration", "over_maximum")
    yield none("invariants", "no sessions are nearer than the gap unless a rule cut", "near")
    parts = f"{found.archived:,} archived, {found.duplicates:,} duplicate, {found.excluded:,} excluded"
    yield Check(
        "invariants",
        "counts add up to the archive",
        "passed" if found.counted == found.settled else "failed",
        f"{found.counted:,} events in sessions",
        f"= {found.settled:,}",
        parts,
    )
    accuracy = found.equal / found.compared if found.compared else 1.0
    wrong = [f"{faults[name]:,} {name}" for name in ("missing", "unexpected", "differing") if faults[name]]
    columns = [f"{name} in {count:,}" for name, count in found.differing.most_common() if count]
    some = [said for name in ("differing", "missing", "unexpected") for said in found.examples.get(name, ())]
    notes = [
        f"{found.equal:,} of {found.compared:,} rows equal a recomputation",
        *wrong,
        *columns,
        *([f"{found.open:,} still open"] if found.open else []),
        *([f"{found.awaiting:,} users have late events that are not merged yet"] if found.awaiting else []),
        *([f"not compared: {', '.join(sorted(found.uncompared))}"] if found.uncompared else []),
        *some[:5],
    ]
    exact = f"{100 * accuracy:.4f} %" if found.equal < found.compared else "100 %"
    held = accuracy >= limits.min_accuracy
    yield Check(
        "accuracy",
        "sessions equal a recomputation",
        "passed" if held else "failed",
        exact,
        f"≥ {100 * limits.min_accuracy:g} %",
        "; ".join(notes),
    )


def _at_most(group: str, name: str, share: float, limit: float, detail: str = "") -> Check:
    held: Status = "passed" if share <= limit else "failed"
    return Check(group, name, held, percent(share), f"≤ {100 * limit:g} %", detail)


def _none(group: str, name: str, count: int, detail: str) -> Check:
    return Check(group, name, "failed" if count else "passed", f"{count:,}", "0", detail)


def _fresh(limits: Limits, quality: EventQuality, now_ms: int) -> Check:
    if limits.max_age_ms is None:
        return Check("freshness", "the newest event is recent", "skipped", "", "any", "check.max_age is none")
    if quality.newest_ms is None:
        return Check("freshness", "the newest event is recent", "failed", "no event", f"≤ {about(limits.max_age_ms)}")
    age_ms = max(0, now_ms - quality.newest_ms)
    held: Status = "passed" if age_ms <= limits.max_age_ms else "failed"
    return Check("freshness", "the newest event is recent", held, about(age_ms), f"≤ {about(limits.max_age_ms)}")


def _volume(limits: Limits, quality: EventQuality) -> Check:
    name, limit = "days have a usual number of events", f"{limits.min_volume:g} to {limits.max_volume:g} times"
    odd = odd_days(quality.days, limits.min_volume, limits.max_volume)
    if odd is None:
        return Check("volume", name, "skipped", "", limit, f"fewer than {DAYS_MIN} whole days")
    said = [f"{_day(each.day)}: {each.events:,}, usual {each.usual:,.0f}" for each in odd[:5]]
    return Check("volume", name, "failed" if odd else "passed", f"{len(odd):,} odd days", limit, "; ".join(said))


def _day(day: int) -> str:
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).date().isoformat()
    except OverflowError:
        return f"day {day}"
