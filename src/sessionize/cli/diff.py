"""`diff`: which sessions and figures change between two policies, and why."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sessionize.app.format_options import DEFAULT_FORMAT, FormatOptions
from sessionize.app.options import DEFAULT_RECORDS, RecordOptions
from sessionize.cli import options as opt

if TYPE_CHECKING:
    from sessionize.analytics.policy_diff import PolicyDiff

_POLICY = (
    "default, ga4 or another definition, a pipeline, or keys of its rules: gap=45m,max_duration=none; keys may follow"
)
_FILES = "Files, folders, patterns, pipes, as for batch."


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help=f"The one policy: {_POLICY}.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The other one.")],
    inputs: Annotated[list[str], typer.Argument(metavar="FILES", help=_FILES)],
    limit: Annotated[int, typer.Option(min=0, help="Examples of each kind of change.")] = 3,
    records: Annotated[RecordOptions, opt.RECORDS] = DEFAULT_RECORDS,
    input_format: Annotated[FormatOptions, opt.FORMAT] = DEFAULT_FORMAT,
    max_future: opt.MaxFuture = "24h",
    report: opt.Report = None,
    memory: opt.Memory = "2GB",
    home: opt.InputHome = None,
    as_json: opt.Json = False,
) -> None:
    """Compare two policies over the same events: which sessions differ, which figures, and the rule behind each.

    Every count is exact. Sessions are the same where they have the same events. Examples show a user's sessions on
    both sides and the boundaries that one side has alone.
    """
    from sessionize.app.questions.diff import open_diff
    from sessionize.app.questions.report_file import ReportFile
    from sessionize.app.questions.user_parts import EventFiles
    from sessionize.cli import output as out
    from sessionize.cli.progress import shown

    files = EventFiles(
        inputs=inputs, records=records, input_format=input_format, max_future=max_future, memory=memory, home=home
    )
    run = open_diff(files, a, b, keep=limit, now_ms=time.time_ns() // 1_000_000)
    target = None if report is None else ReportFile.at(report, inputs, run.source.files)
    with shown(run.size_bytes, enabled=not as_json) as progress:
        found, accounting = run.run(progress)
    if as_json:
        out.print_json({**found.as_dict(), "records": accounting.consumed, "rejected": accounting.rejected})
    else:
        print_diff(found)
    out.print_rejected(accounting, files.dialect())
    if target is not None:
        write_report(target.path, found, inputs)


def write_report(path: Path, found: "PolicyDiff", inputs: list[str]) -> None:
    """The report, and where it is."""
    from sessionize.analytics.diff_page import diff_page
    from sessionize.app.questions.report_file import ReportFile
    from sessionize.cli import output as out

    ReportFile(path).write(found.as_dict, lambda: diff_page(found, ", ".join(inputs)))
    out.print_report_place(path)


def print_diff(found: "PolicyDiff") -> None:
    """The answer on a terminal."""
    from sessionize.analytics import diff_page as rows
    from sessionize.cli import output as out

    say = out.console()
    for letter, side in (("A", found.a), ("B", found.b)):
        say.print(f"[bold]{letter}[/]  {out.escaped(side.name)}: {out.escaped(side.policy.describe())}")
    say.print(f"\n[bold {'green' if found.is_empty else 'yellow'}]{out.escaped(rows.verdict(found))}[/]\n")
    out.print_table("", ("figure", "A", "B", "B − A"), rows.figure_rows(found), right=(1, 2, 3))
    head = ("kind", "changes", "of A", "of B", "meaning")
    out.print_table("sessions", head, rows.change_rows(found), right=(1, 2, 3))
    if found.boundaries:
        say.print()
        alone = rows.boundary_rows(found)
        out.print_table("boundaries that one side has alone", ("", "rule", "boundaries"), alone, right=(2,))
    for kind, user, a, b, why in rows.example_rows(found, found.keep):
        say.print(f"\n[bold]{out.escaped(kind)}[/] {out.escaped(user)}")
        for name, text in (("A", a), ("B", b), ("why", why)):
            for line in text.split("\n") if text else ():
                out.print_item(f"{name}  {line}")
