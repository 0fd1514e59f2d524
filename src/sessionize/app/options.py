"""What is asked of a use case, as values of plain text: by a command line, or by any other caller.

Each knows what its text means, so that commands only read and print. Errors name the options as they are typed. Loads
nothing heavy.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sessionize.app.format_options import DEFAULT_FORMAT, FormatOptions
from sessionize.app.warn import Warn
from sessionize.errors import ConfigError

if TYPE_CHECKING:
    from sessionize.app.config.pipeline import PipelineConfig
    from sessionize.app.config.values import KnownFiles
    from sessionize.app.files import FilePlan
    from sessionize.formats.dialects import Dialect
    from sessionize.session.gap_by import GapBy
    from sessionize.session.policy import Policy
    from sessionize.session.rules import Rules


_JOINABLE = ("user", "time")
DEFAULT_PIPELINE = "user_sessionization_pipeline"
# What --test-mode runs on: enough to see every column filled, over in a moment.
TEST_MODE = {"input.kind": "generator", "input.generator.events": 5_000, "input.generator.users": 50, "run.once": True}
GAP_NAME, MAX_NAME = "--gap", "--max-duration"
NONE = "none"  # turns a rule off


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordOptions:
    """How records are read: a named dialect, or the fields of a mapping; clickstream when nothing is said."""

    dialect: str | None = None
    user: str | None = None
    time: str | None = None
    time_format: str = "auto"
    event_id: str | None = None
    event_type: str | None = None
    page: str | None = None
    value: str | None = None
    fields: list[str] | None = None
    strict: bool = False
    time_zone: str | None = None

    def _fields(self) -> dict[str, str | None]:
        return {"event_id": self.event_id, "event_type": self.event_type, "page": self.page, "value": self.value}

    @property
    def are_given(self) -> bool:
        """Whether anything is said of the records."""
        return any(each is not None for each in (self.dialect, self.user, self.time)) or any(self._fields().values())

    def as_dialect(self) -> "Dialect":
        """The dialect, with the fields that are named in place of its own; or a mapping.

        Errors: ConfigError for a mapping without user or time.
        """
        from sessionize.formats.dialects import Field

        further = [Field.parse(text) for text in self.fields or ()]
        dialect = replace(self._mapped().with_fields(further), strict=self.strict)
        if self.time_format != "auto":  # also of a dialect
            dialect = replace(dialect, time_format=self.time_format)
        return dialect if self.time_zone is None else replace(dialect, time_zone=self.time_zone)

    def _mapped(self) -> "Dialect":
        from sessionize.formats.dialects import Dialect, dialect_named
        from sessionize.formats.paths.language import parse_field_path

        fields = {"user": self.user, "time": self.time, **self._fields()}
        given = [f"--{name.replace('_', '-')}" for name, value in fields.items() if value is not None]
        if self.dialect is not None:
            joined = {name: parse_field_path(t, joins=True) for name, t in fields.items() if t and name in _JOINABLE}
            others = {name: parse_field_path(t) for name, t in fields.items() if t and name not in _JOINABLE}
            return dialect_named(self.dialect).overridden(**joined, **others)
        if not given:
            return dialect_named("clickstream")
        if self.user is None or self.time is None:
            raise ConfigError(
                "a mapping needs the user and the time",
                detail=f"given: {', '.join(given)}",
                hint="--user FIELD --time FIELD",
            )
        paths: Any = {name: None if text is None else parse_field_path(text) for name, text in self._fields().items()}
        user, time = (parse_field_path(text, joins=True) for text in (self.user, self.time))
        return Dialect.mapping(user=user, time=time, **paths)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleOptions:
    """Which of the rules are other ones than those that hold without them; None for each that is not named."""

    gap: str | None = None
    gap_boundary: str | None = None
    max_duration: str | None = None
    max_duration_mode: str | None = None
    session_ids: str | None = None
    start_events: list[str] | None = None
    end_events: list[str] | None = None
    excluded_events: list[str] | None = None
    conversion_events: list[str] | None = None
    definition: str | None = None
    split_on_change: list[str] | None = None
    split_ignore: list[str] | None = None
    day_start: str | None = None
    gap_by: str | None = None
    gap_of: list[str] | None = None
    max_events: str | None = None
    min_events: str | None = None
    min_duration: str | None = None
    bounce: list[str] | None = None
    duplicates: str | None = None
    duplicates_within: str | None = None

    def over(self, policy: "Policy", rules: "Rules", *, warn: Warn) -> "tuple[Policy, Rules]":
        """These rules with what is named in its place. warn: gets a text where something else may be meant.

        Errors: ConfigError.
        """
        from sessionize.session.durations import parse_duration_ms

        if self.definition is not None:
            policy, rules = self._defined(policy, rules)
        changes: dict[str, Any] = {"gap_boundary": self.gap_boundary, "session_ids": self.session_ids}
        changes["max_duration_mode"] = self.max_duration_mode
        if self.gap is not None:
            changes["gap_ms"] = parse_duration_ms(_gap(self.gap), name=GAP_NAME)
        changes = {name: value for name, value in changes.items() if value is not None}
        limit = None if self.max_duration is None else _maximum(self.max_duration, warn)
        if limit == "none":
            changes = {"max_duration_mode": "anchored", **changes, "max_duration_ms": None}
        elif limit is not None:
            changes["max_duration_ms"] = parse_duration_ms(limit, name=MAX_NAME)
        lists: dict[str, Any] = {
            name: frozenset(types)
            for name in ("start_events", "end_events", "excluded_events", "conversion_events")
            if (types := getattr(self, name))
        }
        changes |= self._compared()
        lists |= self._split()
        return replace(policy, **changes), replace(rules, **lists)  # the values are checked by Policy

    def _defined(self, policy: "Policy", rules: "Rules") -> "tuple[Policy, Rules]":
        """A definition in place of the policy, with the ids and the conversions that hold without it."""
        from sessionize.session.known_definitions import definition

        known = definition(self.definition or "")
        policy = replace(known.policy, session_ids=policy.session_ids)
        return policy, replace(known.rules, conversion_events=rules.conversion_events)

    def _compared(self) -> dict[str, Any]:
        """The changes of the policy by the rules that compare events, and by those about what is written."""
        from sessionize.session.durations import parse_duration_ms
        from sessionize.session.time import MS_PER_DAY

        changes: dict[str, Any] = {}
        if self.day_start is not None:
            changes["day_start"] = None if self.day_start.lower() == NONE else self.day_start
        if self.max_events is not None:
            unlimited = self.max_events.strip().lower() == NONE
            changes["max_events"] = None if unlimited else _whole(self.max_events, name="--max-events")
        if self.min_events is not None:
            changes["min_events"] = _whole(self.min_events, name="--min-events")
        if self.min_duration is not None:
            changes["min_duration_ms"] = parse_duration_ms(self.min_duration, name="--min-duration")
        if self.bounce is not None:
            changes["bounce"] = () if self.bounce == [NONE] else tuple(self.bounce)
        if self.duplicates is not None:
            changes["duplicates"] = self.duplicates
            if self.duplicates != "id":
                changes["duplicates_within_ms"] = MS_PER_DAY
        if self.duplicates_within is not None:
            changes["duplicates_within_ms"] = parse_duration_ms(self.duplicates_within, name="--duplicates-within")
        if self.gap_by is not None or self.gap_of is not None:
            changes["gap_by"] = _gap_by(self.gap_by, self.gap_of or [])
        return changes

    def _split(self) -> dict[str, frozenset[str]]:
        if self.split_on_change == [NONE]:
            return {"split_on_change": frozenset(), "split_ignore": frozenset()}
        named = {"split_on_change": self.split_on_change, "split_ignore": self.split_ignore}
        return {name: frozenset(values) for name, values in named.items() if values}


DEFAULT_RECORDS, DEFAULT_RULES = RecordOptions(), RuleOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOptions:
    """A run over files: `batch` and `label`. session_columns: comma-separated. max_future, memory: as text."""

    inputs: list[str]
    output: str
    records: RecordOptions = DEFAULT_RECORDS
    input_format: FormatOptions = DEFAULT_FORMAT
    max_future: str = "24h"
    rules: RuleOptions = DEFAULT_RULES
    session_columns: str | None = None
    rejects: Path | None = None
    memory: str = "2GB"
    home: Path | None = None
    overwrite: bool = False
    again: bool = False
    new_only: bool = False

    def plan(self, what: Literal["sessions", "labels"], *, now_ms: int, warn: Warn) -> "FilePlan":
        """The run that is meant. now_ms: the present, which max_future counts from. Errors: ConfigError."""
        from sessionize.app.config.values import parse_size_bytes
        from sessionize.app.files import FilePlan
        from sessionize.formats.input_format import text_list
        from sessionize.session.durations import parse_duration_ms
        from sessionize.session.policy import Policy
        from sessionize.session.rules import Rules

        dialect, any_time = self.records.as_dialect(), self.max_future.strip().lower() == "none"
        policy, rules = self.rules.over(
            Policy(), Rules(conversion_events=frozenset(dialect.conversion_events)), warn=warn
        )
        return FilePlan(
            what=what,
            inputs=tuple(self.inputs),
            output=self.output,
            dialect=dialect,
            input_format=self.input_format.as_format(),
            policy=policy,
            rules=rules,
            home=self.home,
            columns=None if self.session_columns is None else text_list(self.session_columns),
            rejects=self.rejects,
            memory_bytes_max=parse_size_bytes(self.memory),
            max_future_ms=None if any_time else parse_duration_ms(self.max_future, name="--max-future"),
            now_ms=now_ms,
            overwrite=self.overwrite,
            known_files=_known_files(self.again, self.new_only) or "refuse",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """A pipeline, and what is put in place of its keys. settings: KEY=VALUE. test_mode: sample data, once."""

    pipeline: str = DEFAULT_PIPELINE
    inputs: list[str] | None = None
    once: bool = False
    again: bool = False
    new_only: bool = False
    test_mode: bool = False
    kafka_servers: str | None = None
    kafka_topic: str | None = None
    partitions: str | None = None
    take_over: bool = False
    iceberg_database: str | None = None
    iceberg_table: str | None = None
    gap: str | None = None
    max_duration: str | None = None
    lateness: str | None = None
    settings: list[str] | None = None
    home: Path | None = None
    log_level: str | None = None

    @property
    def is_temporary(self) -> bool:
        """Whether the tables are removed again after the run."""
        return self.test_mode and self.home is None

    @contextmanager
    def loaded(self, *, warn: Warn) -> "Iterator[PipelineConfig]":
        """The pipeline; in test mode its home is there in this block, unless one is named. Errors: ConfigError."""
        from sessionize.app.config.pipeline import load_pipeline

        overrides = self.overrides(warn=warn)
        if not self.is_temporary:
            yield load_pipeline(self.pipeline, overrides=overrides)
            return
        import tempfile

        with tempfile.TemporaryDirectory(prefix="sessionize-test-") as folder:
            yield load_pipeline(self.pipeline, overrides=overrides | {"run.home": folder})

    def overrides(self, *, warn: Warn) -> dict[str, object]:
        """{dotted key: value}, None for what is not named. Errors: ConfigError."""
        found: dict[str, object] = {}
        if self.inputs:
            found |= {"input.kind": "files", "input.paths": list(self.inputs)}
        kafka = {"servers": self.kafka_servers, "topic": self.kafka_topic, "partitions": self.partitions}
        if any(value is not None for value in kafka.values()):
            found |= {"input.kind": "kafka", **{f"input.kafka.{name}": value for name, value in kafka.items()}}
        if self.take_over:
            found["input.kafka.take_over"] = True
        if self.test_mode:
            found |= TEST_MODE
        if self.once:
            found["run.once"] = True
        if self.gap is not None:
            found["rules.gap"] = _gap(self.gap)
        if self.max_duration is not None:
            found["rules.max_duration"] = _maximum(self.max_duration, warn)
        return found | {
            "input.known_files": _known_files(self.again, self.new_only),
            "output.database": self.iceberg_database,
            "output.table": self.iceberg_table,
            "rules.lateness": self.lateness,
            "run.log_level": self.log_level,
            **_overrides(self.settings, self.home),
        }


def load_with_overrides(pipeline: str | None, settings: list[str] | None, home: Path | None) -> "PipelineConfig":
    """The pipeline with what --set and --home put in place of its keys; without one, the preset that made the tables.

    Errors: ConfigError, also where the tables are several homes', or a pipeline's that has to be given.
    """
    from sessionize.app.config.pipeline import load_pipeline

    overrides = _overrides(settings, home)
    if pipeline is not None:
        return load_pipeline(pipeline, overrides=overrides)
    from sessionize.app.tables.home_folders import check_home, only_home
    from sessionize.app.tables.rules import pipeline_of_home

    config = load_pipeline(DEFAULT_PIPELINE, overrides=overrides)
    found = only_home() if config.run.home is None else config.home
    check_home(found)
    overrides["run.home"] = str(found)
    return load_pipeline(pipeline_of_home(found) or DEFAULT_PIPELINE, overrides=overrides)


def _overrides(settings: list[str] | None, home: Path | None) -> dict[str, object]:
    from sessionize.app.config.values import parse_set_option

    return {"run.home": None if home is None else str(home), **dict(parse_set_option(text) for text in settings or ())}


def _known_files(again: bool, new_only: bool) -> "KnownFiles | None":
    """What is to become of files that are in the tables already; None where nothing is said. Errors: ConfigError."""
    if again and new_only:
        raise ConfigError("--again and --new-only exclude each other", hint="remove one of them")
    return "again" if again else "skip" if new_only else None


def _gap(text: str) -> str:
    """The gap with its unit; a number alone is minutes. Errors: ConfigError."""
    from sessionize.app.config.values import minutes_or_duration

    return minutes_or_duration(text, name=GAP_NAME)


def _gap_by(field: str | None, pairs: list[str]) -> "GapBy | None":
    """What --gap-by and --gap-of say together. Errors: ConfigError."""
    from sessionize.session.gap_by import GapBy

    if field is None:
        raise ConfigError(
            "--gap-of needs --gap-by", detail=f"--gap-of {pairs[0]}", hint="--gap-by FIELD names the field"
        )
    if field.lower() == NONE and not pairs:
        return None
    gaps = {}
    for pair in pairs:
        value, equals, gap = pair.rpartition("=")
        if not equals:
            raise ConfigError("--gap-of needs a value and its gap", detail=f"--gap-of {pair}", hint="--gap-of tv=4h")
        gaps[value] = _gap(gap)
    name, _, unit = field.partition(":")
    return GapBy.of(field=name, gaps=gaps, unit=unit or "ms")  # type: ignore[arg-type]  # GapBy checks it


def _whole(text: str, *, name: str) -> int:
    """A whole number. Errors: ConfigError."""
    try:
        return int(text.replace("_", ""))
    except ValueError:
        raise ConfigError(
            f"invalid {name}: not a whole number", detail=f"{name} {text}", hint=f"for example {name} 2"
        ) from None


def _maximum(text: str, warn: Warn) -> str:
    """The maximum with its unit, or "none"; a number alone is hours, and a warning above a day. Errors: ConfigError."""
    from sessionize.app.config.values import hours_or_duration

    limit, warning = hours_or_duration(text, name=MAX_NAME)
    if warning is not None:
        warn(f"{MAX_NAME} {text.strip()} is {warning}")
    return limit
