"""`pruning`: whether a filter reads few files, and whether the users are spread evenly."""

from typing import Annotated

import typer

from sessionize.cli import options as opt
from sessionize.session.names import USER_SESSIONS


def pruning(
    pipeline: opt.PipelineOrNone = None,
    home: opt.HomeOrNone = None,
    database: opt.DatabaseOrNone = None,
    table: Annotated[str, typer.Option("--iceberg-table", help="Iceberg table of the sessions.")] = USER_SESSIONS,
    as_json: opt.Json = False,
) -> None:
    """Show how many files a filter on date, bucket or both reads, and how evenly users are spread."""
    from dataclasses import asdict

    from sessionize.app.tables.maintain import check_pruning
    from sessionize.app.tables.warehouse import find_warehouse
    from sessionize.cli import output as out

    warehouse = find_warehouse(pipeline, home, database)
    report, spread = check_pruning(warehouse, table)
    if as_json:
        out.print_json({"filters": [asdict(row) for row in report], "buckets": asdict(spread)})
        return
    rows = [
        (r.filter, f"{r.files_planned:,} of {r.files_there:,}", f"{r.rows_planned:,} of {r.rows_there:,}")
        for r in report
    ]
    out.print_table(f"{warehouse.database}.{table}", ["filter", "files to read", "rows in them"], rows, right=(1, 2))
    out.print_table("users per bucket", list(asdict(spread)), [list(asdict(spread).values())])
