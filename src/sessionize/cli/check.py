"""`check`: whether events and sessions are sound. Exit 0 if all checks passed, 1 if one failed."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sessionize.app.format_options import DEFAULT_FORMAT, FormatOptions
from sessionize.app.options import DEFAULT_RECORDS, DEFAULT_RULES, RecordOptions, RuleOptions
from sessionize.cli import options as opt

if TYPE_CHECKING:
    from sessionize.analytics.checks import CheckReport

_WORDS = "A pipeline (preset or file) whose tables to check, or files of events; default: the tables of the only home."


def check(
    words: Annotated[list[str] | None, typer.Argument(metavar="PIPELINE|FILES", help=_WORDS)] = None,
    sessions: Annotated[
        Path | None,
        typer.Option("--sessions", help="Sessions of the files, as batch wrote them: .parquet, .csv or .ndjson."),
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Also write the result as JUnit XML, for CI.")] = None,
    report: opt.Report = None,
    pipeline: Annotated[
        str | None,
        typer.Option("--pipeline", help="Preset or file whose limits, record format and rules hold for the files."),
    ] = None,
    records: Annotated[RecordOptions, opt.RECORDS] = DEFAULT_RECORDS,
    input_format: Annotated[FormatOptions, opt.FORMAT] = DEFAULT_FORMAT,
    max_future: opt.MaxFuture = "24h",
    rules: Annotated[RuleOptions, opt.RULES] = DEFAULT_RULES,
    home: opt.HomeOrNone = None,
    database: opt.DatabaseOrNone = None,
    memory: opt.Memory = "2GB",
    as_json: opt.Json = False,
) -> None:
    """Check events and sessions: completeness, uniqueness, validity, order, invariants, accuracy, freshness, volume.

    Sessions are compared with a recomputation from the events, row for row. The limits are in the section check of the
    pipeline. Exit code 0: all checks passed; 1: one failed; 2: wrong usage.
    """
    from sessionize.app.questions.check_sources import CheckOptions
    from sessionize.app.questions.user_parts import EventFiles

    given = tuple(words or ())
    files = EventFiles(
        inputs=list(given), records=records, input_format=input_format, max_future=max_future, memory=memory, home=home
    )
    options = CheckOptions(
        words=given, files=files, rules=rules, sessions=sessions, pipeline=pipeline, home=home, database=database
    )
    run_check(options, junit=junit, report=report, as_json=as_json)


def run_check(options: object, *, junit: Path | None, report: Path | None, as_json: bool) -> None:
    """Check, show, write, and exit with 1 where a check failed."""
    from sessionize.app.output_paths import check_local, write_text
    from sessionize.app.questions.check_sources import CheckOptions, checked
    from sessionize.app.questions.report_file import ReportFile
    from sessionize.cli import output as out
    from sessionize.cli.progress import shown

    assert isinstance(options, CheckOptions)
    if junit is not None:
        check_local(junit, name="--junit")
    target = None if report is None else ReportFile.at(report, () if options.names_pipeline else options.words)
    with shown(None, enabled=not as_json) as progress:
        found = checked(options, now_ms=time.time_ns() // 1_000_000, warn=out.print_warning, progress=progress)
    if as_json:
        out.print_json(found.as_dict())
    else:
        print_report(found)
    if junit is not None:
        write_text(junit, found.junit(), failed="the JUnit file cannot be written")
    if target is not None:
        from sessionize.analytics.check_page import check_page

        target.write(found.as_dict, lambda: check_page(found))
        out.print_report_place(target.path)
    if found.failed:
        sys.stdout.flush()
        raise typer.Exit(1)


def print_report(found: "CheckReport") -> None:
    """The checks on a terminal: a table, and what is behind the ones that failed."""
    from sessionize.analytics.check_page import MARKS, verdict
    from sessionize.cli import output as out

    say = out.console()
    colours = {"passed": "green", "failed": "bold red", "skipped": "dim"}
    say.print(out.escaped(found.source))
    say.print(f"[dim]{out.escaped(found.rules)}[/]")
    counted = ", ".join(f"{count:,} {name}" for name, count in found.counts.items())
    say.print(f"[dim]{out.escaped(counted)}[/]\n")
    for each in found.checks:
        value = f"{each.measured} ({each.limit})" if each.measured else ""
        colour, said = colours[each.status], out.escaped(f"{each.group}: {each.name}")
        say.print(f"[{colour}]{out.escaped(MARKS[each.status])}[/]  {said}  [dim]{out.escaped(value)}[/]")
        if each.detail and each.status != "passed":
            out.print_item(each.detail, mark=" " * 11)
    say.print(f"\n[bold {'red' if found.failed else 'green'}]{out.escaped(verdict(found))}[/]")
