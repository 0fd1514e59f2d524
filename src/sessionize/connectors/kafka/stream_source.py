"""A topic as a StreamSource (ports.py): partitions are assigned by hand, and offsets live in our checkpoints alone.

Nothing is committed to a consumer group, and none rebalances. What a transaction has aborted is never seen. A place is
called topic[partition]; its position is the offset after the last record read, which may lie beyond a gap.
"""

import logging
import time
from collections.abc import Collection, Iterator
from typing import Literal

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from sessionize.connectors.kafka.client import (
    AUTH_ERRORS,
    READING,
    READING_FAST,
    UNKNOWN_ERRORS,
    Log,
    Settings,
    client_settings,
    denied,
    made,
    offsets_there,
    topic_partitions,
    unavailable,
)
from sessionize.connectors.kafka.end_offsets import Bounds, expired, truncated
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
_PROBE_QUIET_EVERY_S = 5.0  # while nothing comes: silence says something only of servers that answer
_TELL_AFTER_S = 3.0  # how long nothing came from servers that do not answer before it is told; a restart may be shorter
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
        of librdkafka. max_future_ms: an event later than the present by more is rejected. start: where a first run
        begins; partitions that appear later are read from their beginning. bounded: read only what is there now, in
        the partitions there are now, however much comes. on_expired: what to do when the records to go on from are
        gone. refresh_s: how often new partitions are looked for. unavailable_after_s: how long opening waits for a
        server, and reading again for records; of servers known to be away poll and read tell after a few seconds, or
        after this time when it is shorter. batch_records: the most that a poll gives; batch_bytes: of values, about.
        Errors: ConfigError, InputError for a topic, partition or access that is not there, UnavailableError.
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
        self._log = Log()
        settings = {**READING_FAST, "group.id": f"sessionize-{topic}", **(security or {})}
        self._consumer = made(Consumer, client_settings(servers, settings, READING), self._log)
        self._positions: dict[int, int] = {}
        self._at_end: set[int] = set()
        self._mine: frozenset[int] = frozenset()
        self._assigned = self._reads = False  # _reads: the client has records to hand out
        self._silences = StallDetector()
        self._skipped: dict[str, int] = {}
        self._latest: dict[int, int] = {}  # where a first run begins, told to the engine with the first poll
        self._asked_s = self._heard_s = time.monotonic()  # when we last asked for the partitions, and last got records
        try:
            self._mine = self._find_partitions(unavailable_after_s)
            there = {p: self._offsets_there(p) for p in self._mine} if bounded or start == "latest" else {}
            self._bounds = Bounds(there if bounded else {})
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
        """As the records call the user."""
        return self._user_name

    @property
    def lost(self) -> dict[str, int]:
        """Offsets that were passed over because their records are gone, by place; only with on_expired = earliest."""
        return dict(self._skipped)

    def partitions(self) -> frozenset[str]:
        """The places that are read, as known now."""
        return frozenset(map(self._place, self._mine))

    def seek(self, positions: Positions) -> None:
        """Go on from these offsets. Errors: ConfigError for a place that is not read here, InputError."""
        self._positions = {self._partition(place): offset for place, offset in positions.items()}
        if positions:
            self._latest = {}
        self._bounds.check(self._positions, self._place)
        self._assign()

    def poll(self, *, timeout_s: float, now_ms: int) -> list[StreamBatch]:
        """What has come, at most batch_records; may return early with nothing when an end was reached. Errors:
        UnavailableError from every call while the servers are away, once what was fetched is handed out; InputError.
        """
        if not self._assigned:
            self._assign()
        if self._latest:
            return self._begin_at_latest()
        before = self._bounds.reached(self._positions)
        if self._bounds.there and before >= self._mine:
            return []
        self._look_after_servers()
        self._silences.check()
        began_s = time.monotonic()
        batches = self._batches(timeout_s, self._latest_ms(now_ms), self._bounds.ends)
        reached = self._bounds.reached(self._positions)
        self._pause(reached - before)
        lagging = frozenset(map(self._place, self._mine - self._at_end - reached))
        heard = {batch.partition for batch in batches}
        if self._silences.is_stalled(lagging, heard, time.monotonic() - began_s):
            self._assigned = False  # the next poll fetches anew; what came with this one is not to be lost
        return batches

    def read(self, ranges: Ranges, *, now_ms: int) -> Iterator[StreamBatch]:
        """The records of these ranges again, without those that are gone if on_expired says so.

        Errors: InputError when some are gone, UnavailableError. When it ends early, by an error or because nobody asks
        for more, the positions are what they were.
        """
        ends = {self._partition(place): end for place, (_, end) in ranges.items()}
        before = self._positions
        try:
            yield from self._read(ranges, ends, now_ms)
        except BaseException:
            self._positions, self._assigned = before, False
            raise
        self._positions, self._latest = before | ends, {}
        self._assign()

    def _read(self, ranges: Ranges, ends: dict[int, int], now_ms: int) -> Iterator[StreamBatch]:
        starts = {self._partition(place): start for place, (start, _) in ranges.items()}
        self._positions = {p: start for p, start in starts.items() if start < ends[p]}
        self._assign(frozenset(self._positions))
        missing = set(self._positions)
        came_s = time.monotonic()
        while missing:
            self._look_after_servers()
            moved_from = dict(self._positions)
            yield from self._batches(1.0, self._latest_ms(now_ms), ends)
            if self._positions != moved_from:
                came_s = time.monotonic()
            elif time.monotonic() - came_s > self._unavailable_after_s:
                raise self._not_read(missing, ends)
            done = {p for p in missing if self._positions[p] >= ends[p]}
            missing -= done
            self._pause(done)

    def caught_up(self) -> frozenset[str]:
        """Places that were read up to what was there; none while the server is away."""
        if self._bounds.there:
            return frozenset(map(self._place, self._bounds.reached(self._positions)))
        if self._log.down_since_s is not None:
            return frozenset()
        return frozenset(map(self._place, self._at_end))

    def lag(self) -> int | None:
        """Offsets that are there and not yet read; None when not known, as while the servers do not answer."""
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
        """Release the client."""
        self._consumer.close()

    # ---- partitions ----

    def _place(self, partition: int) -> str:
        return f"{self._topic}[{partition}]"

    def _partition(self, place: str) -> int:
        for p in self._mine:
            if self._place(p) == place:
                return p
        raise ConfigError(
            "the saved position belongs to a partition that is not read here",
            detail=f"{place}; read here: {', '.join(sorted(self.partitions())) or 'none'}",
            hint="use the topic, partitions and number of instances that the run was begun with",
        )

    def _find_partitions(self, timeout_s: float) -> frozenset[int]:
        there = topic_partitions(
            self._consumer, self._log, self._servers, self._topic, timeout_s=timeout_s, reports=not self._reads
        )
        check_partitions(self._topic, there, self._wanted)
        return share(there, self._wanted, self._instance)

    def _assign(self, only: frozenset[int] | None = None) -> None:
        """Begin to fetch from our positions; whatever waits in the client from before is dropped."""
        self._at_end = set()
        self._assigned, self._reads = False, True
        partitions = [
            TopicPartition(self._topic, p, self._positions.get(p, OFFSET_BEGINNING))
            for p in sorted(self._mine - self._bounds.reached(self._positions) if only is None else only)
        ]
        # a pause outlives an assignment; resumed after it, while the client is at it, a partition may stay paused
        self._consumer.resume(self._consumer.assignment())
        self._consumer.assign(partitions)
        self._assigned = only is None

    def _pause(self, partitions: Collection[int]) -> None:
        """Fetch no more of these; what waits in the client may still be handed out."""
        if partitions:
            self._consumer.pause([TopicPartition(self._topic, p) for p in partitions])

    def _begin_at_latest(self) -> list[StreamBatch]:
        """Empty batches that tell where the reading begins, so that a checkpoint knows it."""
        self._positions |= {p: offset for p, offset in self._latest.items() if p not in self._positions}
        self._assign()
        self._latest = {}  # only now: when that fails it is done again, from the same offsets
        return [self._batch(p, Fetched(), (offset, offset), None) for p, offset in sorted(self._positions.items())]

    def _offsets_there(self, partition: int) -> tuple[int, int]:
        return offsets_there(self._consumer, self._servers, TopicPartition(self._topic, partition))

    # ---- servers ----

    def _look_after_servers(self) -> None:
        """Look for new partitions now and then; find out whether servers that were away are back."""
        if self._log.denied is not None:
            error, self._log.denied = self._log.denied, None
            raise denied(self._servers, error, InputError)
        down = self._log.down_since_s is not None
        quiet = time.monotonic() - self._heard_s > _PROBE_QUIET_EVERY_S
        every_s = min(_PROBE_EVERY_S if down else _PROBE_QUIET_EVERY_S if quiet else self._refresh_s, self._refresh_s)
        if time.monotonic() - self._asked_s < every_s:
            return
        self._asked_s = time.monotonic()
        try:
            mine = self._find_partitions(_PROBE_EVERY_S)
        except UnavailableError:
            self._log.down()
            return
        if self._bounds.there:
            mine &= self._mine  # those that appear now are for the next run
        # After an outage too: then the client says anew which ends are reached.
        if down or not mine <= self._mine:
            self._mine |= mine
            if self._assigned:
                self._assign()

    def _raise_if_away(self) -> None:
        """Raise when servers neither answer nor send (one just started may send first) for a while."""
        if min(self._log.down_s, time.monotonic() - self._heard_s) > min(_TELL_AFTER_S, self._unavailable_after_s):
            raise unavailable(self._servers, self._log.last)

    # ---- records ----

    def _latest_ms(self, now_ms: int) -> int | None:
        return None if self._max_future_ms is None else now_ms + self._max_future_ms

    def _batches(
        self, timeout_s: float, latest_ms: int | None, ends: dict[int, int] | None = None
    ) -> list[StreamBatch]:
        """By partition, in the order of offsets; only records below ends. Nothing has moved when it raises."""
        before = dict(self._positions)
        try:
            parts = fetch(self._consumer, self._batch_records, self._batch_bytes, timeout_s)
            self._heard_s = time.monotonic() if parts else self._heard_s
            for p, part in parts.items():
                for error in part.errors:
                    self._judge(p, error, (ends or {}).get(p))
            batches = [self._of_partition(p, part, latest_ms, (ends or {}).get(p)) for p, part in sorted(parts.items())]
        except BaseException:
            self._positions = before
            self._assigned = False  # what the client has handed out is fetched again
            raise
        if not parts:
            self._raise_if_away()
        return [batch for batch in batches if batch is not None]

    def _of_partition(self, p: int, part: Fetched, latest_ms: int | None, end: int | None) -> StreamBatch | None:
        if part.end is None:
            self._at_end.discard(p)
        else:
            self._at_end.add(p)
            self._check_bound(p, part.end)
        position = self._positions.get(p)
        if position is not None:
            part = part.from_offset(position)  # some may have been fetched before a seek
        after = part.after
        if end is not None and after is not None:
            part, after = part.below(end), min(after, end)
        if after is None:  # only errors came
            return None
        start = position if position is not None else part.offsets[0] if part.offsets else after
        self._positions[p] = max(start, after)
        return self._batch(p, part, (start, after), latest_ms) if after > start else None

    def _batch(self, p: int, part: Fetched, covered: tuple[int, int], latest_ms: int | None) -> StreamBatch:
        place = self._place(p)
        numbers = np.array(part.offsets, np.int64)
        decoded = self._decoder.decode(part.values, numbers, source=place, latest_ms=latest_ms)
        return StreamBatch(place, {place: covered}, decoded.events, decoded.rejected)

    # ---- what can go wrong ----

    def _judge(self, p: int, error: KafkaError, bound: int | None) -> None:
        """An error in place of a record. Errors: InputError, unless reading just goes on."""
        code = error.code()
        if code == KafkaError._AUTO_OFFSET_RESET:
            self._out_of_range(p, bound)
        elif code in AUTH_ERRORS:
            raise denied(self._servers, error, InputError)
        elif code in UNKNOWN_ERRORS:
            raise InputError("the Kafka topic is gone", detail=f"{self._place(p)} on {self._servers}: {error.str()}")
        elif error.fatal():
            raise InputError("reading from Kafka has failed", detail=f"{self._place(p)}: {error.str()}")
        else:
            self._log.note(error)
            if code in DAMAGED:
                self._silences.damaged(self._place(p), error.str())

    def _out_of_range(self, p: int, bound: int | None) -> None:
        """Our position is not among the records that are there."""
        first, end = self._offsets_there(p)
        wanted = self._positions.get(p)
        if wanted is None or first <= wanted <= end:
            self._assign(None if self._assigned else frozenset(self._positions))
            return
        if bound is not None and wanted >= bound:  # nothing more is wanted of it
            return
        if wanted > end:
            raise truncated(self._place(p), wanted)
        if self._on_expired == "fail":
            raise expired(self._place(p), wanted, first)
        place, self._positions[p] = self._place(p), first if bound is None else min(first, bound)
        self._skipped[place] = self._skipped.get(place, 0) + self._positions[p] - wanted
        _LOG.warning("%s: records from offset %d to before %d are gone", place, wanted, self._positions[p])
        self._assign(None if self._assigned else frozenset(self._positions))

    def _not_read(self, missing: set[int], ends: dict[int, int]) -> SessionizeError:
        """Why nothing comes any more, though not all was read. Errors: those of Silences.check."""
        for p in missing & self._at_end:
            return truncated(self._place(p), ends[p])
        self._silences.check(set(map(self._place, missing)))
        return unavailable(self._servers, self._log.last or "no records come")

    def _check_bound(self, p: int, end: int) -> None:
        """The partition was found to end here: it must not have been longer when the run began."""
        if end < (bound := self._bounds.ends.get(p, 0)) and self._offsets_there(p)[1] < bound:
            raise truncated(self._place(p), bound)
