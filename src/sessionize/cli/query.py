"""`query`: SQL over what is in the tables."""

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
    from sessionize.app.tables.warehouse import query_tables
    from sessionize.cli import output as out

    rows = query_tables(sql, pipeline, home, database)
    if not as_json:
        out.print_rows("", rows, limit=limit)
        return
    from sessionize.cli.terminal.json_rows import json_lines

    sys.stdout.writelines(f"{line}\n" for line in json_lines(rows))
