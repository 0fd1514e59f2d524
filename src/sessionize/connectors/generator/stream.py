"""The generator as a stream: behaviour, clock, delivery and encoding, interval by interval.

`Stream.blocks` gives records in the order of arrival with their text, a few thousand at a time. The length of an
interval depends only on the settings, so the bytes are the same however a reader splits the stream.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.connectors.generator.activity import Demand
from sessionize.connectors.generator.arrival import DUPLICATE, EVENT, MALFORMED, Delivery, Records
from sessionize.connectors.generator.behaviour import UserPopulation
from sessionize.connectors.generator.diurnal_cycle import EVEN_PER_S, Clock, DiurnalCycle
from sessionize.connectors.generator.journeys import Ints, Journeys
from sessionize.connectors.generator.json_encoder import LineWriter
from sessionize.connectors.generator.malformed import KINDS, malformed_record
from sessionize.connectors.generator.profiles import PROFILES, Profile
from sessionize.connectors.generator.settings import GeneratedTotals, GeneratorSettings

BLOCK_ROWS = 8_192
# Expected events in an interval: enough for columnar work to pay off, few enough to follow the rate and the
# time of day.
_STRETCH_EVENTS = (256, 16_384, 1_048_576)
_STRETCH_MS_MAX = 600_000.0
_LEAD_EVENTS_MAX = 500_000


@dataclass(frozen=True, slots=True)
class Block:
    """Records in the order of arrival. lines binary[n]: their bytes, each with its line feed at the end."""

    records: Records
    lines: pa.BinaryArray

    def __len__(self) -> int:
        return len(self.records)

    def text(self, start: int, stop: int) -> memoryview:
        """The bytes of the records from start to before stop, not copied."""
        first = self.lines.offset
        offsets = np.frombuffer(self.lines.buffers()[1], dtype=np.int32)[first : first + len(self) + 1]
        return memoryview(self.lines.buffers()[2] or b"")[int(offsets[start]) : int(offsets[stop])]

    def event_count(self, start: int, stop: int) -> int:
        """The number of records from start to before stop that are events delivered for the first time."""
        return int(np.count_nonzero(self.records.role[start:stop] == EVENT))


class Stream:
    """One run of the generator; it can be read once."""

    def __init__(self, settings: GeneratorSettings) -> None:
        self.settings = settings
        profile = PROFILES[settings.profile]
        seed = np.random.SeedSequence(settings.seed)
        salt = seed.generate_state(1, np.uint64)[0]
        behaviour_rng, delivery_rng = (np.random.default_rng(s) for s in seed.spawn(2))

        lead_ms = self._lead_ms = _lead_ms(settings)
        self._origin_ms = settings.start_ms - lead_ms
        journeys = Journeys.drawn(profile, behaviour_rng)
        rate_per_ms = settings.mean_rate_per_s / 1_000
        span_ms = settings.span_ms
        rhythm = DiurnalCycle(origin_ms=self._origin_ms, daily=settings.rate_per_s is None)
        if span_ms is not None:
            # The mean over the run, which may be one busy hour.
            busy_ms = rhythm.busy_ms(np.array([lead_ms, lead_ms + span_ms]))
            rate_per_ms *= span_ms / float(busy_ms[1] - busy_ms[0])
        demand = _demand(settings, profile, journeys, rate_per_ms)
        self._population = UserPopulation(profile, journeys, demand, rhythm, rng=behaviour_rng, salt=salt)
        even = (settings.rate_per_s or 0.0) >= EVEN_PER_S
        self._clock = Clock(rhythm, rate_per_ms=rate_per_ms, even=even)
        self._delivery = Delivery(settings, rng=delivery_rng)
        self._writer = LineWriter(profile, salt=salt)
        self._profile = profile

    def blocks(self, *, begin: Callable[[], int] | None = None) -> Iterator[Block]:
        """All records in the order of arrival, at most BLOCK_ROWS at a time, up to the last event.

        begin: called when the first records are ready; its result replaces settings.start_ms.
        """
        left = self.settings.total_events
        shift_ms: int | None = 0 if begin is None else None
        for records in self._deliveries():
            if shift_ms is None and begin is not None and len(records):
                self._written(records.take(slice(0, 1)))  # warms up what is slow at first
                shift_ms = begin() - self.settings.start_ms
            if shift_ms:
                records = records.moved(shift_ms)
            if left is not None:
                events = np.flatnonzero(records.role == EVENT)
                if len(events) >= left:
                    records = records.take(slice(0, int(events[left - 1]) + 1))
                left -= len(events)
            for start in range(0, len(records), BLOCK_ROWS):
                yield self._written(records.take(slice(start, start + BLOCK_ROWS)))
            if left is not None and left <= 0:
                return

    def _deliveries(self) -> Iterator[Records]:
        interval_ms = self._interval_ms()
        end_ms = 0.0
        while True:
            # Nothing is delivered before the start, so longer intervals suffice.
            end_ms += interval_ms if end_ms >= self._lead_ms else max(interval_ms, self._lead_ms / 32)
            steps = self._population.until(end_ms, ahead_ms=self._clock.ahead_ms, behind_ms=self._clock.behind_ms)
            times = self._clock.advance(steps.time_ms, end_ms=end_ms)
            time_ms = self._origin_ms + np.floor(times).astype(np.int64)
            next_ms = self._origin_ms + int(self._clock.now_ms)
            yield self._delivery.accept(steps, time_ms, next_ms=next_ms)

    def _interval_ms(self) -> float:
        s = self.settings
        fewest, usual, most = _STRETCH_EVENTS
        # Each interval passes over all pending records, so it is longer if many are pending.
        waiting = s.mean_rate_per_s / 1_000 * (s.late_by_ms * s.late_fraction + s.out_of_order_ms)
        events = min(max(usual, waiting / 4), most)
        if s.total_events is not None:
            events = min(events, max(fewest, s.total_events / 20))
        return min(events / s.mean_rate_per_s * 1_000, _STRETCH_MS_MAX)

    def _written(self, records: Records) -> Block:
        lines = self._writer.lines(records.steps, records.time_ms)
        broken = np.flatnonzero(records.role == MALFORMED)
        if len(broken):
            wrecks = [
                malformed_record(line, self._profile, number)
                for line, number in zip(
                    lines.take(pa.array(broken)).to_pylist(), records.kind[broken].tolist(), strict=True
                )
            ]
            lines = pc.replace_with_mask(lines, pa.array(records.role == MALFORMED), pa.array(wrecks, pa.binary()))
        return Block(records, lines)


def _demand(settings: GeneratorSettings, profile: Profile, journeys: Journeys, rate_per_ms: float) -> Demand:
    """The demand on the users; above the rate if visits are few, so that chance does not end a run early."""
    users, skew = settings.users, settings.skew
    demand = Demand.of(profile, journeys, users=users, skew=skew, rate_per_ms=rate_per_ms)
    if settings.total_events is None or demand.busy_share.sum() >= 1.0:
        return demand
    visits = settings.total_events / journeys.steps_mean
    surely = visits + 2.5 * math.sqrt(visits) + 4.0  # expect so many, so that there are almost never too few
    return Demand.of(profile, journeys, users=users, skew=skew, rate_per_ms=rate_per_ms * surely / visits)


def _lead_ms(settings: GeneratorSettings) -> int:
    """How long before the start behaviour begins, so that the first arrivals can already be late."""
    delay_ms = settings.out_of_order_ms + (settings.late_by_ms if settings.late_fraction else 0)
    return min(delay_ms, int(_LEAD_EVENTS_MAX / settings.mean_rate_per_s * 1_000))


class RecordCounts:
    """Counts the written records."""

    def __init__(self, settings: GeneratorSettings) -> None:
        self._seen = np.zeros(settings.users, dtype=np.bool_)
        self._roles: Ints = np.zeros(3, dtype=np.int64)
        self._kinds: Ints = np.zeros(len(KINDS), dtype=np.int64)
        self._late = 0
        self._size_bytes = 0
        self._first_ms: int | None = None
        self._last_ms: int | None = None

    @property
    def events(self) -> int:
        """Distinct events so far."""
        return int(self._roles[EVENT])

    def add(self, block: Block, start: int, stop: int) -> None:
        """Count the records of a block from start to before stop."""
        records = block.records.take(slice(start, stop))
        events = records.role == EVENT
        self._roles += np.bincount(records.role, minlength=3)
        self._kinds += np.bincount(records.kind[records.role == MALFORMED] % len(KINDS), minlength=len(KINDS))
        self._late += int(np.count_nonzero(records.late & events))
        self._seen[records.steps.user[events]] = True
        self._size_bytes += block.text(start, stop).nbytes
        if events.any():
            first, last = int(records.time_ms[events].min()), int(records.time_ms[events].max())
            self._first_ms = first if self._first_ms is None else min(self._first_ms, first)
            self._last_ms = last if self._last_ms is None else max(self._last_ms, last)

    def totals(self, *, complete: bool) -> GeneratedTotals:
        """The counts so far."""
        return GeneratedTotals(
            events=self.events,
            late=self._late,
            duplicates=int(self._roles[DUPLICATE]),
            broken=int(self._roles[MALFORMED]),
            by_kind={kind.name: int(n) for kind, n in zip(KINDS, self._kinds, strict=True) if n},
            users=int(np.count_nonzero(self._seen)),
            first_ms=self._first_ms,
            last_ms=self._last_ms,
            size_bytes=self._size_bytes,
            complete=complete,
        )
