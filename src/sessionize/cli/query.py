"""`query` and `pruning`: looking at what is in the tables."""

import sys
from typing import Annotated

import typer

from sessionize.cli import options as opt


def query(
    sql: Annotated[
        str,
        typer.Argument(
            metavar="SQL", help="A SELECT over user_sessions, events, late_events, rejected_events or loads."
        ),
    ],
    pipeline: opt.PipelineOrNone = None,
    home: opt.HomeOrNone = None,
    database: opt.DatabaseOrNone = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows to print; --json prints all.")] = 200,
    as_json: opt.Json = False,
) -> None:
    """Run SQL over the tables; --json prints one object per row."""
    from sessionize.app.tables.query import run_query
    from sessionize.cli import output as out

    place = opt.place_of(pipeline, home, database)
    rows = run_query(place.home, sql, database=place.database, catalog=place.catalog)
    if not as_json:
        out.print_rows("", rows, limit=limit)
        return
    from sessionize.cli.json_rows import json_lines

    sys.stdout.writelines(f"{line}\n" for line in json_lines(rows))


def pruning(
    pipeline: opt.PipelineOrNone = None,
    home: opt.HomeOrNone = None,
    database: opt.DatabaseOrNone = None,
    table: Annotated[str, typer.Option("--iceberg-table", help="Iceberg table of the sessions.")] = "user_sessions",
    as_json: opt.Json = False,
) -> None:
    """Show how many files a filter on date, bucket or both reads, and how evenly users are spread."""
    from dataclasses import asdict

    from sessionize.app.tables.pruning import check_pruning
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
