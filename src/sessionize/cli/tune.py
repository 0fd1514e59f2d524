"""`tune`: which gap the silences of these events support."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from sessionize.app.format_options import DEFAULT_FORMAT, FormatOptions
from sessionize.app.options import DEFAULT_RECORDS, RecordOptions
from sessionize.cli import options as opt

if TYPE_CHECKING:
    from sessionize.analytics.tune import Tuning


def tune(
    inputs: Annotated[
        list[str], typer.Argument(metavar="FILES", help="Files, folders, patterns, pipes, as for batch.")
    ],
    gaps: Annotated[
        list[str] | None,
        typer.Option("--gap", help="A gap to look at beside the candidates: 40m; without a unit: minutes; repeatable."),
    ] = None,
    excluded_events: Annotated[
        list[str] | None, typer.Option("--excluded-events", help="Event type to ignore; repeatable.")
    ] = None,
    records: Annotated[RecordOptions, opt.RECORDS] = DEFAULT_RECORDS,
    input_format: Annotated[FormatOptions, opt.FORMAT] = DEFAULT_FORMAT,
    max_future: opt.MaxFuture = "24h",
    report: opt.Report = None,
    memory: opt.Memory = "2GB",
    home: opt.InputHome = None,
    as_json: opt.Json = False,
) -> None:
    """Show how long users are silent between events, and which gap that supports.

    Candidates come from a mixture of two kinds of silence (within and between visits) and from the valley between
    them. Each shows its sessions, their durations, and how much a slightly other gap would change. If the data support
    no gap, the answer says so.
    """
    from sessionize.app.questions.report_file import ReportFile
    from sessionize.app.questions.tune import open_tune
    from sessionize.app.questions.user_parts import EventFiles
    from sessionize.cli import output as out
    from sessionize.cli.progress import shown

    files = EventFiles(
        inputs=inputs, records=records, input_format=input_format, max_future=max_future, memory=memory, home=home
    )
    run = open_tune(files, gaps=gaps, excluded_events=excluded_events, now_ms=time.time_ns() // 1_000_000)
    target = None if report is None else ReportFile.at(report, inputs, run.source.files)
    with shown(run.size_bytes, enabled=not as_json) as progress:
        found, accounting = run.run(progress)
    if as_json:
        out.print_json({**found.as_dict(), "records": accounting.consumed, "rejected": accounting.rejected})
    else:
        print_tuning(found)
    out.print_rejected(accounting, files.dialect())
    if target is not None:
        from sessionize.analytics.tune_page import tune_page

        target.write(found.as_dict, lambda: tune_page(found, ", ".join(inputs)))
        out.print_report_place(target.path)


def print_tuning(found: "Tuning") -> None:
    """The answer on a terminal: the histogram, the verdict with its reasons, the candidates."""
    from sessionize.analytics.tune_page import HEAD, row, verdict
    from sessionize.cli import output as out
    from sessionize.cli.terminal.bars import print_bars

    counts = found.counts
    say = out.console()
    said = f"{counts.events:,} events of {counts.users:,} users, {counts.silences:,} silences"
    say.print(said + (f", {counts.simultaneous:,} of them 0 ms" if counts.simultaneous else ""))
    bars = list(_bars(found))
    if bars:
        say.print()
        print_bars(("silence up to", "silences"), bars)
    colour = {"clear": "green", "weak": "yellow", "none": "red"}[found.support]
    say.print(f"\n[bold {colour}]{out.escaped(verdict(found))}[/]")
    for reason in (*found.reasons, *found.notes):
        out.print_item(reason)
    say.print()
    head = (*HEAD, "why")
    out.print_table("", head, [(*row(each), "; ".join(each.why)) for each in found.candidates], right=range(6))
    say.print("[dim]near: silences within ±10 % of the gap; at stake: their number per session[/]")
    say.print("[dim]-o report.html and --json have every gap from 10s to 1d[/]")


def _bars(found: "Tuning") -> "list[tuple[str, int, str]]":
    """The rows of the histogram: (silence, how many, which candidates lie in it)."""
    from sessionize.analytics.tune import about
    from sessionize.session.durations import format_duration

    candidates: Sequence[int] = [each.gap_ms for each in found.candidates]
    made = []
    for low, high, count in found.rows():
        inside = [format_duration(gap) for gap in candidates if low < gap <= high]
        made.append((about(high), count, f"← {', '.join(inside)}" if inside else ""))
    return made
