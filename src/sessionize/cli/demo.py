"""`demo`: the main path once, on sample data, in under a minute: events → sessions → Iceberg → query → explain."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sessionize.app.produce import GeneratedTotals
    from sessionize.engine.accounting import Accounting

PIPELINE = "user_sessionization_pipeline"
QUERIES = {
    "sessions per day, and how many booked": """
SELECT session_date, count(*) AS sessions, round(avg(session_duration_seconds)) AS mean_seconds,
       round(avg(event_count), 1) AS mean_events, round(100 * avg(has_conversion::INT), 1) AS "booked %"
FROM user_sessions GROUP BY 1 ORDER BY 1""",
    "why sessions ended": """
SELECT end_reason, count(*) AS sessions, round(max(session_duration_seconds) / 60, 1) AS longest_minutes
FROM user_sessions GROUP BY 1 ORDER BY 2 DESC""",
}


def demo(
    events: Annotated[int, typer.Option(min=1_000, help="Number of events to generate.")] = 1_000_000,
    stream: Annotated[bool, typer.Option("--stream", help="Show a stream instead: files arrive in a folder.")] = False,
    home: Annotated[
        Path | None,
        typer.Option(help="Folder for the demo; default: sessionize-demo, or sessionize-demo-stream."),
    ] = None,
) -> None:
    """Turn a day of sample clickstream, with late and malformed records, into sessions in an Iceberg table."""
    from sessionize.app.output_paths import check_local

    home = home or Path("sessionize-demo-stream" if stream else "sessionize-demo")
    check_local(home, name="--home")
    if stream:
        from sessionize.cli.demo_stream import demo_stream

        demo_stream(home)
    else:
        _demo(events, home)


def _demo(events: int, home: Path) -> None:
    from sessionize.app.tables import query  # noqa: F401 - what is not installed is said before a million events are made
    from sessionize.app.tables.warehouse import Warehouse
    from sessionize.cli import output as out
    from sessionize.session.policy import Policy

    say = out.console(stderr=True)
    file = home / "clickstream.ndjson"
    home.mkdir(parents=True, exist_ok=True)
    say.rule("[bold]1  a day of clickstream", align="left")
    made = _generate(events, file)
    say.print(
        f"{file}: {made.size_bytes / 1e6:,.0f} MB, {made.users:,} users, {made.events:,} events,"
        f" of which {made.late:,} late; {made.duplicates:,} duplicates, {made.broken:,} malformed records"
    )
    say.rule("[bold]2  events → sessions → Iceberg", align="left")
    accounting, seconds = _run(home, file)
    out.print_accounting(accounting, seconds, f"sessions.user_sessions in {home}", rules=Policy().describe())
    _check(made, accounting)
    say.rule("[bold]3  the sessions", align="left")
    out.print_rows("the largest sessions", Warehouse(home).largest_sessions())
    say.rule("[bold]4  queries", align="left")
    for title, sql in QUERIES.items():
        _query(home, title, sql)
    say.rule("[bold]5  why a session began and ended", align="left")
    _explain(home)
    say.rule("[bold]next steps", align="left")
    from sessionize.cli.command_name import command_name

    command = command_name()
    for words in (
        f'query --home {home} "FROM user_sessions LIMIT 3"',
        f"explain user-17 --home {home}",
        f"pruning --home {home}",
        "batch your_events.csv --user user_id --time timestamp -o sessions.parquet",
    ):
        say.print(f"{command} {words}", style="cyan", soft_wrap=True)


def _generate(events: int, file: Path) -> "GeneratedTotals":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from sessionize.app.produce import produce, settings_of
    from sessionize.cli.output import console

    settings = settings_of(
        start_ms=None, profile="clickstream", users=max(100, events // 50), events=events, seed=7, skew=0.8,
        late_fraction=0.005, late_by_ms=20 * 60_000, out_of_order_ms=60_000, duplicate_fraction=0.003,
        broken_fraction=0.001,
    )  # fmt: skip
    err = console(stderr=True)
    bars = (TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn())
    with Progress(*bars, console=err, disable=not err.is_terminal) as display:
        task = display.add_task("generate", total=events)
        return produce(settings, file, progress=lambda done: display.update(task, completed=done))


def _run(home: Path, file: Path) -> "tuple[Accounting, float]":
    from sessionize.app.config.pipeline import load_pipeline
    from sessionize.app.runs import plan
    from sessionize.cli.progress import shown

    overrides: dict[str, object] = {
        "input.kind": "files",
        "input.paths": [str(file)],
        "output.mode": "overwrite",
        "run.home": str(home),
        "run.once": True,
    }
    with plan(load_pipeline(PIPELINE, overrides=overrides)).open() as opened:
        started = time.perf_counter()
        with shown(opened.size_bytes) as progress:
            accounting = opened.run(progress)
    return accounting, time.perf_counter() - started


def _check(made: "GeneratedTotals", accounting: "Accounting") -> None:
    """The accounting must add up and match what was generated: nothing lost, nothing counted twice."""
    from sessionize.cli.output import console
    from sessionize.errors import SessionizeError

    problems = [
        f"{what}: {there:,} generated, {found:,} counted"
        for what, there, found in (
            ("records", made.records, accounting.consumed),
            ("malformed", made.broken, accounting.rejected),
        )
        if there != found
    ]
    if problems or not accounting.balanced:
        raise SessionizeError(
            "the record accounting of the demo does not add up", detail="; ".join(problems) or str(accounting.as_dict())
        )
    console(stderr=True).print(
        "every record is accounted for: read = in sessions + late + duplicate + rejected", style="green"
    )


def _query(home: Path, title: str, sql: str) -> None:
    from sessionize.app.tables.warehouse import Warehouse
    from sessionize.cli.output import print_rows

    print_rows(title, Warehouse(home).query(sql))


def _explain(home: Path) -> None:
    """The user with a session cut by the maximum duration and not too many events: the most there is to see."""
    from sessionize.app.tables.explain import explain_from_tables
    from sessionize.app.tables.warehouse import Warehouse
    from sessionize.cli.explain import print_events_of, print_sessions_of
    from sessionize.session.policy import Policy
    from sessionize.session.rules import Rules

    sql = """
SELECT uuid FROM user_sessions GROUP BY uuid
HAVING sum(event_count) <= 40 ORDER BY bool_or(end_reason = 'max_duration') DESC, count(*) DESC, uuid LIMIT 1"""
    found = Warehouse(home).query(sql)
    if not found.num_rows:
        return
    explained = explain_from_tables(Warehouse(home), found["uuid"][0].as_py(), Policy(), Rules())
    print_sessions_of(explained)
    cut = next((each for each in explained.sessions if each.ended.startswith("max_duration")), explained.sessions[0])
    print_events_of(explained, cut, explained.sessions.index(cut) + 1, limit=24)
