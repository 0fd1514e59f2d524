"""A topic as a StreamSource (ports/): static partition assignment, with offsets only in our checkpoints.

Nothing is committed to a consumer group, and there is no rebalancing. Records of aborted transactions are skipped. A
partition is named topic[partition]; its position is the offset after the last record read, which may be after a gap.
"""

import logging
import time
from collections.abc import Collection, Iterator
from typing import Literal

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from sessionize.connectors.kafka.client import (
    READING,
    READING_FAST,
    ClientLog,
    Settings,
    client_settings,
    create_client,
    partition_offsets,
    topic_partitions,
)
from sessionize.connectors.kafka.end_offsets import EndOffsets, expired, truncated
from sessionize.connectors.kafka.errors import AUTH_ERRORS, UNKNOWN_ERRORS, denied, unavailable
from sessionize.connectors.kafka.fetch import Fetched, fetch
from sessionize.connectors.kafka.partitions import check_instance, check_partitions, parse_partitions, share
from sessionize.connectors.kafka.stall_detector import DAMAGED, StallDetector
from sessionize.errors import ConfigError, InputError, SessionizeError, UnavailableError
from sessionize.formats.dialects import Dialect
from sessionize.formats.records import JsonRecords, RecordDecoder
from sessionize.ports import Positions, Ranges, StreamBatch

_BATCH_RECORDS = 50_000
_BATCH_BYTES = 64 << 20
_PROBE_EVERY_S = 1.0
_PROBE_QUIET_EVERY_S = 5.0  # while no records come, to distinguish idle servers from unavailable ones
_REPORT_AFTER_S = 3.0  # servers that do not answer are reported after this, which is longer than a quick restart
_LOG = logging.getLogger("sessionize.input.kafka")


