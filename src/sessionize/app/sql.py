"""`sql`: the rules of a pipeline, or of options, as a query over a table of the user's."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sessionize.app.options import DEFAULT_RULES, RuleOptions
from sessionize.app.warn import Warn
from sessionize.errors import ConfigError

if TYPE_CHECKING:
    from sessionize.app.config.pipeline import PipelineConfig
    from sessionize.formats.dialects import Dialect
    from sessionize.session.definition import SessionDefinition
    from sessionize.session.own_columns import OwnColumn
    from sessionize.sql import EventTable
    from sessionize.sql.dialect import Dialect as SqlDialect

# The option for each canonical event column.
_OPTIONS = {
    "user": "--user",
    "event_time_ms": "--time",
    "event_id": "--event-id",
    "event_type": "--event-type",
    "page": "--page",
    "value": "--value",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOptions:
    """The table of events. A column that is None is as the pipeline says; "" says that the table has none."""

    table: str = "events"
    user: str | None = None
    time: str | None = None
    time_format: str | None = None
    event_id: str | None = None
    event_type: str | None = None
    page: str | None = None
    value: str | None = None
    loaded_at: str | None = None


DEFAULT_TABLE = TableOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlOptions:
    """What query is asked for. dialect: of SQL. columns: of the sessions, comma-separated. settings: KEY=VALUE."""

    dialect: str
    untested: bool = False
    pipeline: str | None = None
    table: TableOptions = DEFAULT_TABLE
    rules: RuleOptions = DEFAULT_RULES
    columns: str | None = None
    labels: bool = False
    settings: list[str] | None = None
    lookback: str = "1h"

    def query(self, *, warn: Warn) -> str:
        """The query as text. Errors: ConfigError for what cannot be meant, and what SQL or the dialect cannot say."""
        from sessionize.sql import labels_sql, sessions_sql

        return (labels_sql if self.labels else sessions_sql)(*self._parts(warn))

    def dbt_project(self, folder: Path, *, warn: Warn) -> list[Path]:
        """Write an incremental model into the folder of a dbt project. Errors: as of query; OutputError."""
        from sessionize.app.sql_dbt import write_project
        from sessionize.session.durations import parse_duration_ms

        if self.labels:
            raise ConfigError("a dbt model has sessions, no labels", detail="--labels beside --dbt", hint="remove one")
        lookback_ms = parse_duration_ms(self.lookback, name="--lookback")
        return write_project(folder, *self._parts(warn), lookback_s=-(-lookback_ms // 1000))

    def _parts(self, warn: Warn) -> "tuple[SessionDefinition, EventTable, SqlDialect]":
        from sessionize.sql import dialect_named

        dialect = dialect_named(self.dialect, untested=self.untested)
        config = self._pipeline()
        events = self._events(None if config is None else config.dialect())
        return self._definition(config, events, dialect, warn), events, dialect

    def _pipeline(self) -> "PipelineConfig | None":
        if self.pipeline is None:
            if self.settings:
                raise ConfigError("--set changes a key of a pipeline", hint="name the pipeline: a preset or a file")
            return None
        from sessionize.app.config.pipeline import load_pipeline
        from sessionize.app.config.values import parse_set_option

        return load_pipeline(self.pipeline, overrides=dict(parse_set_option(text) for text in self.settings or ()))

    def _events(self, mapped: "Dialect | None") -> "EventTable":
        from sessionize.sql import EventTable

        table = self.table
        given = {
            "user": table.user,
            "event_time_ms": table.time,
            "event_id": table.event_id,
            "event_type": table.event_type,
            "page": table.page,
            "value": table.value,
        }
        if mapped is None and not (table.user and table.time):
            raise ConfigError(
                "a query needs the columns of the user and the time",
                detail=f"table {table.table}",
                hint="--user COLUMN --time COLUMN, or name a pipeline with a mapping",
            )
        columns = {name: _column(name, value, mapped) for name, value in given.items()}
        user, time = columns.pop("user"), columns.pop("event_time_ms")
        if user is None or time is None:
            raise ConfigError("a query needs the columns of the user and the time", hint="--user COLUMN --time COLUMN")
        kind = table.time_format or ("auto" if mapped is None else mapped.time_format)
        return EventTable(
            name=_table_name(table.table),
            user=user,
            time=time,
            time_kind="timestamp" if kind == "auto" else kind,  # type: ignore[arg-type]  # EventTable looks at it
            columns={name: column for name, column in columns.items() if column is not None},
            fields=_fields(mapped),
            loaded_at=table.loaded_at,
        )

    def _definition(
        self, config: "PipelineConfig | None", events: "EventTable", dialect: "SqlDialect", warn: Warn
    ) -> "SessionDefinition":
        from sessionize.formats.dialects import Dialect
        from sessionize.session import columns as col
        from sessionize.session.definition import SessionDefinition
        from sessionize.session.policy import Policy
        from sessionize.session.rules import Rules

        if config is None:
            conversions = Dialect.mapping(user="user", time="time").conversion_events
            own, asked = (Policy(), Rules(conversion_events=frozenset(conversions))), None
        else:
            own, asked = (config.policy(), config.event_rules()), config.output.columns
        policy, rules = self.rules.over(*own, warn=warn)
        if self.columns is not None:
            asked = tuple(name for part in self.columns.split(",") if (name := part.strip()))
        bounces = bool(policy.bounce)
        columns = col.SessionColumns.made_of(events.event_columns, only=asked, bounces=bounces)
        if asked is None:
            columns = col.SessionColumns(tuple(name for name in columns.names if dialect.can_fill(name)))
        name = events.user
        col.check_user_name(name)
        if config is not None and config.session_columns:
            columns = columns.with_own(*_own(config, events), name)
        return SessionDefinition(policy=policy, rules=rules, columns=columns, user_name=name)


def _column(canonical: str, given: str | None, mapped: "Dialect | None") -> str | None:
    """The table's column for a canonical one; None where it has none."""
    if given is not None:
        return given or None
    paths = () if mapped is None else mapped.paths(canonical)
    if not paths:
        return None
    if len(paths) == 1 and _is_column(paths[0]):
        return paths[0]
    option = _OPTIONS[canonical]
    raise ConfigError(
        "SQL needs the name of a column, not of a field within records",
        detail=f"{canonical} is {' or '.join(paths)} in the pipeline",
        hint=f'{option} COLUMN, or {option} "" if the table has none; a view can take a field out of a nested column',
    )


