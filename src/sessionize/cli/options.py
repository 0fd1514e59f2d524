"""Options that several commands share, each defined once: its names and its help. What they mean: app/options.py."""

from pathlib import Path
from typing import Annotated

from sessionize.cli.declared import Declared, Group, argument, group, option

DIALECTS = (
    "clickstream, user-events, user_activity, clicks, ecommerce, segment, snowplow, ga4, cloudevents, matomo, "
    "combined, w3c"
)
# The commands that look at tables: what is left out is as the pipeline says.
InputHome = Annotated[
    Path | None,
    option(
        envvar="SESSIONIZE_HOME",
        help="Folder of the Iceberg tables among the input; default: ./sessionize-data/DATABASE.",
        rich_help_panel="Run",
    ),
]
HomeOrNone = Annotated[
    Path | None,
    option(
        envvar="SESSIONIZE_HOME",
        help="Folder for tables, catalog and state; default: that of --pipeline, or the only one.",
        rich_help_panel="Run",
    ),
]
DatabaseOrNone = Annotated[
    str | None,
    option(
        "--iceberg-database",
        help="Iceberg database; default: that of --pipeline, or the only one in the home.",
        rich_help_panel="Run",
    ),
]
PipelineOrNone = Annotated[
    str | None,
    option("--pipeline", help="Preset or file of the pipeline that wrote the tables; sets home, database and catalog."),
]
Json = Annotated[bool, option("--json", help="Print the result as JSON on stdout.", rich_help_panel="Run")]
# The questions: tune, diff, check.
Report = Annotated[
    Path | None,
    option("-o", "--output", help="Also write a report: .html, one page without other files, or .json."),
]
MaxFuture = Annotated[
    str,
    option(
        "--max-future",
        help='Reject events further in the future than this; "none" accepts any time.',
        rich_help_panel="Records",
    ),
]
Memory = Annotated[str, option("--memory", help="Memory for events before they spill to disk.", rich_help_panel="Run")]
RECORDS = group(
    dialect=option("--dialect", help=f"Input record format: {DIALECTS}.", rich_help_panel="Records"),
    user=option(
        "--user",
        help="Field with the user, for custom formats; use dots for nested fields; A,B: the first that is present and "
        "not empty; A+B: both together.",
        rich_help_panel="Records",
    ),
    time=option("--time", help="Field with the event time; DATE+TIME: two fields together.", rich_help_panel="Records"),
    time_format=option(
        "--time-format",
        help="auto, ms, s, us, ns, iso8601, or a pattern like '%d.%m.%Y %H:%M'; auto reads whole numbers as ms.",
        rich_help_panel="Records",
    ),
    time_zone=option(
        "--time-zone",
        help="IANA zone of times that name none, as Europe/Berlin; default: UTC.",
        rich_help_panel="Records",
    ),
    event_id=option(
        "--event-id",
        help="Field with the event id: equal user, time and id count once (see --duplicates). None: all count.",
        rich_help_panel="Records",
    ),
    event_type=option("--event-type", help="Field with the event type.", rich_help_panel="Records"),
    page=option("--page", help="Field with the page.", rich_help_panel="Records"),
    value=option("--value", help="Field with an amount; revenue sums it.", rich_help_panel="Records"),
    fields=option(
        "--field",
        metavar="NAME[:TYPE]=PATH",
        help="Further field, a column of the events; text, number, integer or boolean; repeatable.",
        rich_help_panel="Records",
    ),
    strict=option(
        "--strict",
        help="Reject records with an optional value of a wrong type; otherwise it becomes null.",
        rich_help_panel="Records",
    ),
)
FORMAT = group(
    format=option(
        "--format",
        help="auto (by content), ndjson, json, csv, parquet, avro, orc, combined, common, w3c or regex.",
        rich_help_panel="Format",
    ),
    pattern=option(
        "--pattern",
        help="Regular expression of a log line; its named groups are the columns.",
        rich_help_panel="Format",
    ),
    delimiter=option("--delimiter", help="Delimiter of CSV; default: found.", rich_help_panel="Format"),
    columns=option("--columns", help="Columns of CSV without a header, comma-separated.", rich_help_panel="Format"),
    encoding=option("--encoding", help="Encoding of text; default: UTF-8, or UTF-16.", rich_help_panel="Format"),
    decimal=option("--decimal", help='Decimal mark of amounts: "." or ",".', rich_help_panel="Format"),
    null_values=option(
        "--null-values",
        help="Words for a missing value in CSV and logs, comma-separated: NULL,nan.",
        rich_help_panel="Format",
    ),
    comment=option("--comment", help="Skip lines of CSV that begin with this character.", rich_help_panel="Format"),
    page_without_query=option(
        "--page-without-query", help="Leave the query out of the pages of a log.", rich_help_panel="Format"
    ),
)
# Each has two names, in every command that has it: that of the rule, and that of the first system we took over from.
GAP = option(
    "--gap",
    "--inactivity-timeout",
    help="A longer time without events ends the session: 30m, 45s; without a unit: minutes.",
    rich_help_panel="Rules",
)
MAX_DURATION = option(
    "--max-duration",
    "--max-session-duration",
    help='Longest duration of a session: 2h, 90m; without a unit: hours; "none": no limit. Also '
    "--max-session-duration.",
    rich_help_panel="Rules",
)
RULES = group(
    gap=GAP,
    gap_boundary=option(
        help="Exactly the gap: exclusive continues the session, inclusive ends it.", rich_help_panel="Rules"
    ),
    max_duration=MAX_DURATION,
    max_duration_mode=option(
        help="anchored: cut at multiples after the first event; rolling: after each session's start.",
        rich_help_panel="Rules",
    ),
    session_ids=option(
        help="Session ids: start: user_<start in ms>; sequential: user_session_1_0; running: user-1.",
        rich_help_panel="Rules",
    ),
    start_events=option(help="Event type that opens a session; repeatable.", rich_help_panel="Rules"),
    end_events=option(help="Event type that closes its session; repeatable.", rich_help_panel="Rules"),
    excluded_events=option("--excluded-events", help="Event type to ignore; repeatable.", rich_help_panel="Rules"),
    conversion_events=option(
        "--conversion-events",
        help="Event type that is a conversion, in place of the dialect's; repeatable.",
        rich_help_panel="Rules",
    ),
    definition=option(
        "--definition",
        help="Sessions as another product defines them: ga4, matomo, mixpanel, amplitude, snowplow, posthog, adobe; "
        "other rules override it.",
        rich_help_panel="Rules",
    ),
    split_on_change=option(
        "--split-on-change",
        metavar="FIELD",
        help='Another value of this field opens a session; missing values do not; repeatable; "none": no field.',
        rich_help_panel="Rules",
    ),
    split_ignore=option(
        "--split-ignore",
        metavar="VALUE",
        help="Value that does not count for --split-on-change; * stands for any text; repeatable.",
        rich_help_panel="Rules",
    ),
    day_start=option(
        "--day-start",
        metavar="ZONE",
        help="Midnight in this time zone opens a session, such as Europe/Berlin.",
        rich_help_panel="Rules",
    ),
    gap_by=option(
        "--gap-by",
        metavar="FIELD[:UNIT]",
        help="Field that decides about an event's gap: by --gap-of, or it is the gap, in ms, s, m, h or d.",
        rich_help_panel="Rules",
    ),
    gap_of=option(
        "--gap-of",
        metavar="VALUE=GAP",
        help="Gap of events with this value of --gap-by, such as tv=4h; repeatable.",
        rich_help_panel="Rules",
    ),
    max_events=option(
        "--max-events", metavar="COUNT", help='Most events of a session; "none": no limit.', rich_help_panel="Rules"
    ),
    min_events=option(
        "--min-events", metavar="COUNT", help="Do not write sessions with fewer events.", rich_help_panel="Rules"
    ),
    min_duration=option("--min-duration", help="Do not write shorter sessions.", rich_help_panel="Rules"),
    bounce=option(
        "--bounce",
        help="Condition of the column is_bounce: one_event, one_page, no_conversion, or a duration it is shorter than; "
        "repeatable, all must hold.",
        rich_help_panel="Rules",
    ),
    duplicates=option(
        "--duplicates",
        help="user_time_id: equal user, time and id count once; id: equal user and id, whatever the time.",
        rich_help_panel="Rules",
    ),
    duplicates_within=option(
        "--duplicates-within",
        help="How long after an event another one with its id is a duplicate, by --duplicates id.",
        rich_help_panel="Rules",
    ),
)