class KafkaSource:
    """Reads a topic, or this process's share of it."""

    def __init__(
        self,
        servers: str,
        topic: str,
        dialect: Dialect,
        *,
        decoder: RecordDecoder | None = None,
        columns: frozenset[str] | None = None,
        extras: bool = False,
        partitions: str | None = None,
        instance: tuple[int, int] | None = None,
        security: Settings | None = None,
        max_future_ms: int | None = None,
        start: Literal["earliest", "latest"] = "earliest",
        bounded: bool = False,
        on_expired: Literal["fail", "earliest"] = "fail",
        refresh_s: float = 30.0,
        unavailable_after_s: float = 30.0,
        batch_records: int = _BATCH_RECORDS,
        batch_bytes: int = _BATCH_BYTES,
    ) -> None:
        """servers: host:port, several joined by commas. decoder: None for JSON of the dialect with columns and extras.

        partitions: "0-3,7", None for all. instance: (i, n), reads each partition p with p % n == i. security: settings
        of librdkafka. max_future_ms: reject events later than now plus this. start: where a first run begins;
        partitions that appear later are read from their beginning. bounded: read only the records and partitions that
        exist now. on_expired: what to do if the next records have expired. refresh_s: the interval between checks for
        new partitions. unavailable_after_s: how long opening waits for a server, and a repeated read for records; poll
        and read report unavailable servers after a few seconds, or after this time if it is shorter. batch_records:
        the maximum of a poll; batch_bytes: the approximate maximum of its values.
        Errors: ConfigError, InputError for a missing topic, partition or permission, UnavailableError.
        """
        self._servers, self._topic = servers, topic
        self._decoder = decoder or JsonRecords(dialect, columns=columns, extras=extras)
        self._user_name = dialect.user_name
        self._wanted = None if partitions is None else parse_partitions(partitions)
        self._instance = instance or (0, 1)
        check_instance(self._instance)
        self._max_future_ms = max_future_ms
        self._on_expired = on_expired
        self._refresh_s, self._unavailable_after_s = refresh_s, unavailable_after_s
        self._batch_records, self._batch_bytes = batch_records, batch_bytes
        self._log = ClientLog()
        settings = {**READING_FAST, "group.id": f"sessionize-{topic}", **(security or {})}
        self._consumer = create_client(Consumer, client_settings(servers, settings, READING), self._log)
        self._positions: dict[int, int] = {}
        self._at_end: set[int] = set()
        self._mine: frozenset[int] = frozenset()
        self._assigned = self._reads = False  # _reads: the client has records to return
        self._stalls = StallDetector()
        self._skipped: dict[str, int] = {}
        self._latest: dict[int, int] = {}  # where a first run begins, reported to the engine with the first poll
        self._requested_s = self._received_s = time.monotonic()  # last request and last records
        try:
            self._mine = self._find_partitions(unavailable_after_s)
            there = {p: self._partition_offsets(p) for p in self._mine} if bounded or start == "latest" else {}
            self._bounds = EndOffsets(there if bounded else {})
            if start == "latest":
                self._latest = {p: end for p, (_, end) in there.items()}
        except BaseException:
            self._consumer.close()
            raise

    @property
    def event_columns(self) -> frozenset[str]:
        """The canonical columns of the events."""
        return frozenset(self._decoder.columns)

    @property
    def user_name(self) -> str:
        """The records' name of the user column."""
        return self._user_name

    @property
    def lost(self) -> dict[str, int]:
        """Skipped offsets of expired records, by partition; only with on_expired = earliest."""
        return dict(self._skipped)

    def partitions(self) -> frozenset[str]:
        """The partitions that are read, as known now."""
        return frozenset(map(self._split, self._mine))

    def seek(self, positions: Positions) -> None:
        """Continue at these offsets. Errors: ConfigError for a partition that is not read here, InputError."""
        self._positions = {self._partition(split): offset for split, offset in positions.items()}
        if positions:
            self._latest = {}
        self._bounds.check(self._positions, self._split)
        self._assign()

    def poll(self, *, timeout_s: float, now_ms: int) -> list[StreamBatch]:
        """New records, at most batch_records; may return early with nothing at the end of a partition. Errors:
        UnavailableError from every call while the servers are unavailable, after all fetched records; InputError.
        """
        if not self._assigned:
            self._assign()
        if self._latest:
            return self._begin_at_latest()
        before = self._bounds.reached(self._positions)
        if self._bounds.there and before >= self._mine:
            return []
        self._check_servers()
        self._stalls.check()
        began_s = time.monotonic()
        batches = self._batches(timeout_s, self._latest_ms(now_ms), self._bounds.ends)
        reached = self._bounds.reached(self._positions)
        self._pause(reached - before)
        lagging = frozenset(map(self._split, self._mine - self._at_end - reached))
        received = {batch.partition for batch in batches}
        if self._stalls.is_stalled(lagging, received, time.monotonic() - began_s):
            self._assigned = False  # the next poll fetches again, so that the records of this one are not lost
        return batches

    def read(self, ranges: Ranges, *, now_ms: int) -> Iterator[StreamBatch]:
        """The records of these ranges again, without expired ones if on_expired allows that.

        Errors: InputError if some have expired, UnavailableError. If it ends early, by an error or because the caller
        stops, the positions are unchanged.
        """
        ends = {self._partition(split): end for split, (_, end) in ranges.items()}
        before = self._positions
        try:
            yield from self._read(ranges, ends, now_ms)
        except BaseException:
            self._positions, self._assigned = before, False
            raise
        self._positions, self._latest = before | ends, {}
        self._assign()

    def _read(self, ranges: Ranges, ends: dict[int, int], now_ms: int) -> Iterator[StreamBatch]:
        starts = {self._partition(split): start for split, (start, _) in ranges.items()}
        self._positions = {p: start for p, start in starts.items() if start < ends[p]}
        self._assign(frozenset(self._positions))
        missing = set(self._positions)
        came_s = time.monotonic()
        while missing:
            self._check_servers()
            moved_from = dict(self._positions)
            yield from self._batches(1.0, self._latest_ms(now_ms), ends)
            if self._positions != moved_from:
                came_s = time.monotonic()
            elif time.monotonic() - came_s > self._unavailable_after_s:
                raise self._unread_error(missing, ends)
            done = {p for p in missing if self._positions[p] >= ends[p]}
            missing -= done
            self._pause(done)

    def caught_up(self) -> frozenset[str]:
        """Partitions that were read to their end; none while the server is unavailable."""
        if self._bounds.there:
            return frozenset(map(self._split, self._bounds.reached(self._positions)))
        if self._log.down_since_s is not None:
            return frozenset()
        return frozenset(map(self._split, self._at_end))

    def lag(self) -> int | None:
        """The number of unread offsets; None if unknown, for example while the servers do not answer."""
        if self._bounds.there:
            return self._bounds.left(self._positions)
        if self._log.down_since_s is not None:
            return None
        total = 0
        for p in self._mine - self._at_end:
            if p not in self._positions:
                return None
            _, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic, p), cached=True)
            if high < 0:
                return None
            total += max(0, high - self._positions[p])
        return total

    def close(self) -> None:
        """Close the client."""
        self._consumer.close()

    # ---- partitions ----

    def _split(self, partition: int) -> str:
        return f"{self._topic}[{partition}]"

    def _partition(self, split: str) -> int:
        for p in self._mine:
            if self._split(p) == split:
                return p
        raise ConfigError(
            "the saved position belongs to a partition that is not read here",
            detail=f"{split}; read here: {', '.join(sorted(self.partitions())) or 'none'}",
            hint="use the topic, partitions and number of instances that the run was started with",
        )

    def _find_partitions(self, timeout_s: float) -> frozenset[int]:
        there = topic_partitions(
            self._consumer, self._log, self._servers, self._topic, timeout_s=timeout_s, reports=not self._reads
        )
        check_partitions(self._topic, there, self._wanted)
        return share(there, self._wanted, self._instance)

    def _assign(self, only: frozenset[int] | None = None) -> None:
        """Start fetching at our positions; records buffered in the client are dropped."""
        self._at_end = set()
        self._assigned, self._reads = False, True
        partitions = [
            TopicPartition(self._topic, p, self._positions.get(p, OFFSET_BEGINNING))
            for p in sorted(self._mine - self._bounds.reached(self._positions) if only is None else only)
        ]
        # a pause outlives an assignment; a partition resumed while the client assigns may stay paused
        self._consumer.resume(self._consumer.assignment())
        self._consumer.assign(partitions)
        self._assigned = only is None

    def _pause(self, partitions: Collection[int]) -> None:
        """Stop fetching these; records buffered in the client may still be returned."""
        if partitions:
            self._consumer.pause([TopicPartition(self._topic, p) for p in partitions])

    def _begin_at_latest(self) -> list[StreamBatch]:
        """Empty batches that record where reading begins, for the checkpoint."""
        self._positions |= {p: offset for p, offset in self._latest.items() if p not in self._positions}
        self._assign()
        self._latest = {}  # only now: after a failure it is repeated from the same offsets
        return [self._batch(p, Fetched(), (offset, offset), None) for p, offset in sorted(self._positions.items())]

    def _partition_offsets(self, partition: int) -> tuple[int, int]:
        return partition_offsets(self._consumer, self._servers, TopicPartition(self._topic, partition))

    # ---- servers ----

    def _check_servers(self) -> None:
        """Check periodically for new partitions, and whether unavailable servers are available again."""
        if self._log.denied is not None:
            error, self._log.denied = self._log.denied, None
            raise denied(self._servers, error, InputError)
        down = self._log.down_since_s is not None
        quiet = time.monotonic() - self._received_s > _PROBE_QUIET_EVERY_S
        every_s = min(_PROBE_EVERY_S if down else _PROBE_QUIET_EVERY_S if quiet else self._refresh_s, self._refresh_s)
        if time.monotonic() - self._requested_s < every_s:
            return
        self._requested_s = time.monotonic()
        try:
            mine = self._find_partitions(_PROBE_EVERY_S)
        except UnavailableError:
            self._log.down()
            return
        if self._bounds.there:
            mine &= self._mine  # new partitions are for the next run
        # Also after an outage: the client then reports again which ends are reached.
        if down or not mine <= self._mine:
            self._mine |= mine
            if self._assigned:
                self._assign()

    def _raise_if_unavailable(self) -> None:
        """Raise if servers neither answer nor send for a while (a restarted one may send first)."""
        if min(self._log.down_s, time.monotonic() - self._received_s) > min(_REPORT_AFTER_S, self._unavailable_after_s):
            raise unavailable(self._servers, self._log.last)

    # ---- records ----

    def _latest_ms(self, now_ms: int) -> int | None:
        return None if self._max_future_ms is None else now_ms + self._max_future_ms

    def _batches(
        self, timeout_s: float, latest_ms: int | None, ends: dict[int, int] | None = None
    ) -> list[StreamBatch]:
        """By partition, in the order of offsets; only records below ends. An error leaves the positions unchanged."""
        before = dict(self._positions)
        try:
            parts = fetch(self._consumer, self._batch_records, self._batch_bytes, timeout_s)
            self._received_s = time.monotonic() if parts else self._received_s
            for p, part in parts.items():
                for error in part.errors:
                    self._handle_error(p, error, (ends or {}).get(p))
            batches = [self._batch_of(p, part, latest_ms, (ends or {}).get(p)) for p, part in sorted(parts.items())]
        except BaseException:
            self._positions = before
            self._assigned = False  # the records returned by the client are fetched again
            raise
        if not parts:
            self._raise_if_unavailable()
        return [batch for batch in batches if batch is not None]

    def _batch_of(self, p: int, part: Fetched, latest_ms: int | None, end: int | None) -> StreamBatch | None:
        if part.end is None:
            self._at_end.discard(p)
        else:
            self._at_end.add(p)
            self._check_bound(p, part.end)
        position = self._positions.get(p)
        if position is not None:
            part = part.from_offset(position)  # some records may have been fetched before a seek
        after = part.after
        if end is not None and after is not None:
            part, after = part.below(end), min(after, end)
        if after is None:  # only errors
            return None
        start = position if position is not None else part.offsets[0] if part.offsets else after
        self._positions[p] = max(start, after)
        return self._batch(p, part, (start, after), latest_ms) if after > start else None

    def _batch(self, p: int, part: Fetched, covered: tuple[int, int], latest_ms: int | None) -> StreamBatch:
        split = self._split(p)
        numbers = np.array(part.offsets, np.int64)
        decoded = self._decoder.decode(part.values, numbers, source=split, latest_ms=latest_ms)
        return StreamBatch(
            split, {split: covered}, decoded.events, decoded.rejected, {}, decoded.nulled, decoded.local_times
        )

    # ---- errors ----

    def _handle_error(self, p: int, error: KafkaError, bound: int | None) -> None:
        """Handle an error received in place of a record. Errors: InputError, unless reading can continue."""
        code = error.code()
        if code == KafkaError._AUTO_OFFSET_RESET:
            self._handle_out_of_range(p, bound)
        elif code in AUTH_ERRORS:
            raise denied(self._servers, error, InputError)
        elif code in UNKNOWN_ERRORS:
            raise InputError("the Kafka topic is missing", detail=f"{self._split(p)} on {self._servers}: {error.str()}")
        elif error.fatal():
            raise InputError("reading from Kafka has failed", detail=f"{self._split(p)}: {error.str()}")
        else:
            self._log.note(error)
            if code in DAMAGED:
                self._stalls.damaged(self._split(p), error.str())

    def _handle_out_of_range(self, p: int, bound: int | None) -> None:
        """Handle a position outside of the available records."""
        first, end = self._partition_offsets(p)
        wanted = self._positions.get(p)
        if wanted is None or first <= wanted <= end:
            self._assign(None if self._assigned else frozenset(self._positions))
            return
        if bound is not None and wanted >= bound:  # its range is complete
            return
        if wanted > end:
            raise truncated(self._split(p), wanted)
        if self._on_expired == "fail":
            raise expired(self._split(p), wanted, first)
        split, self._positions[p] = self._split(p), first if bound is None else min(first, bound)
        self._skipped[split] = self._skipped.get(split, 0) + self._positions[p] - wanted
        _LOG.warning("%s: records from offset %d to before %d have expired", split, wanted, self._positions[p])
        self._assign(None if self._assigned else frozenset(self._positions))

    def _unread_error(self, missing: set[int], ends: dict[int, int]) -> SessionizeError:
        """The error for ranges that deliver nothing more before their end. Errors: those of StallDetector.check."""
        for p in missing & self._at_end:
            return truncated(self._split(p), ends[p])
        self._stalls.check(set(map(self._split, missing)))
        return unavailable(self._servers, self._log.last or "no records come")

    def _check_bound(self, p: int, end: int) -> None:
        """Check an end found now: the partition must not have been longer when the run began."""
        if end < (bound := self._bounds.ends.get(p, 0)) and self._partition_offsets(p)[1] < bound:
            raise truncated(self._split(p), bound)
