"""The pipeline file as a whole, and the one way to load it.

    config = load_pipeline("my.toml", overrides={"rules.gap": "45m"})

A preset or a TOML file comes first, the environment (SESSIONIZE_RULES__GAP=45m) lies over it, the command
line over both. The sections are in sections.py; docs/configuration.md explains every key to people.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, PrivateAttr, StrictStr, ValidationError, model_validator
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from sessionize.app.config import types as kinds
from sessionize.app.config.boundary import load_boundary
from sessionize.app.config.check_section import CheckSection
from sessionize.app.config.errors import all_keys, config_error
from sessionize.app.config.presets import preset_names, preset_text
from sessionize.app.config.rules_section import RulesSection
from sessionize.app.config.secrets import as_shown
from sessionize.app.config.section import Section, key
from sessionize.app.config.sections import InputSection, OutputSection, RunSection
from sessionize.app.config.server_sections import StreamSection
from sessionize.app.config.sources import MODES, KeyPath, environment_layer, file_layer, merge_source, option_layer
from sessionize.app.config.types import refuse
from sessionize.app.config.values import format_value
from sessionize.app.tables.home_folders import home_of_pipeline
from sessionize.errors import ConfigError
from sessionize.formats.dialects import Dialect, dialect_named
from sessionize.session.definition import SessionDefinition, check_fields
from sessionize.session.durations import parse_duration_ms
from sessionize.session.policy import Policy

if TYPE_CHECKING:
    from sessionize.connectors.generator.settings import GeneratorSettings
    from sessionize.engine.batch.options import BatchOptions
    from sessionize.session.columns import SessionColumns
    from sessionize.session.own_columns import OwnColumns
    from sessionize.session.rules import Rules
    from sessionize.session.spec import SessionSpec

__all__ = [
    "PipelineConfig",
    "explain_config",
    "json_schema",
    "known_keys",
    "load_pipeline",
    "preset_names",
    "preset_text",
    "schema_text",
]

_NO_OVERRIDES: Mapping[str, object] = MappingProxyType({})
_GENERATED_EVENTS = 100_000
_LATE_BY_MS = 180_000
_RECONCILE_AUTO_S = 3_600.0


@dataclass(frozen=True, slots=True)
class _Loaded:
    """How a config came to be; takes no part in whether two configs are equal."""

    origins: Mapping[KeyPath, str] = field(default_factory=dict, compare=False)
    folder: Path | None = field(default=None, compare=False)


class PipelineConfig(Section):
    """A pipeline, checked and complete."""

    name: kinds.Name = key("pipeline", "Name of the pipeline; default: the file's name.", example="web")
    description: StrictStr = key("", "Its purpose, in a sentence.", example="Sessions of the web shop")
    input: InputSection = Field(default_factory=InputSection, description="Where events come from.")
    rules: RulesSection = Field(default_factory=RulesSection, description="What a session is.")
    session_columns: kinds.OwnColumns = key(
        {},
        "Session columns of your own, by name: { first = FIELD }, also last, min, max, sum, mean, count, distinct, "
        "count_distinct, each with an optional where; or { expression = TEXT } over other session columns.",
        example={"first_page": {"first": "page"}, "views": {"count": True, "where": "event_type = 'page_view'"}},
    )
    output: OutputSection = Field(default_factory=OutputSection, description="Where sessions go.")
    run: RunSection = Field(default_factory=RunSection, description="How to run.")
    stream: StreamSection = Field(default_factory=StreamSection, description="How a stream runs.")
    check: CheckSection = Field(default_factory=CheckSection, description="What `sessionize check` allows.")

    _loaded: _Loaded = PrivateAttr(default_factory=_Loaded)
    _as_made: "SessionSpec | None" = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _only_selected_modes(self) -> Self:
        for (table, selector), options_of in MODES.items():
            section = getattr(self, table)
            chosen = getattr(section, selector)
            for option in sorted(section.model_fields_set):
                owners = [value for value, options in options_of.items() if (table, option) in options]
                if owners and chosen not in owners:
                    named = f"{table}.{selector}"
                    refuse(
                        f"needs {named} = {' or '.join(owners)}, and {named} is {chosen or 'not set'}",
                        f"remove it, or set {named} = {format_value(owners[0])}",
                        key=f"{table}.{option}",
                    )
        return self

    @model_validator(mode="after")
    def _keeps_what_it_reconciles(self) -> Self:
        if self.stream.reconcile not in ("auto", "none") and not self._keeps_events:
            refuse(
                "late events are not kept, so they cannot be merged into the sessions",
                "set output.kind = iceberg and output.events = true, or remove this key",
                key="stream.reconcile",
            )
        return self

    @model_validator(mode="after")
    def _writes_elsewhere_than_it_reads(self) -> Self:
        output, topic = self.output.kafka, self.input.kafka.topic
        if self.input.kind != "kafka" or output is None or output.servers not in (None, self.input.kafka.servers):
            return self
        for name in ("enriched", "sessions", "late", "rejected"):
            if getattr(output, name) == topic:
                refuse("this topic is the input", "choose another one", key=f"output.kafka.{name}")
        return self

    @model_validator(mode="after")
    def _judges_by_the_present(self) -> Self:
        future_ms, epoch_ms = self.rules.max_future_ms, parse_duration_ms(self.stream.epoch, name="stream.epoch")
        if self.input.kind == "kafka" and future_ms is not None and future_ms < epoch_ms:
            refuse(
                f"shorter than an epoch ({self.stream.epoch}), which reads the clock once",
                "make it longer, or stream.epoch shorter; otherwise current records count as future ones",
                key="rules.max_future",
            )
        return self

    def policy(self) -> Policy:
        """The numbers that decide where a session ends."""
        return self.rules.policy() if self._as_made is None else self._as_made.policy

    def dialect(self) -> Dialect:
        """Where the fields are in the records, what the user is called, and what a conversion is."""
        wanted = tuple(sorted(self.rules.conversion_events))
        if self.input.mapping is None:
            dialect = dialect_named(self.input.dialect_name)
        else:
            paths = self.input.mapping.paths()
            if self.input.dialect is None:
                dialect = Dialect.mapping(**paths)
            else:
                time_format = paths.pop("time_format")
                dialect = dialect_named(self.input.dialect).overridden(**paths)
                dialect = dialect if time_format == "auto" else replace(dialect, time_format=time_format)
        dialect = replace(dialect.with_fields(self.input.further_fields()), strict=self.input.strict)
        if self.input.time_zone is not None:
            dialect = replace(dialect, time_zone=self.input.time_zone)
        if (made := self._as_made) is not None:
            return replace(dialect, user_name=made.user_column, conversion_events=made.conversion_events)
        return replace(dialect, conversion_events=wanted) if wanted else dialect

    def spec(self) -> "SessionSpec":
        """The record that lies with the tables: which pipeline makes the sessions, and by which rules."""
        from sessionize.session.spec import SessionSpec

        if self._as_made is not None:
            return self._as_made
        dialect, lists = self.dialect(), self.rules
        columns = self._columns(dialect.columns, dialect.user_name)
        return SessionSpec(
            pipeline=self.name,
            user_column=dialect.user_name,
            policy=self.policy(),
            **lists.lists(),
            conversion_events=tuple(sorted(dialect.conversion_events)),
            boundary=lists.boundary,
            dialect=dialect.name,
            columns=columns.names,
            own=columns.own,
        )

    def as_made(self, spec: "SessionSpec") -> "PipelineConfig":
        """The same pipeline by the rules of another record, whatever the file says of them."""
        made = self.model_copy()
        made._as_made = spec
        return made

    def destination(self) -> str:
        """Where the sessions go, in words."""
        output = self.output
        return output.path or f"{output.database}.{output.table} in {self.home}"

    def definition(self, event_columns: frozenset[str], user_name: str) -> SessionDefinition:
        """What to make of events with these columns: the session columns asked for, or all that can be filled.

        user_name: what the user column is called. Errors: those of event_rules; ConfigError for session columns that
        cannot be made of these.
        """
        policy, rules = self.policy(), self.event_rules()
        if self._as_made is None:  # the tables have their events with what their rules need
            check_fields(policy, rules, event_columns, hint='map it under [input.fields], NAME = "path"')
        return SessionDefinition(
            policy=policy, rules=rules, columns=self._columns(event_columns, user_name), user_name=user_name
        )

    def batch_options(self) -> "BatchOptions":
        """How a run over files works. Errors: those of dialect."""
        from sessionize.engine.batch.options import BatchOptions

        return BatchOptions(memory_bytes_max=self.run.memory_bytes, dialect=self.dialect())

    def event_rules(self) -> "Rules":
        """The rules that look at events. Errors: ConfigError where the custom boundary cannot be imported, and where
        the tables name one that the pipeline does not: whoever may write to tables does not choose the code that runs.
        """
        spec = self.spec()
        named = spec.boundary
        if named is None:
            return spec.rules(None)
        if named != self.rules.boundary:
            raise ConfigError(
                "the tables were made with a boundary function that the pipeline does not name",
                detail=f"rules.boundary = {named!r} there, {self.rules.boundary or 'none'} here",
                hint="if it is yours, name it in the pipeline file, [rules] boundary, and keep its module beside it",
            )
        return spec.rules(load_boundary(named, folder=self._loaded.folder or Path()))

    def own_columns(self) -> "OwnColumns":
        """The session columns of one's own, checked against the fields of the events. Errors: ConfigError."""
        return self.spec().own

    def _columns(self, event_columns: frozenset[str], user_name: str) -> "SessionColumns":
        """Those of the tables where these decide, else the ones asked for, else all that the events can fill."""
        from sessionize.session.columns import SESSION_TYPES, USER, SessionColumns, event_types
        from sessionize.session.own_columns import read_columns

        if (made := self._as_made) is not None:
            names = tuple(n for n in SESSION_TYPES if n in made.columns or n == USER)
            return SessionColumns(names, made.own)
        only = None if self.output.columns is None else tuple(self.output.columns)
        columns = SessionColumns.made_of(event_columns, only=only, bounces=bool(self.policy().bounce))
        fields = {**event_types(event_columns), **self.dialect().field_types}
        return columns.with_own(read_columns(self.session_columns), fields, user_name)

    def generator(self) -> "GeneratorSettings":
        """What to generate: late events are late enough for rules.lateness not to cover them."""
        from sessionize.connectors.generator.settings import GeneratorSettings

        made, rules = self.input.generator, self.rules
        out_of_order_ms = parse_duration_ms(made.out_of_order, name="input.generator.out_of_order")
        sized = made.events is not None or (made.rate is not None and made.duration is not None)
        return GeneratorSettings(
            profile=self.input.profile,
            users=made.users,
            events=made.events if sized else _GENERATED_EVENTS,
            rate_per_s=made.rate,
            duration_ms=None if made.duration is None else parse_duration_ms(made.duration, name="duration"),
            seed=made.seed,
            skew=made.skew,
            out_of_order_ms=out_of_order_ms,
            late_fraction=made.late_fraction,
            late_by_ms=rules.lateness_ms + out_of_order_ms + _LATE_BY_MS,
            duplicate_fraction=made.duplicate_fraction,
            broken_fraction=made.broken_fraction,
        )

    @property
    def reconcile_s(self) -> float | None:
        """How often late events are merged into the sessions of a stream; None for never."""
        wanted, columns = self.stream.reconcile, self.output.columns
        if wanted != "auto":
            return None if wanted == "none" else parse_duration_ms(wanted, name="stream.reconcile") / 1000
        can = self._keeps_events and (columns is None or {"session_id", "session_start_time_ms"} <= set(columns))
        return _RECONCILE_AUTO_S if can else None

    @property
    def _keeps_events(self) -> bool:
        return self.output.kind == "iceberg" and self.output.events

    def input_paths(self) -> tuple[str, ...]:
        """What to read. Errors: ConfigError where the input is files, or a directory, and none is named."""
        if self.input.kind in ("files", "directory") and not self.input.paths:
            raise ConfigError(
                "nothing to read",
                detail=f"{self.origin_of('input.paths')}: input.paths = []",
                hint="use --input PATH, or set input.paths",
            )
        return self.input.paths

    @property
    def folder(self) -> Path | None:
        """Where the pipeline file lies; None for a preset."""
        return self._loaded.folder

    @property
    def home(self) -> Path:
        """The folder for tables, catalog and state."""
        if self.run.home is None:
            return home_of_pipeline(self.name, self.stream.writer)
        return Path(self.run.home).expanduser()

    def origin_of(self, dotted: str) -> str:
        """Where a value came from: "default", "preset NAME", "file PATH", "environment NAME" or "option"."""
        return self._loaded.origins.get(tuple(dotted.split(".")), "default")

    def as_dict(self) -> dict[str, Any]:
        """The whole pipeline as tables of TOML values: with defaults, without the options of other modes."""
        tree = self.model_dump(mode="json", exclude_none=True)
        for (section, selector), options_of in MODES.items():
            chosen = options_of.get(tree[section].get(selector), ())
            for option in {o for options in options_of.values() for o in options} - set(chosen):
                tree[section].pop(option[1], None)
        return tree


