"""The sections of the pipeline file about servers: the Kafka input, and the outputs beside the tables.

The file contains no secrets: a setting `name=env:VARIABLE` or `name=file:PATH` names their source.
"""

import re
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StrictInt, model_validator
from pydantic import WithJsonSchema as Schema

from sessionize.app.config import types as kinds
from sessionize.app.config.section import Section, key
from sessionize.app.config.types import refuse
from sessionize.connectors.shown_settings import hides_password
from sessionize.session.durations import parse_duration_ms

# What the names of settings begin with that are for the schema registry.
REGISTRY_PREFIX = "schema.registry."
_PARTITIONS = r"^\s*\d+(-\d+)?(\s*,\s*\d+(-\d+)?)*\s*$"


def _setting(value: str) -> str:
    name, equals, _ = value.partition("=")
    if not equals or not name.strip():
        refuse("not a setting", 'write "name=value", "name=env:VARIABLE" or "name=file:PATH"')
    if is_secret(name) and not value.partition("=")[2].startswith(("env:", "file:")):
        refuse(
            "the file must not contain a secret",
            f'write "{name.strip()}=env:VARIABLE" or "{name.strip()}=file:PATH"',
            secret=True,
        )
    return value


def _partitions(value: str) -> str:
    if re.fullmatch(_PARTITIONS, value, re.ASCII) is None:
        refuse("expected partition numbers and ranges", 'write for example "0-3,7"')
    return value


_SECRETS = (
    *("password", "secret", "token", "credential", "passphrase", "user.info"),
    *("key.pem", "keystore.pem", "account-key", "connection-string", "authorization"),
    *("jaas.config", "oauthbearer.config"),
)
# In an address: between user and host, whatever stands in it (what is not escaped would be taken for the port and the
# path, and shown), or as a parameter of any of the servers' own names for it.
_PASSWORD = re.compile(
    r"://[^/?#@]*:.*@|(?:^|[?&\s])(?:\w*(?:password|passwd|secret|token|api_?key)|key)\s*=", re.IGNORECASE
)


def is_secret(name: str) -> bool:
    """Whether what a setting of this name holds is likely to be secret."""
    lower = name.lower()
    return any(word in lower for word in _SECRETS)


def _without_password(value: str) -> str:
    if _PASSWORD.search(value) or hides_password(value):
        refuse(
            "contains a password",
            "remove it, and name its source: password_env, password_file, or a setting name=env:VARIABLE",
            secret=True,
        )
    return value


def _brokers(value: str) -> str:
    if "@" in value:
        refuse(
            "contains a user or password",
            'write them as settings: "sasl.username=NAME", "sasl.password=env:VARIABLE"',
            secret=True,
        )
    return value