def _with_defaults(**shown: str) -> dict[str, Declared | Group]:
    """Options of RULES whose default is shown; what is not named stays None, as a definition may have another value."""
    parts: dict[str, Declared | Group] = {}
    for name, default in shown.items():
        part = RULES.parts[name]
        assert isinstance(part, Declared)
        parts[name] = option(*part.names, **{**part.settings, "show_default": default})
    return parts


AGAIN = option("--again", help="Load files once more that are in the tables already.", rich_help_panel="Run")
NEW_ONLY = option("--new-only", help="Skip files that are in the tables already.", rich_help_panel="Run")
# Of `batch` and `label`, which go by the defaults where no rule is named.
LABEL = group(
    inputs=argument(
        metavar="FILES",
        help="Files, folders, patterns, pipes, iceberg:DATABASE.TABLE, delta:FOLDER; -: stdin. JSON, CSV, Parquet, "
        "ORC, Avro, logs; text also compressed.",
    ),
    output=option(
        "-o", "--output", help="A .parquet, .csv or .ndjson file, - (NDJSON on stdout), iceberg:DATABASE.TABLE."
    ),
    records=RECORDS,
    input_format=FORMAT,
    max_future=option(
        help='Reject events further in the future than this; "none" accepts any time.', rich_help_panel="Records"
    ),
    rules=Group(
        {**RULES.parts, **_with_defaults(gap="30m", gap_boundary="exclusive", max_duration="2h", session_ids="start")}
    ),
    rejects=option(help="A file for rejected records.", rich_help_panel="Run"),
    memory=option(help="Memory for events before they spill to disk.", rich_help_panel="Run"),
    home=option(
        envvar="SESSIONIZE_HOME",
        help="Folder of Iceberg tables; default: ./sessionize-data/DATABASE.",
        rich_help_panel="Run",
    ),
    overwrite=option(
        "--overwrite", help="Replace an Iceberg table's rows instead of appending.", rich_help_panel="Run"
    ),
    again=AGAIN,
    new_only=NEW_ONLY,
)
BATCH = group(
    **LABEL.parts,
    session_columns=option(
        "--session-columns",
        help="Session columns to write, comma-separated; user means the user column.",
        rich_help_panel="Run",
    ),
)
# Of `reconcile` and `rejected retry`, which go by a pipeline.
Set = Annotated[list[str] | None, option("--set", metavar="KEY=VALUE", help="Override any key; repeatable.")]
HomeOverride = Annotated[Path | None, option(help="Folder for tables, catalog and state.", rich_help_panel="Run")]
