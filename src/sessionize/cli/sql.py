"""`sql`: the rules as one query over a table of events in a database."""

import sys
from pathlib import Path
from typing import Annotated

from sessionize.app.options import DEFAULT_RULES, RuleOptions
from sessionize.app.sql import DEFAULT_TABLE, SqlOptions, TableOptions
from sessionize.cli import options as opt
from sessionize.cli.declared import argument, group, option

_TABLE = group(
    table=option("--table", help="The table or view of events: events, analytics.events.", rich_help_panel="Table"),
    user=option("--user", help="Its column with the user.", rich_help_panel="Table"),
    time=option("--time", help="Its column with the event time.", rich_help_panel="Table"),
    time_format=option(
        "--time-format",
        help="timestamp (the default), or whole numbers: ms, s, us, ns.",
        rich_help_panel="Table",
    ),
    event_id=option("--event-id", help='Its column with the event id, or "" for none.', rich_help_panel="Table"),
    event_type=option("--event-type", help='Its column with the event type, or "".', rich_help_panel="Table"),
    page=option("--page", help='Its column with the page, or "".', rich_help_panel="Table"),
    loaded_at=option(
        "--loaded-at", help="Its column with the timestamp at which a row was loaded, for --dbt.", rich_help_panel="dbt"
    ),
    value=option("--value", help='Its column with an amount, or ""; revenue sums it.', rich_help_panel="Table"),
)


def sql(
    dialect: Annotated[str, option("--dialect", help="SQL of duckdb, postgres or clickhouse; see also --untested.")],
    pipeline: Annotated[
        str | None,
        argument(
            metavar="PIPELINE", help="Preset or file whose rules and mapping to use; default: those of the options."
        ),
    ] = None,
    table: Annotated[TableOptions, _TABLE] = DEFAULT_TABLE,
    rules: Annotated[RuleOptions, opt.RULES] = DEFAULT_RULES,
    columns: Annotated[
        str | None,
        option("--session-columns", help="Session columns, comma-separated; default: all.", rich_help_panel="Query"),
    ] = None,
    labels: Annotated[
        bool,
        option("--labels", help="Every row of the table with its session id.", rich_help_panel="Query"),
    ] = False,
    untested: Annotated[
        bool,
        option(
            "--untested",
            help="Also bigquery, redshift, snowflake, spark and trino, which no test runs.",
            rich_help_panel="Query",
        ),
    ] = False,
    dbt: Annotated[
        Path | None,
        option("--dbt", metavar="DIR", help="Write an incremental model into this dbt project.", rich_help_panel="dbt"),
    ] = None,
    lookback: Annotated[
        str,
        option(help="How much later than --loaded-at says a row may be committed.", rich_help_panel="dbt"),
    ] = "1h",
    output: Annotated[
        Path | None, option("-o", "--output", help="A file for the query; default: stdout.", rich_help_panel="Query")
    ] = None,
    settings: opt.Set = None,
) -> None:
    """Print the rules as one SQL query over your table of events; its rows equal those of `batch`."""
    from sessionize.app.output_paths import check_local, write_text
    from sessionize.cli import output as out

    asked = SqlOptions(
        dialect=dialect,
        untested=untested,
        pipeline=pipeline,
        table=table,
        rules=rules,
        columns=columns,
        labels=labels,
        settings=settings,
        lookback=lookback,
    )
    for name, place in (("--dbt", dbt), ("-o", output)):
        if place is not None:
            check_local(place, name=name)
    if dbt is not None:
        for path in asked.dbt_project(dbt, warn=out.print_warning):
            sys.stdout.write(f"{path}\n")
        return
    query = asked.query(warn=out.print_warning)
    if output is None:
        sys.stdout.write(query)
    else:
        write_text(output, query, failed="the query cannot be written")
