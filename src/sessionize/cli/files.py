"""`batch` and `label`: files in, one file or table out."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from sessionize.cli import options as opt
from sessionize.cli.declared import argument, option

if TYPE_CHECKING:
    from sessionize.app.config.values import KnownFiles
    from sessionize.app.files import FilePlan
    from sessionize.formats.dialects import Dialect

SECONDS_LOOK_LIKE_MS_MAX = 7_776_000_000  # 90 days after 1970: seconds of this century, taken for milliseconds

Inputs = Annotated[
    list[str],
    argument(
        metavar="FILES",
        help="Files, folders, patterns, pipes: .ndjson .jsonl .csv .tsv .parquet, text also .gz; -: stdin.",
    ),
]
Output = Annotated[str, option("-o", "--output", help="A .parquet, .csv or .ndjson file, or iceberg:DATABASE.TABLE.")]
Columns = Annotated[
    str | None,
    option(help="Session columns to write, comma-separated; user means the user column.",
                 rich_help_panel="Run"),
]  # fmt: skip
Memory = Annotated[str, option(help="Memory for events before they spill to disk.", rich_help_panel="Run")]
Rejects = Annotated[Path | None, option(help="A file for rejected records.", rich_help_panel="Run")]
MaxFuture = Annotated[
    str,
    option(help='Reject events further in the future than this; "none" accepts any time.', rich_help_panel="Records"),
]
Overwrite = Annotated[
    bool, option("--overwrite", help="Replace an Iceberg table's rows instead of appending.", rich_help_panel="Run")
]
DryRun = Annotated[bool, option("--dry-run", help="Print the plan and exit.", rich_help_panel="Run")]


def batch(
    inputs: Inputs,
    output: Output,
    dialect: opt.DialectName = None,
    user: opt.UserField = None,
    time_: opt.TimeField = None,
    time_format: opt.TimeFormat = "auto",
    event_id: opt.IdField = None,
    event_type: opt.TypeField = None,
    page: opt.PageField = None,
    value: opt.ValueField = None,
    max_future: MaxFuture = "24h",
    gap: opt.Gap = "30m",
    gap_boundary: opt.GapBoundary = "exclusive",
    max_duration: opt.MaxDuration = "2h",
    max_duration_mode: opt.MaxDurationMode = None,
    session_ids: opt.SessionIds = "start",
    start_events: opt.StartEvents = None,
    end_events: opt.EndEvents = None,
    exclude_events: opt.ExcludeEvents = None,
    columns: Columns = None,
    rejects: Rejects = None,
    memory: Memory = "2GB",
    home: opt.Home = None,
    overwrite: Overwrite = False,
    again: opt.Again = False,
    new_only: opt.NewOnly = False,
    dry_run: DryRun = False,
    as_json: opt.Json = False,
) -> None:
    """Read files of events and write one row per session."""
    fields = {"event_id": event_id, "event_type": event_type, "page": page, "value": value}
    _run(
        "sessions",
        inputs,
        output,
        opt.dialect_of(dialect, user, time_, time_format, **fields),
        (gap, gap_boundary, max_duration, max_duration_mode, session_ids),
        (start_events, end_events, exclude_events),
        columns=None if columns is None else tuple(name.strip() for name in columns.split(",") if name.strip()),
        places=(rejects, home),
        limits=(memory, max_future),
        overwrite=overwrite,
        known_files=opt.known_files_of(again, new_only),
        dry_run=dry_run,
        as_json=as_json,
    )


def label(
    inputs: Inputs,
    output: Output,
    dialect: opt.DialectName = None,
    user: opt.UserField = None,
    time_: opt.TimeField = None,
    time_format: opt.TimeFormat = "auto",
    event_id: opt.IdField = None,
    event_type: opt.TypeField = None,
    page: opt.PageField = None,
    value: opt.ValueField = None,
    max_future: MaxFuture = "24h",
    gap: opt.Gap = "30m",
    gap_boundary: opt.GapBoundary = "exclusive",
    max_duration: opt.MaxDuration = "2h",
    max_duration_mode: opt.MaxDurationMode = None,
    session_ids: opt.SessionIds = "start",
    start_events: opt.StartEvents = None,
    end_events: opt.EndEvents = None,
    exclude_events: opt.ExcludeEvents = None,
    rejects: Rejects = None,
    memory: Memory = "2GB",
    home: opt.Home = None,
    overwrite: Overwrite = False,
    again: opt.Again = False,
    new_only: opt.NewOnly = False,
    dry_run: DryRun = False,
    as_json: opt.Json = False,
) -> None:
    """Read files of events and write one row per event, with its session id.

    A row has the decoded event (user, event_time_ms, event_id, event_type, page, value: those the records have), its
    other fields as columns, and nested values as JSON in `properties`.
    """
    fields = {"event_id": event_id, "event_type": event_type, "page": page, "value": value}
    _run(
        "labels",
        inputs,
        output,
        opt.dialect_of(dialect, user, time_, time_format, **fields),
        (gap, gap_boundary, max_duration, max_duration_mode, session_ids),
        (start_events, end_events, exclude_events),
        columns=None,
        places=(rejects, home),
        limits=(memory, max_future),
        overwrite=overwrite,
        known_files=opt.known_files_of(again, new_only),
        dry_run=dry_run,
        as_json=as_json,
    )


def _run(
    what: Literal["sessions", "labels"],
    inputs: list[str],
    output: str,
    dialect: "Dialect",
    policy: tuple[str, str, str, str | None, str],
    events: tuple[list[str] | None, list[str] | None, list[str] | None],
    *,
    columns: tuple[str, ...] | None,
    places: tuple[Path | None, Path | None],
    limits: tuple[str, str],
    overwrite: bool,
    known_files: "KnownFiles | None",
    dry_run: bool,
    as_json: bool,
) -> None:
    from sessionize.app.config.values import parse_size_bytes
    from sessionize.app.files import FilePlan
    from sessionize.session.durations import parse_duration_ms
    from sessionize.session.rules import Rules

    started = time.perf_counter()
    memory, max_future = limits
    starts, ends, excluded = (frozenset(types or ()) for types in events)
    plan = FilePlan(
        what=what,
        inputs=tuple(inputs),
        output=output,
        dialect=dialect,
        policy=opt.policy_of(*policy),
        rules=Rules(
            start_events=starts,
            end_events=ends,
            excluded_events=excluded,
            conversion_events=frozenset(dialect.conversion_events),
        ),
        home=places[1],
        columns=columns,
        rejects=places[0],
        memory_bytes_max=parse_size_bytes(memory),
        max_future_ms=None
        if max_future.strip().lower() == "none"
        else parse_duration_ms(max_future, name="--max-future"),
        now_ms=time.time_ns() // 1_000_000,
        overwrite=overwrite,
        known_files=known_files or "refuse",
    )
    if dry_run:
        from sessionize.cli.output import print_json

        if as_json:
            print_json(dict(plan.lines()))
        else:
            sys.stdout.writelines(f"{name}: {value}\n" for name, value in plan.lines())
        return
    _run_plan(plan, as_json=as_json, started=started)


def _run_plan(plan: "FilePlan", *, as_json: bool, started: float) -> None:
    from sessionize.cli import output as out
    from sessionize.cli.progress import shown
    from sessionize.cli.signals import aborted_by_signals

    run = plan.open(out.print_warning)
    with (
        run.outputs.aborted_on_error(),
        aborted_by_signals() as abortable,
        shown(run.source.size_bytes, enabled=not as_json) as progress,
    ):
        accounting = run.run(abortable.watching(progress))
    seconds = time.perf_counter() - started
    if as_json:
        rules = plan.policy.describe()
        out.print_json({**accounting.as_dict(), "output": plan.where(), "rules": rules, "seconds": round(seconds, 3)})
    else:
        out.print_accounting(accounting, seconds, plan.where(), rules=plan.policy.describe())
        if accounting.rejected and run.outputs.rejected is None:
            sys.stderr.write("--rejects FILE keeps the rejected records, each with its reason\n")
    out.warn_of_absent_fields(accounting, plan.dialect)
    if accounting.latest_ms is not None and 0 <= accounting.latest_ms < SECONDS_LOOK_LIKE_MS_MAX:
        sys.stderr.write(
            "warning: all event times are in early 1970. Whole numbers are read as milliseconds; if yours are"
            " seconds, use --time-format s\n"
        )
