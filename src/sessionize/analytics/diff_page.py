"""The answer of `diff` as a page, and its rows as they are shown everywhere."""

from typing import Any

from sessionize.analytics.charts import Chart, round_steps, short
from sessionize.analytics.explain import instant
from sessionize.analytics.page import Page
from sessionize.analytics.policy_diff import KINDS, PolicyDiff
from sessionize.analytics.tune import about

_DURATIONS = "_duration_ms"


def verdict(diff: PolicyDiff) -> str:
    """The answer in a sentence."""
    if diff.is_empty:
        return "Both policies make the same sessions."
    a, b = (its.durations.sessions for its in (diff.figures_a, diff.figures_b))
    users = f"{diff.users_changed:,} {'user has' if diff.users_changed == 1 else 'users have'} other sessions"
    if a == b:
        return f"B makes as many sessions as A; {users}."
    more = f"{abs(b - a):,} {'more' if b > a else 'fewer'} {'session' if abs(b - a) == 1 else 'sessions'}"
    percent = f" ({100 * (b - a) / a:+.1f} %)" if a else ""
    return f"B makes {more} than A{percent}; {users}."


def figure_rows(diff: PolicyDiff) -> list[tuple[str, str, str, str]]:
    """(figure, A, B, difference) in words; those that are nothing on both sides are left out."""
    rows = []
    for name, its in diff.as_dict()["figures"].items():
        if its["a"] or its["b"]:
            shown = tuple(_shown(name, its[side]) for side in ("a", "b"))
            rows.append((name.removesuffix("_ms").replace("_", " "), *shown, _difference(name, its)))
    return rows


def change_rows(diff: PolicyDiff) -> list[tuple[str, ...]]:
    """(kind, changes, sessions of A, of B, meaning) of what is there."""
    return [
        (_words(kind), *(f"{counts[kind]:,}" for counts in (diff.changes, diff.sessions_a, diff.sessions_b)), meaning)
        for kind, meaning in KINDS.items()
        if diff.changes[kind]
    ]


def boundary_rows(diff: PolicyDiff) -> list[tuple[str, str, str]]:
    """(which side, the rule, how many boundaries) that one side has alone."""
    return [
        (f"only in {each['only_in'].upper()}", each["reason"], f"{each['count']:,}")
        for each in diff.as_dict()["boundaries"]
    ]


def example_rows(diff: PolicyDiff, limit: int) -> list[tuple[str, str, str, str, str]]:
    """(kind, user, A, B, boundaries) of the first examples of each kind."""
    rows = []
    for kind, examples in diff.as_dict()["examples"].items():
        for each in examples[:limit]:
            sides = (_sessions(each[f"sessions_{s}"], each[f"more_{s}"]) for s in ("a", "b"))
            rows.append((_words(kind), each["user"], *sides, _boundaries(each)))
    return rows


def diff_page(diff: PolicyDiff, source: str) -> str:
    """The page as HTML. source: what was read, in words."""
    page = Page("What differs between two policies?", source)
    page.table(
        ("", "policy", "rules"),
        [(letter, side.name, side.policy.describe()) for letter, side in (("A", diff.a), ("B", diff.b))],
    )
    page.heading(verdict(diff))
    page.facts(
        (
            ("sessions of A", f"{diff.figures_a.durations.sessions:,}"),
            ("sessions of B", f"{diff.figures_b.durations.sessions:,}"),
            ("users with other sessions", f"{diff.users_changed:,}"),
            ("boundaries of one side alone", f"{sum(diff.boundaries.values()):,}"),
        )
    )
    page.heading("Figures")
    page.table(("figure", "A", "B", "B − A"), figure_rows(diff), right=(1, 2, 3))
    page.heading("Sessions")
    if any(count for kind, count in diff.changes.items() if kind != "same"):
        page.figure(_changes(diff), "Sessions by what became of them, without those that are the same.")
    page.table(("kind", "changes", "sessions of A", "of B", "meaning"), change_rows(diff), right=(1, 2, 3))
    if diff.boundaries:
        page.heading("Boundaries that one side has alone")
        page.table(("", "rule", "boundaries"), boundary_rows(diff), right=(2,))
    if diff.examples:
        page.heading("Examples")
        page.paragraph("The first in time of each kind; all times are UTC.", dim=True)
        page.table(("kind", "user", "A", "B", "boundary and rule"), example_rows(diff, diff.keep))
    return page.html()


def _changes(diff: PolicyDiff) -> str:
    kinds = [kind for kind in KINDS if kind != "same" and diff.changes[kind]]
    top = max(max(diff.sessions_a[kind], diff.sessions_b[kind]) for kind in kinds) * 1.1
    ticks = [(step, short(step)) for step in round_steps(top)]
    labels = [(at + 0.5, _words(kind)) for at, kind in enumerate(kinds)]
    chart = Chart(title="Changes by kind", x=(0, len(kinds)), y=(0, top), x_ticks=labels, y_ticks=ticks)
    for colour, letter, counts, left in ((1, "A", diff.sessions_a, 0.12), (2, "B", diff.sessions_b, 0.5)):
        said = [f"{_words(kind)}: {counts[kind]:,} sessions of {letter}" for kind in kinds]
        heights = [(at, float(counts[kind])) for at, kind in enumerate(kinds) if counts[kind]]
        bars = [(at + left, at + left + 0.36, height, said[at]) for at, height in heights]
        chart.bars(bars, colour=colour, name=f"sessions of {letter}")
    return chart.svg()


def _words(kind: str) -> str:
    return {"only_a": "only in A", "only_b": "only in B"}.get(kind, kind)


def _shown(name: str, value: float) -> str:
    if name.endswith(_DURATIONS):
        return about(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _difference(name: str, its: dict[str, Any]) -> str:
    change = its["difference"]
    if not change:
        return "="
    sign = "+" if change > 0 else "−"
    share = f" ({100 * change / its['a']:+.1f} %)" if its["a"] else ""
    return f"{sign}{_shown(name, abs(change))}{share}"


def _sessions(sessions: list[dict[str, Any]], more: int) -> str:
    said = [
        f"{_span(each['session_start_time_ms'], each['session_end_time_ms'])}, {_counted(each['event_count'])}, "
        f"{each['start_reason']} → {each['end_reason']}"
        for each in sessions
    ]
    return "\n".join([*said, f"and {more:,} more"] if more else said) or "none"


def _counted(events: int) -> str:
    return "1 event" if events == 1 else f"{events:,} events"


def _span(start_ms: int, end_ms: int) -> str:
    start, end = (instant(ms).removesuffix(".000Z").removesuffix("Z") for ms in (start_ms, end_ms))
    return f"{start}–{end[11:] if end[:10] == start[:10] else end}"


def _boundaries(example: dict[str, Any]) -> str:
    said = [
        f"{instant(each['time_ms'])} only in {each['only_in'].upper()}: {each['why']}; "
        f"{'B' if each['only_in'] == 'a' else 'A'}: {each['other_side']}"
        for each in example["boundaries"]
    ]
    more = example["more_boundaries"]
    return "\n".join([*said, f"and {more:,} more"] if more else said)
