"""The answer of `tune` as a page: the histogram of silences with both kinds, and sessions and durations by gap."""

from math import log, log2

import numpy as np

from sessionize.analytics.charts import Chart, round_steps, short
from sessionize.analytics.mixture import LONGEST_MS, SHORTEST_MS
from sessionize.analytics.page import Page
from sessionize.analytics.silences import edges_ms
from sessionize.analytics.tune import GapFigures, Tuning, about, percent
from sessionize.session.durations import format_duration

_TICKS_MS = (1_000, 10_000, 60_000, 600_000, 3_600_000, 21_600_000, 86_400_000, 604_800_000, 2_592_000_000)
_BINS_PER_BAR = 8
HEAD = ("gap", "sessions", "median", "90 %", "near", "at stake")
VERDICTS = {
    "clear": "The data support a gap of {}.",
    "weak": "The data lean towards a gap of {}, but not clearly.",
    "none": "The data support no particular gap.",
}


def verdict(found: Tuning) -> str:
    """The answer in a sentence."""
    return VERDICTS[found.support].format("" if found.gap_ms is None else format_duration(found.gap_ms))


def tune_page(found: Tuning, source: str) -> str:
    """The page as HTML. source: what was read, in words."""
    counts = found.counts
    page = Page("Which gap ends a session?", source)
    page.facts(
        (
            ("events", f"{counts.events:,}"),
            ("users", f"{counts.users:,}"),
            ("silences", f"{counts.silences:,}"),
            ("supported gap", "none" if found.gap_ms is None else format_duration(found.gap_ms)),
        )
    )
    page.heading(verdict(found))
    page.bullets((*found.reasons, *found.notes))
    if counts.silences > counts.simultaneous:
        page.figure(
            _histogram(found),
            "Silences between two events of a user, logarithmic. Lines: the fitted kinds; dashed: the candidates.",
        )
    page.heading("Candidates")
    page.table(
        (*HEAD, "why"),
        [(*row(each), "; ".join(each.why)) for each in found.candidates],
        right=range(6),
    )
    page.paragraph(
        "Near: the share of the silences within ±10 % of the gap. At stake: their number per session.",
        dim=True,
    )
    page.heading("Sessions and durations by gap")
    page.figure(_sessions(found.gaps, found.gap_ms), "Sessions, by the gap that ends them.")
    page.figure(_durations(found.gaps, found.gap_ms), "Durations of the sessions, by the gap; no maximum duration.")
    page.table(
        (*HEAD, "mean", "longest", "of one moment"),
        [
            (*row(each), about(each.mean_ms), about(each.longest_ms), f"{each.without_duration:,}")
            for each in found.gaps
        ],
        right=range(9),
    )
    return page.html()


def row(each: GapFigures) -> tuple[str, ...]:
    """What is shown of a gap everywhere, by HEAD."""
    return (
        format_duration(each.gap_ms),
        f"{each.sessions:,}",
        about(each.median_ms),
        about(each.p90_ms),
        percent(each.near_share_of_silences),
        percent(each.near_share_of_sessions),
    )


def _histogram(found: Tuning) -> str:
    counts, edges = found.counts, edges_ms()
    grouped = counts.bins.reshape(-1, _BINS_PER_BAR).sum(axis=1)
    borders = np.log2(edges[::_BINS_PER_BAR])
    total = max(int(counts.bins.sum()), 1)
    density = grouped / np.diff(borders) / total
    low, high = log2(100), log2(LONGEST_MS)
    there = np.flatnonzero((grouped > 0) & (borders[:-1] >= low) & (borders[1:] <= high))
    if not len(there):
        there = np.flatnonzero(grouped > 0)
        low, high = float(borders[there[0]]), float(borders[there[-1] + 1])
    else:
        low, high = max(low, float(borders[there[0]]) - 0.5), min(high, float(borders[there[-1] + 1]) + 0.5)
    top = float(density[there].max()) * 1.15
    ticks = [(log2(ms), format_duration(ms)) for ms in _TICKS_MS if low <= log2(ms) <= high]
    chart = Chart(title="Histogram of silences", x=(low, high), y=(0, top), x_ticks=ticks)
    chart.bars(
        [
            (
                float(borders[at]),
                float(borders[at + 1]),
                float(density[at]),
                f"{about(2 ** borders[at])} to {about(2 ** borders[at + 1])}: {grouped[at]:,} silences",
            )
            for at in there.tolist()
        ]
    )
    if found.mixture is not None and found.support != "none":
        x = np.linspace(max(low, log2(SHORTEST_MS)), high, 160)
        considered = counts.bins[(edges[:-1] >= SHORTEST_MS) & (edges[:-1] < LONGEST_MS)].sum() / total
        for colour, name, kind in (
            (2, "within visits", found.mixture.within),
            (3, "between visits", found.mixture.between),
        ):
            y = kind.density(x * log(2)) * log(2) * considered
            chart.line(list(zip(x.tolist(), y.tolist(), strict=True)), colour=colour, name=name)
    for number, each in enumerate(found.candidates):
        chart.mark(log2(each.gap_ms), format_duration(each.gap_ms), row=number % 4)
    return chart.svg()


def _axes(title: str, gaps: tuple[GapFigures, ...], top: float, ticks: list[tuple[float, str]]) -> Chart:
    x = (log2(gaps[0].gap_ms), log2(gaps[-1].gap_ms))
    labels = [(log2(ms), format_duration(ms)) for ms in _TICKS_MS if x[0] <= log2(ms) <= x[1]]
    return Chart(title=title, x=x, y=(0, top), x_ticks=labels, y_ticks=ticks)


def _sessions(gaps: tuple[GapFigures, ...], gap_ms: int | None) -> str:
    top = max(each.sessions for each in gaps) * 1.08
    chart = _axes("Sessions by gap", gaps, top, [(step, short(step)) for step in round_steps(top)])
    points = [(log2(each.gap_ms), float(each.sessions)) for each in gaps]
    chart.line(points, colour=1, dots=[f"{format_duration(each.gap_ms)}: {each.sessions:,} sessions" for each in gaps])
    if gap_ms is not None:
        chart.mark(log2(gap_ms), format_duration(gap_ms))
    return chart.svg()


def _durations(gaps: tuple[GapFigures, ...], gap_ms: int | None) -> str:
    top = max(max(each.p90_ms for each in gaps) * 1.08, 1.0)
    minutes = [(step * 60_000, f"{short(step)} min") for step in round_steps(top / 60_000)]
    chart = _axes("Durations by gap", gaps, top, minutes)
    for colour, name, of in ((1, "median", "median_ms"), (2, "90 %", "p90_ms"), (3, "mean", "mean_ms")):
        points = [(log2(each.gap_ms), float(getattr(each, of))) for each in gaps]
        said = [f"{format_duration(each.gap_ms)}: {name} {about(getattr(each, of))}" for each in gaps]
        chart.line(points, colour=colour, name=name, dots=said)
    if gap_ms is not None:
        chart.mark(log2(gap_ms), format_duration(gap_ms))
    return chart.svg()
