"""Generated events to a topic, keyed by user: as fast as they are taken, or in real time.

The generator decides what is written and when (connectors/generator/writer.py); connectors/kafka/record_writer.py sends
its lines as records. Importing this needs the extra `kafka`.
"""

import io
import json
import re
from collections.abc import Callable
from typing import BinaryIO, cast

from sessionize.connectors.generator import GeneratedTotals, GeneratorSettings, LateRecord, Timer, write_lines
from sessionize.connectors.kafka.client import Settings
from sessionize.connectors.kafka.epoch_log import ensure_topics
from sessionize.connectors.kafka.record_writer import RecordWriter
from sessionize.connectors.kafka.registry import SchemaRegistry
from sessionize.errors import UnavailableError
from sessionize.formats.avro import AvroWriter, schema_like

_USER = re.compile(rb'"(user-\d+)"')  # as every profile of the generator calls its users
_SCHEMA_EVENTS = 500
_HINT = "check that the server runs; produce has ended, and what the server took before stays in the topic"


def produce_events(
    settings: GeneratorSettings,
    servers: str,
    topic: str,
    *,
    avro: AvroWriter | None = None,
    security: Settings | None = None,
    realtime: bool = False,
    progress: Callable[[int], None] | None = None,
    on_late: Callable[[LateRecord], None] | None = None,
    timer: Timer | None = None,
    timeout_s: float = 30.0,
) -> GeneratedTotals:
    """Send the records of a run, and wait until the server has them all; a missing topic is made.

    avro: None writes JSON; broken records go out as they are in both. realtime, progress, on_late, timer: as in
    write_lines; Ctrl-C ends the run in good order. timeout_s: how long the server may take for a record.
    Errors: OutputError, UnavailableError when a record was not taken, ConfigError.
    """
    try:
        ensure_topics(servers, security or {}, (topic,), timeout_s=timeout_s)
        records = RecordWriter(
            servers, topic, key_of=_user_of, avro=avro, security=dict(security or {}), timeout_s=timeout_s
        )
        try:
            return write_lines(
                settings, cast(BinaryIO, records), realtime=realtime, progress=progress, on_late=on_late, timer=timer
            )
        finally:
            records.finish()
    except UnavailableError as error:  # nobody tries again, as a pipeline would
        raise UnavailableError(error.message, detail=error.detail, hint=_HINT) from None


def avro_writer(settings: GeneratorSettings, topic: str, *, registry: SchemaRegistry | None = None) -> AvroWriter:
    """Writes the profile's records with a schema of their own, which is registered when there is a registry.

    Errors: those of SchemaRegistry.
    """
    few = GeneratorSettings(profile=settings.profile, users=20, events=_SCHEMA_EVENTS)
    lines = io.BytesIO()
    write_lines(few, lines)
    schema = schema_like([json.loads(line) for line in lines.getvalue().splitlines()], name=settings.profile)
    number = None
    if registry is not None:
        number = registry.register(f"{topic}-value", schema)
    return AvroWriter(schema, number=number)


def _user_of(line: bytes) -> bytes | None:
    user = _USER.search(line)
    return None if user is None else user[1]
