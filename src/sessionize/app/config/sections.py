"""The sections of the pipeline file, as frozen models: every key with its default, meaning and example.

docs/pipeline.schema.json is generated from here; docs/configuration.md explains the keys. Durations and sizes stay
text, as in the file; the properties ending in _ms and _bytes are for calculations.
"""

from pathlib import PurePath
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator

from sessionize.app.config import types as kinds
from sessionize.app.config.format_keys import FormatKeys
from sessionize.app.config.mapping_section import MappingSection
from sessionize.app.config.section import Section, key
from sessionize.app.config.server_sections import (
    CatalogSection,
    InputCatalogSection,
    KafkaInputSection,
    KafkaOutputSection,
    LakeSection,
    PostgresSection,
    RedisSection,
    SqliteSection,
)
from sessionize.app.config.types import refuse
from sessionize.app.config.values import KnownFiles, parse_size_bytes
from sessionize.formats.dialects import Field as DialectField
from sessionize.session.durations import parse_duration_ms
from sessionize.session.names import DATABASE, USER_SESSIONS

ProfileName = Literal["clickstream", "user-events", "user_activity", "clicks", "ecommerce"]
PROFILES: tuple[ProfileName, ...] = get_args(ProfileName)
DialectName = ProfileName | Literal["segment", "snowplow", "ga4", "cloudevents", "matomo", "combined", "w3c"]
# By the ending the file sink knows the format, so it has to agree with the kind.
# connectors/iceberg names them: what a pipeline writes beside its sessions.
_RESERVED_TABLES = ("events", "late_events", "rejected_events", "loads")
_ENDINGS = {"parquet": (".parquet",), "csv": (".csv",), "ndjson": (".ndjson", ".jsonl")}
LayoutName = Literal["auto", "date", "date_bucket", "month", "none"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


def _ms(text: str) -> int:
    return parse_duration_ms(text, name="duration")


class GeneratorSection(Section):
    """Synthetic visitors; the same settings generate the same events."""

    profile: ProfileName | None = key(None, "Record format; default: input.dialect.", example="clickstream")
    users: kinds.Users = key(1_000, "Number of users.", example=5_000, unit="users")
    events: kinds.Events | None = key(
        None,
        "Number of events; default: rate times duration if both are set, else 100000.",
        example=200_000,
        unit="events",
    )
    duration: kinds.PositiveLength | None = key(
        None, "Span of event time; default: events divided by rate if rate is set, else 24h.", example="24h"
    )
    rate: kinds.Rate | None = key(
        None,
        "Events per second of event time; with it, set events or duration, not both.",
        example=50,
        unit="events per second",
    )
    skew: kinds.Skew = key(
        1.0,
        "Skew of activity: the exponent of a Zipf distribution; 0: all users are equally active.",
        example=1.2,
    )
    out_of_order: kinds.Length = key("0s", "Events are out of order by at most this.", example="2m")
    late_fraction: kinds.Fraction = key(
        0.0,
        "Share of events later than rules.lateness.",
        example=0.01,
        unit="share, 0 to 1",
    )
    duplicate_fraction: kinds.Fraction = key(0.0, "Share of events sent twice.", example=0.005, unit="share, 0 to 1")
    broken_fraction: kinds.Fraction = key(
        0.0,
        "Malformed records to add, as a share of the events.",
        example=0.001,
        unit="share, 0 to 1",
    )
    seed: kinds.Seed = key(0, "Random seed.", example=42)

    @model_validator(mode="after")
    def _two_of_three(self) -> Self:
        if self.events is not None and self.duration is not None and self.rate is not None:
            refuse(
                "events, duration and rate determine each other",
                "remove one of the three",
                key="input.generator.rate",
            )
        return self


class InputSection(FormatKeys):
    """Where events come from and how to read them."""

    kind: Literal["files", "generator", "kafka", "directory"] = key(
        "files",
        "files reads input.paths; directory follows them for new files; kafka reads a topic, see [input.kafka]; "
        "generator generates events, see [input.generator].",
        example="files",
    )
    paths: kinds.InputPaths = key(
        (),
        "Files to read: JSON, CSV, Parquet, ORC, Avro or logs, text also compressed; iceberg:DATABASE.TABLE, "
        "delta:FOLDER; with directory, folders or patterns to follow. Only with kind = files or directory.",
        example=["events.ndjson"],
    )
    known_files: KnownFiles = key(
        "refuse",
        "What to do with files or generated events that are loaded already: refuse the run, load them again, or skip "
        "them. Only with kind = files or generator.",
        example="skip",
    )
    dialect: DialectName | None = Field(
        default=None,
        description="Input record format. Use [input.mapping] for a custom one.",
        examples=["clickstream"],
        json_schema_extra={"default": "clickstream"},
    )
    mapping: MappingSection | None = Field(
        default=None, description="Field names of a custom record format, instead of a dialect."
    )
    fields: dict[kinds.FieldName, kinds.FieldSpec] = key(
        {},
        "Further fields as columns of the events, NAME = path or NAME = {path, type}; type is text, number, integer or "
        "boolean.",
        example={"referrer": "context.referrer", "price": {"path": "price", "type": "number"}},
    )
    time_zone: kinds.TimeZone | None = key(
        None,
        "IANA time zone of event times that name none; default: UTC. An hour that happens twice is the earlier one; a "
        "local time that never happens is rejected.",
        example="Europe/Berlin",
    )
    strict: kinds.Switch = key(
        False,
        "Reject records with a value of a wrong type in an optional field; otherwise the value is left out and "
        "counted.",
        example=True,
    )
    catalog: InputCatalogSection | None = Field(
        default=None, description="The catalog of iceberg:DATABASE.TABLE in input.paths, if it is not the output's."
    )
    generator: GeneratorSection = Field(default_factory=GeneratorSection, description="Only with kind = generator.")
    kafka: KafkaInputSection = Field(default_factory=KafkaInputSection, description="Only with kind = kafka.")

    @property
    def is_stream(self) -> bool:
        """Whether it has no end of its own."""
        return self.kind in ("kafka", "directory")

    @model_validator(mode="before")
    @classmethod
    def _default_dialect(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("mapping") is None and values.get("dialect") is None:
            return {**values, "dialect": "clickstream"}
        return values

    @model_validator(mode="after")
    def _one_shape(self) -> Self:
        if self.kind == "generator" and self.dialect_name not in PROFILES:
            refuse(
                "the generator has no records of this dialect",
                f"set input.generator.profile to one of {', '.join(PROFILES)}",
                key="input.dialect",
            )
        profile = self.generator.profile
        if profile is not None and self.dialect is not None and profile != self.dialect:
            refuse(
                f"input.dialect reads {self.dialect} records, not {profile}",
                "remove the profile, or set input.dialect to the same",
                key="input.generator.profile",
            )
        return self

    def further_fields(self) -> tuple[DialectField, ...]:
        """What [input.fields] names. Errors: ConfigError."""
        return tuple(
            DialectField.of(name, each["path"], each.get("type", "text"))
            if isinstance(each, dict)
            else DialectField.of(name, each)
            for name, each in self.fields.items()
        )

    @property
    def dialect_name(self) -> DialectName:
        """The shape of the records."""
        return self.generator.profile or self.dialect or "clickstream"

    @property
    def profile(self) -> ProfileName:
        """The shape of the generator's records."""
        return next((each for each in PROFILES if each == self.dialect_name), "clickstream")


class OutputSection(Section):
    """Where sessions go."""

    kind: Literal["iceberg", "parquet", "csv", "ndjson"] = key(
        "iceberg",
        "iceberg writes tables under run.home; the others write one file, output.path.",
        example="parquet",
    )
    database: kinds.TableName = key(DATABASE, "Iceberg database. Only with kind = iceberg.", example="analytics")
    table: kinds.TableName = key(
        USER_SESSIONS, "Iceberg table of the sessions. Only with kind = iceberg.", example="web_sessions"
    )
    path: kinds.LocalPath | None = key(
        None,
        "File to write. Required with kind = parquet, csv or ndjson, and only there.",
        example="sessions.parquet",
    )
    mode: Literal["append", "overwrite"] = key(
        "append",
        "append adds rows to the tables; overwrite replaces their rows. Only with kind = iceberg.",
        example="overwrite",
    )
    events: kinds.Switch = key(
        True,
        "Keep every accepted event (tables events and late_events). Only with kind = iceberg.",
        example=False,
    )
    rejected: kinds.Switch = key(
        True,
        "Keep rejected records, with bytes and reason: in a table, or beside the file.",
        example=False,
    )
    layout: LayoutName | None = key(
        None,
        "File partitioning: date; date_bucket, by date and bucket of users; month; none; or auto: by date, but dates "
        "with few rows share a file per month, or one file. Default: auto for new tables, unchanged for others. "
        "Only with kind = iceberg.",
        example="date_bucket",
    )
    buckets: Literal[2, 4, 5, 10, 20, 25, 50, 100] = key(
        100,
        "Number of user buckets per date. Only with layout = date_bucket.",
        example=20,
    )
    catalog: CatalogSection = Field(
        default_factory=CatalogSection, description="The catalog of the tables. Only with kind = iceberg."
    )
    postgres: PostgresSection | None = Field(default=None, description="Also write to PostgreSQL; for streams.")
    sqlite: SqliteSection | None = Field(default=None, description="Also write to SQLite; for streams.")
    redis: RedisSection | None = Field(default=None, description="Open sessions in Redis; for streams.")
    kafka: KafkaOutputSection | None = Field(default=None, description="Topics to write; for streams.")
    lake: LakeSection | None = Field(
        default=None, description="Also write accepted events as Parquet files; for streams."
    )
    console: kinds.Switch = key(False, "Also print each final session as a line of JSON; for streams.", example=True)
    columns: kinds.Columns | None = key(
        None,
        "Session columns to write; default: all that the input can fill.",
        example=["session_id", "session_start_time_ms", "event_count"],
    )

    @model_validator(mode="after")
    def _has_a_place(self) -> Self:
        if self.kind == "iceberg":
            if self.table in _RESERVED_TABLES:
                why = "this name is reserved for another table"
                refuse(why, 'choose another name, for example "user_sessions"', key="output.table")
            return self
        hint = f'path = "sessions.{self.kind}"'
        if self.path is None:
            refuse(f"kind = {self.kind} needs a file to write to", hint, key="output.path")
        endings = _ENDINGS[self.kind]
        if PurePath(self.path).suffix not in endings:
            refuse(f"a {self.kind} file ends in {' or '.join(endings)}", hint, key="output.path")
        return self


class RunSection(Section):
    """How to run."""

    once: kinds.Switch = key(
        False,
        "Read what is there, close every session, and exit; bounded inputs always do.",
        example=True,
    )
    home: kinds.LocalPath | None = key(
        None,
        "Folder for tables, catalog and state; default: ./sessionize-data/<name of the pipeline>.",
        example="~/sessionize-data",
    )
    memory: kinds.Size = key("1GB", "Approximate memory limit before spilling to disk.", example="500MB")
    log_level: Annotated[LogLevel, kinds.CaseBlindUpper] = key(
        "INFO", "Lowest level to show: WARNING and ERROR hide a run's summary.", example="DEBUG"
    )

    @property
    def memory_bytes(self) -> int:
        """Approximate memory limit."""
        return parse_size_bytes(self.memory)
