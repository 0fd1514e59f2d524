"""Options that several commands share, each defined once: its name, its help, and how its text is understood."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from sessionize.cli.declared import option
from sessionize.errors import ConfigError

if TYPE_CHECKING:
    from sessionize.app.config.values import KnownFiles
    from sessionize.formats.dialects import Dialect
    from sessionize.session.policy import Policy

DIALECTS = "clickstream, user-events, user_activity, clicks, ecommerce"
# Of the commands that write files, and tables when told so.
Home = Annotated[
    Path | None,
    option(
        envvar="SESSIONIZE_HOME",
        help="Folder for an Iceberg table; default: ./sessionize-data/DATABASE.",
        rich_help_panel="Run",
    ),
]
# The commands that look at tables: what is left out is as the pipeline says.
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
DialectName = Annotated[
    str | None, option("--dialect", help=f"Input record format: {DIALECTS}.", rich_help_panel="Records")
]
UserField = Annotated[
    str | None,
    option("--user", help="Field with the user, for custom formats; use dots for nested fields.",
                 rich_help_panel="Records"),
]  # fmt: skip
TimeField = Annotated[str | None, option("--time", help="Field with the event time.", rich_help_panel="Records")]
TimeFormat = Annotated[
    str,
    option("--time-format", help="auto, ms, s, us, ns or iso8601; auto reads whole numbers as ms.",
                 rich_help_panel="Records"),
]  # fmt: skip
IdField = Annotated[
    str | None,
    option("--event-id", help="Field with the event id; without it there are no duplicates.",
                 rich_help_panel="Records"),
]  # fmt: skip
TypeField = Annotated[str | None, option("--event-type", help="Field with the event type.", rich_help_panel="Records")]
PageField = Annotated[str | None, option("--page", help="Field with the page.", rich_help_panel="Records")]
ValueField = Annotated[
    str | None, option("--value", help="Field with an amount; revenue sums it.", rich_help_panel="Records")
]
# Each has two names, in every command that has it: that of the rule, and that of the first system we took over from.
GAP_NAMES = ("--gap", "--inactivity-timeout")
MAX_NAMES = ("--max-duration", "--max-session-duration")
_GAP = option(
    *GAP_NAMES,
    help="A longer time without events ends the session: 30m, 45s; without a unit: minutes.",
    rich_help_panel="Rules",
)
Gap = Annotated[str, _GAP]
GapOrNone = Annotated[str | None, _GAP]  # of run and explain: as the pipeline or the tables say when left out
_GAPBOUNDARY = option(
    help="Exactly the gap: exclusive continues the session, inclusive ends it.", rich_help_panel="Rules"
)
GapBoundary = Annotated[str, _GAPBOUNDARY]
GapBoundaryOrNone = Annotated[str | None, _GAPBOUNDARY]  # of explain: those of the tables when left out
_MAXDURATION = option(
    *MAX_NAMES,
    help='Longest duration of a session: 2h, 90m; without a unit: hours; "none": no limit. Also '
    "--max-session-duration.",
    rich_help_panel="Rules",
)
MaxDuration = Annotated[str, _MAXDURATION]
MaxDurationOrNone = Annotated[str | None, _MAXDURATION]  # as GapOrNone
MaxDurationMode = Annotated[
    str | None,
    option(help="anchored: cut at multiples after the first event; rolling: after each session's start.",
                 rich_help_panel="Rules"),
]  # fmt: skip
_SESSIONIDS = option(
    help="Session ids: start: user_<start in ms>; sequential: user_session_1_0; running: user-1.",
    rich_help_panel="Rules",
)
SessionIds = Annotated[str, _SESSIONIDS]
SessionIdsOrNone = Annotated[str | None, _SESSIONIDS]  # of explain: those of the tables when left out
StartEvents = Annotated[
    list[str] | None, option(help="Event type that opens a session; repeatable.", rich_help_panel="Rules")
]
EndEvents = Annotated[
    list[str] | None, option(help="Event type that closes its session; repeatable.", rich_help_panel="Rules")
]
ExcludeEvents = Annotated[
    list[str] | None,
    option("--excluded-events", help="Event type to ignore; repeatable.", rich_help_panel="Rules"),
]

Again = Annotated[
    bool, option("--again", help="Load files once more that are in the tables already.", rich_help_panel="Run")
]
NewOnly = Annotated[
    bool, option("--new-only", help="Skip files that are in the tables already.", rich_help_panel="Run")
]


def known_files_of(again: bool, new_only: bool) -> "KnownFiles | None":
    """What these options say of files that are in the tables already; None for nothing. Errors: ConfigError."""
    if again and new_only:
        raise ConfigError("--again and --new-only exclude each other", hint="remove one of them")
    return "again" if again else "skip" if new_only else None


def gap_of(text: str) -> str:
    """The gap with its unit; a number alone is minutes. Errors: ConfigError."""
    from sessionize.app.config.values import minutes_or_duration

    return minutes_or_duration(text, name=GAP_NAMES[0])


def max_of(text: str) -> str:
    """The maximum with its unit, or "none"; a number alone is hours, and a warning above a day. Errors: ConfigError."""
    from sessionize.app.config.values import hours_or_duration
    from sessionize.cli.output import print_warning

    limit, warning = hours_or_duration(text, name=MAX_NAMES[0])
    if warning is not None:
        print_warning(f"{MAX_NAMES[0]} {text.strip()} is {warning}")
    return limit


def policy_of(
    gap: str, gap_boundary: str, max_duration: str, max_duration_mode: str | None, session_ids: str
) -> "Policy":
    """The policy that these options mean. Errors: ConfigError."""
    from sessionize.session.policy import Policy

    return policy_over(Policy(), gap, gap_boundary, max_duration, max_duration_mode, session_ids)


def policy_over(
    base: "Policy",
    gap: str | None,
    gap_boundary: str | None,
    max_duration: str | None,
    max_duration_mode: str | None,
    session_ids: str | None,
) -> "Policy":
    """A policy with what the options name in place of its own. Errors: ConfigError."""
    from dataclasses import replace

    from sessionize.session.durations import parse_duration_ms

    changes: dict[str, Any] = {"gap_boundary": gap_boundary, "session_ids": session_ids}
    changes["max_duration_mode"] = max_duration_mode
    if gap is not None:
        changes["gap_ms"] = parse_duration_ms(gap_of(gap), name=GAP_NAMES[0])
    changes = {name: value for name, value in changes.items() if value is not None}
    limit = None if max_duration is None else max_of(max_duration)
    if limit == "none":
        changes = {"max_duration_mode": "anchored", **changes, "max_duration_ms": None}
    elif limit is not None:
        changes["max_duration_ms"] = parse_duration_ms(limit, name=MAX_NAMES[0])
    return replace(base, **changes)  # the values are checked by Policy


def dialect_of(
    name: str | None, user: str | None, time: str | None, time_format: str, **fields: str | None
) -> "Dialect":
    """A named dialect, or the mapping that --user, --time and the others make. Errors: ConfigError."""
    from sessionize.formats.dialects import Dialect, dialect_named

    given = [f"--{k.replace('_', '-')}" for k, v in {"user": user, "time": time, **fields}.items() if v is not None]
    if name is not None:
        if given:
            raise ConfigError(
                "a dialect defines all fields",
                detail=f"--dialect {name} beside {', '.join(given)}",
                hint="remove --dialect to map the fields yourself",
            )
        return dialect_named(name)
    if not given:
        return dialect_named("clickstream")
    if user is None or time is None:
        raise ConfigError(
            "a mapping needs the user and the time",
            detail=f"given: {', '.join(given)}",
            hint="--user FIELD --time FIELD",
        )
    return Dialect.mapping(user=user, time=time, time_format=time_format, **fields)  # type: ignore[arg-type]