def load_pipeline(
    name_or_path: str,
    *,
    overrides: Mapping[str, object] = _NO_OVERRIDES,
    environ: Mapping[str, str] | None = None,
) -> PipelineConfig:
    """Load a preset by its name, or a pipeline file by its path (ending in .toml, or with a folder in front).

    overrides: {dotted key: value} of the command line; None means the option was not given. environ: the
    process's own when None. Errors: ConfigError for all that cannot be meant, with place, key and value.
    """
    layer, name, folder = file_layer(name_or_path)
    merge_source(layer, environment_layer(os.environ if environ is None else environ, known_keys()))
    merge_source(layer, option_layer(overrides))
    values = layer.nested()
    values.setdefault("name", re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip("_.-")[:100] or "pipeline")
    try:
        config = PipelineConfig.model_validate(values)
    except ValidationError as error:
        raise config_error(error, layer, PipelineConfig) from None
    config._loaded = _Loaded(dict(layer.origins), folder)
    return config


def explain_config(config: PipelineConfig) -> list[tuple[str, str, str]]:
    """Every effective value as (dotted key, value written as TOML, where it came from); values of servers' settings and
    parts of addresses only where they are known to be harmless.
    """
    tree = config.as_dict()
    tree["run"].setdefault("home", str(config.home))
    leaves = _leaves(tree, "")
    return [(name, format_value(as_shown(name, value)), config.origin_of(name)) for name, value in leaves]


def known_keys() -> list[str]:
    """Every key a pipeline file may hold, dotted."""
    return list(all_keys(PipelineConfig))


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the pipeline file, for editors."""
    schema = PipelineConfig.model_json_schema(schema_generator=_TomlSchema)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "sessionize pipeline",
    }


def schema_text() -> str:
    """The JSON Schema as docs/pipeline.schema.json holds it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


class _TomlSchema(GenerateJsonSchema):
    """TOML has no null: a key that may be None is one that may be left out."""

    def nullable_schema(self, schema: Any) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: Any) -> JsonSchemaValue:
        made = super().default_schema(schema)
        return {name: value for name, value in made.items() if name != "default" or value is not None}

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, object]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
