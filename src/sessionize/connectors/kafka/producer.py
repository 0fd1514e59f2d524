"""Generated events to a topic, keyed by user: as fast as they are taken, or in real time.

The generator decides what is written and when (connectors/generator/writer.py); here its lines become records.
"""

import io
import json
import re
import time
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from sessionize.connectors.generator import GeneratedTotals, GeneratorSettings, LateRecord, Timer, write_lines
from sessionize.connectors.kafka.client import (
    ClientLog,
    Settings,
    client_settings,
    create_client,
    denied,
    output_error,
    unavailable,
)
from sessionize.connectors.kafka.epoch_log import ensure_topics
from sessionize.connectors.kafka.registry import SchemaRegistry
from sessionize.errors import OutputError, UnavailableError
from sessionize.formats.avro import AvroWriter, schema_like

_USER = re.compile(rb'"(user-\d+)"')
_FIXED: Settings = {"enable.idempotence": True, "acks": "all"}
_FULL_WAIT_S = 0.02
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
        records = _Records(servers, topic, avro, dict(security or {}), timeout_s)
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


class _Records:
    """Takes lines as a file does, and sends each as a record."""

    def __init__(
        self, servers: str, topic: str, avro: AvroWriter | None, security: dict[str, Any], timeout_s: float
    ) -> None:
        self._servers, self._topic, self._avro, self._timeout_s = servers, topic, avro, timeout_s
        settings: Settings = {
            "linger.ms": 5,
            "compression.type": "lz4",
            "partitioner": "murmur2_random",  # as Java's clients do
            "delivery.report.only.error": True,
            "message.timeout.ms": int(1_000 * timeout_s),
            **security,
        }
        self._log = ClientLog()
        self._failure: KafkaError | None = None
        configuration = {**client_settings(servers, settings, _FIXED), "on_delivery": self._note}
        self._producer = create_client(Producer, configuration, self._log)

    def write(self, lines: memoryview) -> None:
        """Hand over whole lines. Errors: OutputError, UnavailableError for those handed over before."""
        for line in bytes(lines).split(b"\n")[:-1]:
            user = _USER.search(line)
            key = None if user is None else user[1]
            value = line if self._avro is None else self._in_avro(self._avro, line)
            try:
                self._producer.produce(self._topic, value, key)
            except BufferError:
                self._wait_for_room()
                self._producer.produce(self._topic, value, key)
            except KafkaException as error:
                raise output_error(self._servers, error.args[0], "a record") from None
        self.flush()

    def flush(self) -> None:
        """Look after what was sent; waits for nothing."""
        self._producer.poll(0)
        self._check()

    def finish(self) -> None:
        """Wait for everything that was handed over. Errors: OutputError, UnavailableError."""
        left = self._producer.flush(self._timeout_s + 1)
        self._check()
        if left:
            raise unavailable(self._servers, f"{left:,} records were not taken")

    def _in_avro(self, avro: AvroWriter, line: bytes) -> bytes:
        try:
            return avro.encode(json.loads(line))
        except (ValueError, TypeError, AttributeError, RecursionError):
            return line  # broken on purpose

    def _wait_for_room(self) -> None:
        until = time.monotonic() + self._timeout_s
        waiting = len(self._producer)
        while len(self._producer) > waiting // 2:
            self._producer.poll(_FULL_WAIT_S)
            self._check()
            if time.monotonic() > until:
                raise unavailable(self._servers, self._log.last or "records are not taken in time")

    def _check(self) -> None:
        if self._log.denied is not None:
            raise denied(self._servers, self._log.denied, OutputError)
        if self._failure is not None:
            raise output_error(self._servers, self._failure, f"a record of the topic {self._topic}")

    def _note(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None and self._failure is None:
            self._failure = error
