"""`query`, `explain` and `pruning`: looking at what is in the tables, and why it is so."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sessionize.cli import options as opt

if TYPE_CHECKING:
    from sessionize.analytics.explain import Explanation


def query(
    sql: Annotated[str, typer.Argument(help="A SELECT over user_sessions, events, late_events, rejected_events.")],
    pipeline: opt.PipelineOrNone = None,
    home: opt.HomeOrNone = None,
    database: opt.DatabaseOrNone = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows to print; --json prints all.")] = 200,
    as_json: opt.Json = False,
) -> None:
    """SQL over the project's tables; --json prints one object per row."""
    from sessionize.app.queries import run_query
    from sessionize.cli import output as out

    place = opt.place_of(pipeline, home, database)
    rows = run_query(place.home, sql, database=place.database, catalog=place.catalog)
    if not as_json:
        out.print_rows("", rows, limit=limit)
        return
    import pyarrow as pa

    maps = [f.name for f in rows.schema if pa.types.is_map(f.type)]
    for batch in rows.to_batches():
        for row in batch.to_pylist():
            out.print_json({k: dict(v) if k in maps and v is not None else v for k, v in row.items()})


def explain(
    who: Annotated[str, typer.Argument(metavar="USER", help="The user, exactly as in the events.")],
    inputs: Annotated[
        list[str] | None, typer.Option("--input", help="Read these files, not the tables; repeatable.")
    ] = None,
    pipeline: Annotated[
        str | None, typer.Option(help="The preset or file that made the sessions: its rules, records and tables.")
    ] = None,
    dialect: opt.DialectName = None,
    user: opt.UserField = None,
    time_: opt.TimeField = None,
    time_format: opt.TimeFormat = "auto",
    event_id: opt.IdField = None,
    event_type: opt.TypeField = None,
    page: opt.PageField = None,
    value: opt.ValueField = None,
    gap: opt.Gap = "30m",
    gap_boundary: opt.GapBoundary = "exclusive",
    max_duration: opt.MaxDuration = "2h",
    max_duration_mode: opt.MaxDurationMode = None,
    session_ids: opt.SessionIds = "start",
    start_events: opt.StartEvents = None,
    end_events: opt.EndEvents = None,
    exclude_events: opt.ExcludeEvents = None,
    home: opt.HomeOrNone = None,
    database: opt.DatabaseOrNone = None,
    limit: Annotated[int, typer.Option(min=1, help="Events to print; --json prints all.")] = 60,
    as_json: opt.Json = False,
) -> None:
    """A user's events, the silences between them, and the rule behind each boundary.

    By the rules of --pipeline, or else by those of the options here; the first line of the answer says which.
    """
    from sessionize.app.explaining import explain_from_files, explain_from_tables
    from sessionize.cli import output as out
    from sessionize.session.rules import Rules

    policy = opt.policy_of(gap, gap_boundary, max_duration, max_duration_mode, session_ids)
    rules = Rules(
        start_events=frozenset(start_events or ()),
        end_events=frozenset(end_events or ()),
        excluded_events=frozenset(exclude_events or ()),
    )
    records = None
    if pipeline is not None:
        from sessionize.app.config import load_pipeline

        config = load_pipeline(pipeline)
        policy, rules, records = config.policy(), config.event_rules(), config.dialect()
    if inputs:
        fields = {"event_id": event_id, "event_type": event_type, "page": page, "value": value}
        records = records or opt.dialect_of(dialect, user, time_, time_format, **fields)
        found = explain_from_files(inputs, who, records, policy, rules)
    else:
        place = opt.place_of(pipeline, home, database)
        found = explain_from_tables(place.home, who, policy, rules, database=place.database, catalog=place.catalog)
    if as_json:
        from dataclasses import asdict

        out.print_json(asdict(found))
    else:
        print_explanation(found, limit)


def pruning(
    pipeline: opt.PipelineOrNone = None,
    home: opt.HomeOrNone = None,
    database: opt.DatabaseOrNone = None,
    table: Annotated[str, typer.Option("--iceberg-table", help="Iceberg table of the sessions.")] = "user_sessions",
    as_json: opt.Json = False,
) -> None:
    """How many files a filter on date, on bucket and on both has to read, and how evenly users are spread."""
    from dataclasses import asdict

    from sessionize.app.pruning import check_pruning
    from sessionize.cli import output as out

    place = opt.place_of(pipeline, home, database)
    report, spread = check_pruning(place.home, database=place.database, table=table, catalog=place.catalog)
    if as_json:
        out.print_json({"filters": [asdict(row) for row in report], "buckets": asdict(spread)})
        return
    rows = [
        (r.filter, f"{r.files_planned:,} of {r.files_there:,}", f"{r.rows_planned:,} of {r.rows_there:,}")
        for r in report
    ]
    out.print_table(f"{place.database}.{table}", ["filter", "files to read", "rows in them"], rows, right=(1, 2))
    out.print_table("users per bucket", list(asdict(spread)), [list(asdict(spread).values())])


def print_explanation(found: "Explanation", limit: int) -> None:
    """An explanation for people: each session, why it began and ended, and its events with the silence before each."""
    from rich.table import Table
    from rich.text import Text

    from sessionize.analytics.explain import instant
    from sessionize.cli import output as out
    from sessionize.session.durations import format_duration

    say = out.console()
    say.print(
        f"[bold]{out.escaped(found.user)}[/]: {len(found.events):,} events, {len(found.sessions):,} sessions"
        f" ({found.policy.describe()})"
    )
    sessions = {session["session_id"]: session for session in found.sessions}
    table = Table.grid()
    for event in found.events[:limit]:
        if event.boundary is not None:
            say.print(table)
            _print_heading(sessions[event.session_id], event.boundary)
            table = Table.grid(padding=(0, 2))
            table.add_column(justify="right", style="dim", min_width=14)
        silence = "" if event.silence_ms is None else f"+{format_duration(event.silence_ms)}"
        cells = (silence, instant(event.time_ms), event.event_type, event.page, event.note)
        table.add_row(*(Text(out.shown(cell)) for cell in cells))
    say.print(table)
    if len(found.events) > limit:
        out.console(stderr=True).print(f"{limit} of {len(found.events):,} events shown; --json prints them all")


def _print_heading(session: dict[str, Any], boundary: str) -> None:
    from sessionize.cli import output as out
    from sessionize.session.durations import format_duration

    say = out.console()
    lasts = format_duration(session["session_end_time_ms"] - session["session_start_time_ms"])
    name, events = out.escaped(session["session_id"]), session["event_count"]
    say.print(f"[bold cyan]▶ {name}[/]  {events:,} events, {lasts}", soft_wrap=True)
    say.print(f"  began  [green]{out.escaped(boundary)}[/]", soft_wrap=True)
    say.print(f"  ended  [green]{out.escaped(session['end_reason'])}[/]", soft_wrap=True)