def _registry_address(value: str) -> str:
    parts = urlsplit(value)
    if "@" in parts.netloc or _PASSWORD.search(value):
        refuse(
            "contains a user or password",
            f'write them as a setting: "{REGISTRY_PREFIX}basic.auth.user.info=env:VARIABLE"',
            secret=True,
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        refuse("not the address of a schema registry", 'write for example "https://registry:8081"')
    return value


Setting = Annotated[kinds.Text, AfterValidator(_setting)]
Settings = tuple[Setting, ...]
Address = Annotated[kinds.Text, AfterValidator(_without_password)]
Brokers = Annotated[kinds.Text, AfterValidator(_brokers)]
TopicName = Annotated[kinds.Text, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
Partitions = Annotated[kinds.Text, AfterValidator(_partitions), Schema({"type": "string", "pattern": _PARTITIONS})]
Count = Annotated[StrictInt, Field(ge=1, le=10_000)]
Ordinal = Annotated[StrictInt, Field(ge=0, le=9_999)]


class KafkaInputSection(Section):
    """A Kafka topic to read. Offsets are in the pipeline's checkpoints, not in a consumer group."""

    servers: Brokers = key("127.0.0.1:9092", "Brokers, comma-separated.", example="broker-1:9092,broker-2:9092")
    topic: TopicName = key("user-events", "The topic to read.", example="clicks")
    format: Literal["json", "avro"] = key("json", "Record encoding.", example="avro")
    schema_registry: Annotated[kinds.Text, AfterValidator(_registry_address)] | None = key(
        None,
        "Address of the schema registry, for Avro.",
        example="http://127.0.0.1:8081",
    )
    schema_file: kinds.LocalPath | None = key(
        None, "File with the Avro schema of all records, without a registry.", example="event.avsc"
    )
    partitions: Partitions | None = key(None, "Partitions that this process reads; default: all.", example="0-3,7")
    instance: Ordinal | None = key(
        None,
        "Number of this instance, from 0; default: the number at the end of the host name, after `-`.",
        example=0,
    )
    instances: Count = key(1, "Number of processes that share the topic.", example=4)
    take_over: kinds.Switch = key(
        False,
        "Take over the partitions of processes with another assignment, after all of them are drained.",
        example=True,
    )
    start: Literal["earliest", "latest"] = key("earliest", "Where to begin without a checkpoint.", example="latest")
    on_expired: Literal["fail", "earliest"] = key(
        "fail",
        "What to do when records expire before they are read: fail, or continue at the earliest one.",
        example="earliest",
    )
    settings: Settings = key(
        (),
        "More settings of the Kafka client, such as security, as name=value; those of the registry begin with "
        "`schema.registry.`: `basic.auth.user.info` (user:password) and `ssl.ca.location`.",
        example=["security.protocol=SASL_SSL", "sasl.password=env:KAFKA_PASSWORD"],
    )

    @model_validator(mode="after")
    def _schema_from_one_place(self) -> Self:
        named = [name for name in ("schema_registry", "schema_file") if getattr(self, name) is not None]
        if self.format == "avro" and not named:
            refuse(
                "Avro needs a schema",
                "set schema_registry to the address of a registry, or schema_file to a file with the schema",
                key="input.kafka.format",
            )
        if self.format == "avro" and len(named) == 2:
            refuse(
                "schema_registry and schema_file exclude each other", "keep one of them", key="input.kafka.schema_file"
            )
        if self.format != "avro" and named:
            refuse(
                f"{self.format} records need no schema",
                'remove it, or set format = "avro"',
                key=f"input.kafka.{named[0]}",
            )
        for_registry = [each for each in self.settings if each.strip().startswith(REGISTRY_PREFIX)]
        if for_registry and self.schema_registry is None:
            refuse(
                f"{for_registry[0].partition('=')[0].strip()} is for a schema registry, and none is set",
                "remove it, or set schema_registry",
                key="input.kafka.settings",
                secret=True,
            )
        return self

    @model_validator(mode="after")
    def _one_share(self) -> Self:
        if self.partitions is not None and self.instances > 1:
            refuse(
                "partitions and instances exclude each other",
                "keep one of them",
                key="input.kafka.partitions",
            )
        if self.instance is not None and self.instance >= self.instances:
            refuse(
                f"there are {self.instances} instances, numbered from 0",
                f"use 0 to {self.instances - 1}, or raise instances",
                key="input.kafka.instance",
            )
        return self


class PostgresSection(Section):
    """A PostgreSQL database that serves the sessions."""

    dsn: Address = key(
        "postgresql://127.0.0.1/sessionize",
        "Address of the database, without a password.",
        example="postgresql://sessions@db.internal/analytics",
    )
    password_env: kinds.Text | None = key(
        None, "Environment variable that holds the password.", example="SESSIONS_DB_PASSWORD"
    )
    password_file: kinds.LocalPath | None = key(
        None, "File that holds the password.", example="/run/secrets/sessions-db"
    )


class SqliteSection(Section):
    """A SQLite database with the same tables as PostgreSQL."""

    path: kinds.LocalPath = key(
        "store.sqlite", "The database file; relative to run.home.", example="/data/store.sqlite"
    )


class RedisSection(Section):
    """Redis serves the sessions that are open now. A cache: it is cleared and refilled at every start."""

    url: Address = key("redis://127.0.0.1:6379/0", "Address, without a password.", example="redis://cache:6379/1")
    prefix: kinds.Text = key("sessionize:", "Prefix of every key.", example="web:")
    password_env: kinds.Text | None = key(
        None, "Environment variable that holds the password.", example="REDIS_PASSWORD"
    )
    password_file: kinds.LocalPath | None = key(None, "File that holds the password.", example="/run/secrets/redis")


class KafkaOutputSection(Section):
    """Topics to write, one transaction per epoch. A topic without a name is not written."""

    servers: Brokers | None = key(None, "Brokers; default: those of input.kafka.", example="broker-1:9092")
    enriched: TopicName | None = key(
        None, "Accepted events, with processing_time and the session id so far.", example="enriched_activity"
    )
    sessions: TopicName | None = key(None, "Final sessions.", example="user_sessions")
    late: TopicName | None = key(None, "Late events.", example="late_events")
    rejected: TopicName | None = key(None, "Rejected records.", example="rejected_events")
    oversized: Literal["shorten", "stop"] = key(
        "shorten",
        "What to do with a row larger than its topic accepts. `shorten`: send it without its lists and with "
        "`shortened_fields`; if it is still too large, skip it with a warning. `stop`: end the run with an error.",
        example="stop",
    )
    settings: Settings = key(
        (),
        "More settings of the Kafka client, as name=value; default: those of input.kafka.",
        example=["security.protocol=SASL_SSL", "sasl.password=env:KAFKA_PASSWORD"],
    )

    @model_validator(mode="after")
    def _some_topic(self) -> Self:
        topics = [t for t in (self.enriched, self.sessions, self.late, self.rejected) if t is not None]
        if len(set(topics)) != len(topics):
            refuse("two topics have the same name", "give each its own name", key="output.kafka")
        return self


class LakeSection(Section):
    """Accepted events as Parquet files, in folders by day."""

    path: kinds.LocalPath = key("data/lake", "The folder; relative to run.home.", example="/data/lake")


class CatalogSection(Section):
    """Where the Iceberg tables are registered, and where their files are."""

    _place: ClassVar[str] = "output.catalog"

    kind: Literal["sqlite", "postgres", "rest"] = key(
        "sqlite", "sqlite: a file under run.home; the others are servers.", example="rest"
    )
    uri: Address | None = key(
        None,
        "Address of the catalog, without a password; required for postgres and rest.",
        example="http://catalog:8181",
    )
    warehouse: Address | None = key(
        None,
        "Location of data files: a folder or s3://bucket/path; default: `<run.home>/warehouse`.",
        example="s3://lake/sessions",
    )
    settings: Settings = key(
        (),
        "More settings of the catalog and its storage, as name=value.",
        example=["s3.region=eu-west-1", "s3.secret-access-key=env:S3_SECRET"],
    )

    @model_validator(mode="after")
    def _has_a_uri(self) -> Self:
        if self.kind != "sqlite" and self.uri is None:
            refuse(f"a {self.kind} catalog needs an address", 'uri = "…"', key=f"{self._place}.uri")
        if self.kind == "sqlite" and self.uri is not None:
            refuse("the sqlite catalog is a file under run.home", "remove uri", key=f"{self._place}.uri")
        return self


class InputCatalogSection(CatalogSection):
    """Where the Iceberg tables of the input are registered, and where their files are."""

    _place: ClassVar[str] = "input.catalog"


class StreamSection(Section):
    """How a stream runs."""

    epoch: kinds.PositiveLength = key("10s", "How often results become durable and visible.", example="1m")
    epoch_rows: Annotated[StrictInt, Field(ge=1, le=10_000_000)] = key(
        1_000_000, "An epoch ends early at about this many records.", example=100_000, unit="records"
    )
    poll: kinds.PositiveLength = key(
        "200ms", "How long to wait for new records before doing other work.", example="50ms"
    )
    idle_after: kinds.PositiveLength = key(
        "1m", "A partition without new records for this long no longer holds the watermark back.", example="5m"
    )
    outage: kinds.PositiveLength = key(
        "10m", "How long an unavailable server is retried before the run fails; nothing is lost.", example="1h"
    )
    live: kinds.PositiveLength = key("500ms", "How often Redis is updated with the open sessions.", example="2s")
    drain: kinds.Switch = key(
        True,
        "With run.once: close every open session at the end; false keeps them open for the next run.",
        example=False,
    )
    writer: kinds.Name | None = key(
        None,
        "Name under which epochs are recorded; default: the pipeline's name. Unique for each process.",
        example="web-0",
    )
    reconcile: kinds.PositiveLengthOrNone | Literal["auto"] = key(
        "auto",
        "How often late events are merged into the sessions while running; with run.once: once, at the end. auto: "
        "every hour if events are kept in tables.",
        example="1h",
    )
    reconcile_tiers: Annotated[tuple[kinds.PositiveLength, ...], Field(min_length=1)] = key(
        ("1h", "24h"),
        "How far back late events are merged: the shortest each time, a longer one each time it has passed. "
        "`sessionize reconcile` merges older ones.",
        example=["1h", "24h"],
    )

    maintain: kinds.PositiveLengthOrNone = key(
        "1h",
        'How often the tables are maintained while running, as by `sessionize maintain`; "none": never. Not with '
        "run.once.",
        example="6h",
    )

    @property
    def epoch_s(self) -> float:
        """How long an epoch lasts."""
        return _seconds(self.epoch)

    @property
    def poll_s(self) -> float:
        """How long to wait for new records."""
        return _seconds(self.poll)

    @property
    def idle_after_s(self) -> float:
        """After how long without new records a partition no longer holds the watermark back."""
        return _seconds(self.idle_after)

    @property
    def outage_s(self) -> float:
        """How long an unavailable server is retried."""
        return _seconds(self.outage)

    @property
    def live_s(self) -> float:
        """How often Redis is updated with the open sessions."""
        return _seconds(self.live)

    @property
    def maintain_s(self) -> float | None:
        """How often the tables are maintained; None for never."""
        return None if self.maintain == "none" else _seconds(self.maintain)

    @property
    def reconcile_tiers_ms(self) -> list[int]:
        """How far back late events are merged."""
        return [parse_duration_ms(tier, name="stream.reconcile_tiers") for tier in self.reconcile_tiers]


def _seconds(text: str) -> float:
    return parse_duration_ms(text, name="duration") / 1000
