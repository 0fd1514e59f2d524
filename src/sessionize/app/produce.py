"""Made-up events to where people want them: the wiring of `produce`."""

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sessionize.app.extras import requires_extra
from sessionize.app.streams.avro_input import client_settings, registry_options
from sessionize.connectors.generator import (
    GeneratedTotals,
    GeneratorSettings,
    LateRecord,
    Timer,
    open_output,
    sample,
    write_lines,
)
from sessionize.connectors.local_paths import check_local
from sessionize.errors import ConfigError, OutputError

__all__ = ["GeneratedTotals", "KafkaTarget", "produce", "sample", "settings_of"]


def settings_of(*, start_ms: int | None, **values: Any) -> GeneratorSettings:
    """Generator settings; without a start they begin where the generator's own default says. Errors: ConfigError."""
    return GeneratorSettings(**values) if start_ms is None else GeneratorSettings(start_ms=start_ms, **values)


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaTarget:
    """A topic to write to. record_format: json or avro.

    Avro takes the profile's own schema; it is written to schema_file or registered, so that readers know it. The user
    and password of servers and registry are in settings_file, a line `name=value` for each of librdkafka's settings,
    and schema.registry.basic.auth.user.info=user:password, schema.registry.ssl.ca.location=PATH.
    """

    servers: str
    topic: str
    record_format: str = "json"
    schema_file: Path | None = None
    registry_url: str | None = None
    settings_file: Path | None = None

    @classmethod
    def of(cls, *, servers: str | None, topic: str | None, record_format: str, **places: Any) -> "KafkaTarget | None":
        """What the options say; None when they say nothing of Kafka. Errors: ConfigError when they are not enough."""
        if servers is None and topic is None and record_format == "json" and not any(places.values()):
            return None
        if servers is None or topic is None:
            raise ConfigError(
                "the Kafka options are incomplete",
                detail=f"servers: {servers or 'missing'}, topic: {topic or 'missing'}",
                hint="--kafka-servers host:port --topic NAME",
            )
        if "@" in servers:
            raise ConfigError(
                "the address of the Kafka servers contains a user or password",
                detail="--kafka-servers (not shown)",
                hint="write sasl.username and sasl.password into the file of --kafka-settings",
            )
        target = cls(servers=servers, topic=topic, record_format=record_format, **places)
        if record_format not in ("json", "avro"):
            raise ConfigError("unknown record format", detail=f"{record_format!r}", hint="json or avro")
        if (record_format == "avro") != (target.schema_file is not None or target.registry_url is not None):
            raise ConfigError(
                "Avro, and only Avro, needs a schema file or registry",
                detail=f"format {record_format}",
                hint="name a schema file to write, or the address of a schema registry",
            )
        return target


def produce(
    settings: GeneratorSettings,
    output: Path | None,
    *,
    kafka: KafkaTarget | None = None,
    realtime: bool = False,
    dated_now: bool = False,
    progress: Callable[[int], None] | None = None,
    on_late: Callable[[str, int], None] | None = None,
) -> GeneratedTotals:
    """Write the records to a file, to stdout or to Kafka. Other than in real time a file appears when it is whole.

    realtime: each record when it is due. dated_now: in real time, the first one is dated by the moment it is written.
    on_late: gets the user of a late event, and how many ms it is late. Errors: ConfigError, OutputError,
    UnavailableError, MissingExtraError.
    """

    def late(record: LateRecord) -> None:
        if on_late is not None:
            on_late(record.user, record.arrival_ms - record.time_ms)

    report_late = None if on_late is None else late
    timer = Timer(wall_ms=(lambda: time.time_ns() // 1_000_000) if dated_now else None)
    if kafka is not None:
        if output is not None:
            raise ConfigError("records go to a file or to Kafka, not both", detail=f"{output}, {kafka.topic}")
        return _to_kafka(settings, kafka, realtime=realtime, progress=progress, on_late=report_late, timer=timer)
    if output is not None:
        check_local(output, name="-o")
    if output is not None and output.suffix.lower() in (".csv", ".tsv", ".parquet", ".avro"):
        raise ConfigError(
            "the generator writes JSON lines", detail=str(output), hint="end the name in .ndjson or .ndjson.gz"
        )
    target = nullcontext(sys.stdout.buffer) if output is None else open_output(output, whole=not realtime)
    with target as out:
        return write_lines(settings, out, realtime=realtime, progress=progress, on_late=report_late, timer=timer)


def _to_kafka(
    settings: GeneratorSettings,
    kafka: KafkaTarget,
    *,
    realtime: bool,
    progress: Callable[[int], None] | None,
    on_late: Callable[[LateRecord], None] | None,
    timer: Timer,
) -> GeneratedTotals:
    with requires_extra("kafka", "writing to Kafka"):
        from sessionize.app.produce_topic import avro_writer, produce_events
        from sessionize.connectors.kafka.registry import SchemaRegistry
    security = {} if kafka.settings_file is None else _client_settings(kafka.settings_file)
    avro = None
    if kafka.record_format == "avro":
        registry = (
            None if kafka.registry_url is None else SchemaRegistry(kafka.registry_url, **registry_options(security))
        )
        avro = avro_writer(settings, kafka.topic, registry=registry)
        if kafka.schema_file is not None:
            try:
                kafka.schema_file.write_text(f"{avro.text}\n", encoding="utf-8")
            except OSError as error:
                raise OutputError(
                    "the Avro schema file cannot be written", detail=f"{kafka.schema_file}: {error.strerror}"
                ) from None
    return produce_events(
        settings,
        kafka.servers,
        kafka.topic,
        avro=avro,
        security=client_settings(security),
        realtime=realtime,
        progress=progress,
        on_late=on_late,
        timer=timer,
    )


def _client_settings(path: Path) -> dict[str, str]:
    """Lines of name=value; empty ones and those that begin with # count for nothing. Errors: ConfigError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the Kafka settings file cannot be read", detail=f"{path}: {error}") from None
    settings: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        name, equals, value = line.strip().partition("=")
        if not name or name.startswith("#"):
            continue
        if not equals:
            raise ConfigError("the Kafka settings file has a line without =", detail=f"{path}, line {number}")
        settings[name.strip()] = value.strip()
    return settings