def _fields(mapped: "Dialect | None") -> dict[str, str]:
    """The further fields of the mapping that are columns of the table; a rule that names another one finds none."""
    fields = () if mapped is None else mapped.fields
    return {each.name: each.paths[0] for each in fields if len(each.paths) == 1 and _is_column(each.paths[0])}


def _is_column(path: str) -> bool:
    """Whether a path of the mapping can only mean a column: no field within it, no part of a list."""
    return not set(path) & set(".[")


def _own(config: "PipelineConfig", events: "EventTable") -> "tuple[tuple[OwnColumn, ...], dict[str, str]]":
    """The columns of one's own, and the fields of the table with their types. Errors: ConfigError."""
    from sessionize.session.columns import event_types
    from sessionize.session.own_columns import read_columns

    fields = {**event_types(events.event_columns), **{each.name: each.type for each in config.dialect().fields}}
    return read_columns(config.session_columns), fields


def _table_name(text: str) -> tuple[str, ...]:
    """The parts of a name: analytics.events, or "my.schema"."events". Errors: ConfigError."""
    part = r'"(?:[^"]|"")+"|[^".]+'
    if not re.fullmatch(rf"(?:{part})(?:\.(?:{part}))*", text):
        raise ConfigError(
            "invalid table name", detail=f"--table {text}", hint='write events, analytics.events or "odd.name"'
        )
    found = re.findall(part, text)
    return tuple(each[1:-1].replace('""', '"') if each.startswith('"') else each for each in found)
