"""Lines to a topic, each as a record of its own: what `produce` sends."""

import json
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from sessionize.connectors.kafka.client import ClientLog, Settings, client_settings, create_client
from sessionize.connectors.kafka.errors import denied, output_error, unavailable
from sessionize.errors import OutputError
from sessionize.formats.avro import AvroWriter

_FIXED: Settings = {"enable.idempotence": True, "acks": "all"}
_FULL_WAIT_S = 0.02


class RecordWriter:
    """Takes lines as a file does, and sends each as a record.

    key_of: the key of a line's record. avro: None sends the lines as they are. timeout_s: how long the server may take
    for a record.
    """

    def __init__(
        self,
        servers: str,
        topic: str,
        *,
        key_of: Callable[[bytes], bytes | None],
        avro: AvroWriter | None,
        security: dict[str, Any],
        timeout_s: float,
    ) -> None:
        self._servers, self._topic, self._avro, self._timeout_s = servers, topic, avro, timeout_s
        self._key_of = key_of
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
            key = self._key_of(line)
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
