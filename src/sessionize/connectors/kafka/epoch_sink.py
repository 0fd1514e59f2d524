"""Topics as an EpochSink (ports/): one transaction for each epoch, with the epoch's own note in it.

The transactional id is the writer's, so whoever opens it shuts out an older process that still thinks it writes.
After any failure the producer is thrown away: opening it again ends what was begun, and the log of epochs tells whether
that was written.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from sessionize.connectors.kafka.client import ClientLog, Settings, client_settings, create_client
from sessionize.connectors.kafka.epoch_log import WrittenEpoch, ensure_topics, last_written
from sessionize.connectors.kafka.errors import denied, output_error, unavailable
from sessionize.connectors.kafka.message_size import (
    SentRow,
    TooLargeError,
    message_bytes_max,
    too_large,
    too_large_to_send,
)
from sessionize.connectors.kafka.oversized import CLIENT_BYTES_MAX, Fitting, Oversized, Unfit
from sessionize.connectors.kafka.topic_id import topic_ids
from sessionize.errors import ConfigError, InputError, OutputError, SessionizeError
from sessionize.formats.json_rows import json_rows
from sessionize.formats.sizes import in_pieces
from sessionize.ports import EpochId, EpochOutput
from sessionize.retry_pauses import cancelled
from sessionize.session.output_tables import OUTPUT_TABLES, Destination, Destinations, TableSpec

_LOG = logging.getLogger("sessionize.output.kafka")
_LOG.addHandler(logging.NullHandler())
_PIECE_ROWS = 50_000
_FULL_WAIT_S = 0.05
_SENT_WAIT_S = 0.005
_CAUSE_WAIT_S = 2.0
_TRIES_MAX = 20
_PURGED = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})  # for what happened to another record
_FENCED = frozenset({KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED})


class KafkaEpochSink:
    """Writes output tables to topics, each row as a JSON object, keyed by the message key of its table.

    Topics that are missing are made with the server's defaults.
    """

    def __init__(
        self,
        servers: str,
        destinations: Mapping[str, str],
        *,
        writer: str,
        user_name: str,
        specs: tuple[TableSpec, ...] = OUTPUT_TABLES,
        epochs_topic: str | None = None,
        security: Settings | None = None,
        timeout_s: float = 30.0,
        transaction_timeout_s: float = 300.0,
        oversized: Oversized = "shorten",
        on_unfit: Callable[[Unfit], None] = lambda unfit: None,
    ) -> None:
        """destinations: output table -> topic. writer: the only name that epochs may come under. user_name: the user's
        column in the rows. specs: the tables that an output may have.

        epochs_topic: "<topic>.epochs" by default, of the last table by the order of the specs.
        timeout_s: how long the server may take for one call.
        transaction_timeout_s: how long an epoch may take. oversized: what becomes of rows that are larger than their
        topic takes (oversized.py); "stop": an error. on_unfit: gets them once their epoch is written. Errors:
        UnavailableError, OutputError, ConfigError.
        """
        self._servers, self._writer = servers, writer
        self._to = Destinations(destinations, specs, user_name)
        if not len(self._to):
            raise ConfigError(
                "no Kafka topic is given to write to",
                hint=f"name at least one: {', '.join(spec.name for spec in reversed(specs))}",
            )
        self._topics = tuple(dict.fromkeys(reversed([each.to for each in self._to])))
        self._epochs_topic = epochs_topic or f"{self._topics[0]}.epochs"
        self._security = dict(security or {})
        self._timeout_s = timeout_s
        self._fixed: Settings = {
            "transactional.id": f"sessionize-{writer}",
            "enable.idempotence": True,
            "acks": "all",
            "transaction.timeout.ms": int(1_000 * transaction_timeout_s),
        }
        self._log = ClientLog()
        self._producer: Producer | None = None
        self._written: WrittenEpoch | None = None
        self._shut_out: OutputError | None = None
        self._failure: tuple[KafkaError, Message] | None = None
        self._topic_ids: dict[str, str] = {}
        self._warned: set[tuple[str, str]] = set()
        ensure_topics(servers, self._security, self._topics, epochs_topic=self._epochs_topic, timeout_s=timeout_s)
        self._fitting = Fitting(
            stops=oversized == "stop",
            security=self._security,
            ask=lambda: message_bytes_max(servers, self._security, self._topics),
        )
        self._on_unfit = on_unfit
        self._open()

    @property
    def known_tables(self) -> frozenset[str]:
        """The tables whose specs it was given."""
        return self._to.names

    def write_epoch(self, epoch: EpochId, output: EpochOutput) -> None:
        """As EpochSink says."""
        given = self._to.rows(output.tables)
        for left in range(_TRIES_MAX, 0, -1):
            producer = self._opened(epoch.writer)
            if self._has(epoch):
                return
            try:
                self._write(producer, epoch, given)
                break
            except TooLargeError as error:
                if not (left > 1 and self._fitting.learned(error.row)):
                    raise
        for unfit in self._fitting.unfit():
            self._on_unfit(unfit)

    def _write(self, producer: Producer, epoch: EpochId, given: Sequence[tuple[Destination, pa.Table]]) -> None:
        written = WrittenEpoch(epoch.number, epoch.plan, self._topic_ids)
        self._fitting.begin()
        try:
            producer.begin_transaction()
            for to, rows in given:
                for piece in in_pieces(rows, rows_max=_PIECE_ROWS):
                    self._send(producer, to, piece)
            self._produce(producer, self._epochs_topic, self._writer, written.note())
            self._wait_until_sent(producer)
            producer.commit_transaction(self._timeout_s)
        except KafkaException as error:
            raise self._failed(error.args[0], epoch) from None
        except BaseException:
            self._discard_producer()
            raise
        self._written = written

    def last_epoch(self, writer: str) -> int:
        """As EpochSink says. Errors: those of write_epoch."""
        self._opened(writer)
        return 0 if self._written is None else self._written.number

    def close(self) -> None:
        """Release everything."""
        self._discard_producer()

    def _has(self, epoch: EpochId) -> bool:
        """Whether the epoch is written already. Errors: StateError when that was by another plan."""
        last = self._written
        known = None if last is None else EpochId(self._writer, last.number, last.plan)
        return epoch.is_known(known, where=f"noted in {self._epochs_topic}")

    def _opened(self, writer: str) -> Producer:
        """The producer for this writer's epochs."""
        if writer != self._writer:
            raise ConfigError("an epoch comes under another name", detail=f"{writer!r}, not {self._writer!r}")
        if self._shut_out is not None:
            raise self._shut_out
        return self._producer or self._open()

    def _open(self) -> Producer:
        """A producer that has shut out others of this name, after ending what they had begun."""
        settings: Settings = {
            "message.max.bytes": CLIENT_BYTES_MAX,
            "batch.size": self._fitting.batch_bytes_max,
            "linger.ms": 5,
            "compression.type": "lz4",
            "partitioner": "murmur2_random",  # as Java's clients do
            "delivery.report.only.error": True,
            **self._security,
        }
        log = ClientLog()
        producer = create_client(
            Producer, {**client_settings(self._servers, settings, self._fixed), "on_delivery": self._note}, log
        )
        try:
            for _ in range(2):  # connects, first to any server, then to one that it named; else it waits half a second
                with contextlib.suppress(KafkaException):
                    producer.list_topics(self._epochs_topic, timeout=min(self._timeout_s, 1.0))
            producer.init_transactions(self._timeout_s)
        except KafkaException as error:
            if log.denied is not None:
                raise denied(self._servers, log.denied, OutputError) from None
            raise output_error(self._servers, error.args[0], "the first transaction") from None
        self._written = last_written(
            self._servers, self._security, self._epochs_topic, self._writer, timeout_s=self._timeout_s
        )
        self._failure = None
        self._look_for_recreated_topics()
        self._producer, self._log = producer, log
        return producer

    def _look_for_recreated_topics(self) -> None:
        """One of the same name may have been deleted and created again since the last epoch: its readers should know
        that it begins in the middle.
        """
        try:
            self._topic_ids = topic_ids(
                self._servers, self._topics, self._security, timeout_s=min(self._timeout_s, 10.0)
            )
        except InputError:  # who may write to a topic need not have the right to ask for its id
            self._topic_ids = {}
        if self._written is None:
            return
        for topic, known in self._written.topics.items():
            now = self._topic_ids.get(topic)
            if now is not None and now != known and (topic, now) not in self._warned:
                self._warned.add((topic, now))
                _LOG.warning(
                    "the topic %s was deleted and created again: it has no rows of the epochs up to %d",
                    topic,
                    self._written.number,
                )

    def _send(self, producer: Producer, to: Destination, rows: pa.Table) -> None:
        key_column = to.spec.message_key
        keys = rows[key_column].cast(pa.string()).to_pylist() if key_column is not None else [None] * rows.num_rows
        for key, row in zip(keys, json_rows(rows, opaque=to.spec.opaque), strict=True):
            value = self._fitting.fitted(to.spec, to.to, key or "", row)
            if value is not None:
                self._produce(producer, to.to, key, value)
        producer.poll(0)

    def _produce(self, producer: Producer, topic: str, key: str | None, value: bytes) -> None:
        try:
            producer.produce(topic, value, key)
        except BufferError:
            self._wait_for_room(producer)
            producer.produce(topic, value, key)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                raise
            limit_bytes = self._fitting.client_bytes_max
            raise too_large_to_send(SentRow.of(topic, (key or "").encode(), value), limit_bytes) from None

    def _wait_for_room(self, producer: Producer) -> None:
        """Until half of what waits in the client is with the server, so that waiting is rare."""
        waiting = len(producer)
        until = time.monotonic() + self._timeout_s
        while len(producer) > waiting // 2 and self._failure is None:
            producer.poll(_FULL_WAIT_S)
            if time.monotonic() > until or cancelled():
                raise unavailable(self._servers, self._log.last or "records are not taken in time")

    def _wait_until_sent(self, producer: Producer) -> None:
        """Until the server has everything. A commit would do that too, but not report records that are refused, and
        wait for them in vain. Errors: KafkaException.
        """
        until = time.monotonic() + self._timeout_s
        while len(producer) and self._failure is None and time.monotonic() < until:
            producer.poll(_SENT_WAIT_S)  # not flush(), which goes on after a fatal error
            if cancelled():
                raise unavailable(self._servers, "the run has ended before all records were sent")
        if self._failure is not None:
            raise KafkaException(self._failure[0])

    def _note(self, error: KafkaError | None, message: Message) -> None:
        """Called for each record that was not delivered."""
        if error is not None and (self._failure is None or self._failure[0].code() in _PURGED):
            self._failure = (error, message)

    def _failed(self, error: KafkaError, epoch: EpochId) -> SessionizeError:
        self._delivery_error()
        failure, refused = self._failure, self._log.denied
        self._discard_producer()
        if error.code() in _FENCED or (failure is not None and failure[0].code() in _FENCED):
            self._shut_out = OutputError(
                "another process writes to Kafka under this name",
                detail=f"writer {self._writer!r}, at epoch {epoch.number}",
                hint="let only one process run with this name and these partitions",
            )
            return self._shut_out
        if refused is not None:
            return denied(self._servers, refused, OutputError)
        if failure is not None and failure[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:
            row = SentRow.of_message(failure[1])
            return too_large(row, self._fitting.limit(row.topic))
        if failure is not None:
            row = SentRow.of_message(failure[1])
            return output_error(self._servers, failure[0], f"epoch {epoch.number} ({row})")
        return output_error(self._servers, error, f"epoch {epoch.number}")

    def _delivery_error(self) -> None:
        """One failure takes all records along; theirs may be reported first, or none before the call failed."""
        until = time.monotonic() + _CAUSE_WAIT_S
        while self._producer is not None and len(self._producer) and time.monotonic() < until:
            if self._failure is not None and self._failure[0].code() not in _PURGED:
                return
            self._producer.poll(_SENT_WAIT_S)

    def _discard_producer(self) -> None:
        """Abort what is open, as far as the server can be reached; opening again does the rest."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        with contextlib.suppress(KafkaException):
            producer.purge()
            producer.abort_transaction(min(self._timeout_s, 5.0))
