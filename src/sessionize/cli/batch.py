"""`batch`: files of events in, sessions into one file or table."""

import sys
import time
from typing import TYPE_CHECKING, Annotated, Literal

from sessionize.app.options import FileOptions
from sessionize.cli import options as opt
from sessionize.cli.declared import option
from sessionize.errors import ConfigError

if TYPE_CHECKING:
    from sessionize.app.files import FilePlan

SECONDS_LOOK_LIKE_MS_MAX = 7_776_000_000  # 90 days after 1970: seconds of this century, taken for milliseconds

DryRun = Annotated[bool, option("--dry-run", help="Print the plan and exit.", rich_help_panel="Run")]


def batch(
    options: Annotated[FileOptions, opt.BATCH],
    dry_run: DryRun = False,
    as_json: opt.Json = False,
) -> None:
    """Read files of events and write one row per session."""
    run_files("sessions", options, dry_run=dry_run, as_json=as_json)


def run_files(what: Literal["sessions", "labels"], options: FileOptions, *, dry_run: bool, as_json: bool) -> None:
    """Plan, and run or print it."""
    from sessionize.cli import output as out

    if as_json and options.output == "-" and not dry_run:
        raise ConfigError("stdout has room for one result", detail="-o - beside --json", hint="write to a file")
    started = time.perf_counter()
    plan = options.plan(what, now_ms=time.time_ns() // 1_000_000, warn=out.print_warning)
    if not dry_run:
        _run(plan, as_json=as_json, started=started)
    elif as_json:
        out.print_json(dict(plan.lines()))
    else:
        sys.stdout.writelines(f"{name}: {value}\n" for name, value in plan.lines())


def _run(plan: "FilePlan", *, as_json: bool, started: float) -> None:
    from sessionize.cli import output as out
    from sessionize.cli.progress import shown
    from sessionize.cli.signals import aborted_by_signals

    with (
        plan.open(out.print_warning) as run,
        aborted_by_signals() as abortable,
        shown(run.size_bytes, enabled=not as_json) as progress,
    ):
        accounting = run.run(abortable.watching(progress))
    seconds = time.perf_counter() - started
    if as_json:
        rules = plan.policy.describe()
        out.print_json({**accounting.as_dict(), "output": plan.where(), "rules": rules, "seconds": round(seconds, 3)})
    else:
        out.print_accounting(accounting, seconds, plan.where(), rules=plan.policy.describe())
        if accounting.rejected and plan.rejects is None:
            sys.stderr.write("--rejects FILE keeps the rejected records, each with its reason\n")
    repeats = plan.policy.repeats_ids
    out.warn_of_input(accounting, plan.dialect, plan.rules.conversion_events, plan.inputs, repeats_ids=repeats)
    if accounting.latest_ms is not None and 0 <= accounting.latest_ms < SECONDS_LOOK_LIKE_MS_MAX:
        sys.stderr.write(
            "warning: all event times are in early 1970. Whole numbers are read as milliseconds; if yours are"
            " seconds, use --time-format s\n"
        )
