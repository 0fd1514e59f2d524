"""The order in which events are delivered: late, out of order, twice, and with malformed records among them.

`Delivery.accept` takes the events of an interval and returns, in order of arrival, every record that arrives before
any record of later intervals can. The fate of each event is drawn once, in the order of event time, so changing one
fraction does not affect the others.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from sessionize.connectors.generator.behaviour import Steps
from sessionize.connectors.generator.journeys import Ints
from sessionize.connectors.generator.settings import GeneratorSettings

Flags = npt.NDArray[np.bool_]

EVENT, DUPLICATE, MALFORMED = 0, 1, 2
REDELIVERY_MS_MAX = 5_000


@dataclass(frozen=True, slots=True)
class Records:
    """Records in the order of arrival, one row each.

    steps: the record's event (for a malformed one: the event that its bytes are made from). time_ms, arrival_ms int64:
    event time and time of arrival, ms since 1970. role int8: EVENT, DUPLICATE or MALFORMED. late bool: delayed by
    late_by_ms. kind int64: for a malformed record, the number that selects how it is malformed.
    """

    steps: Steps
    time_ms: Ints
    arrival_ms: Ints
    role: npt.NDArray[np.int8]
    late: Flags
    kind: Ints

    def __len__(self) -> int:
        return len(self.time_ms)

    def take(self, which: Flags | Ints | slice) -> "Records":
        """The rows of an index, mask or slice."""
        columns = [getattr(self, f.name) for f in fields(self)[1:]]
        return Records(self.steps.take(which), *(column[which] for column in columns))

    def moved(self, by_ms: int) -> "Records":
        """The same records, later by by_ms."""
        return replace(self, time_ms=self.time_ms + by_ms, arrival_ms=self.arrival_ms + by_ms)

    @classmethod
    def joined(cls, parts: "list[Records]") -> "Records":
        """All rows of all parts, at least one part."""
        columns = [np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)[1:]]
        return cls(Steps.joined([p.steps for p in parts]), *columns)


class Delivery:
    """Decides the fate of each event on its way, and sorts the records by arrival."""

    def __init__(self, settings: GeneratorSettings, *, rng: np.random.Generator) -> None:
        self._settings = settings
        self._rng = rng
        self._waiting: list[Records] = []

    def accept(self, steps: Steps, time_ms: Ints, *, next_ms: int) -> Records:
        """Records that arrive before next_ms; later calls get only events that happened at or after it.

        steps, time_ms: events in the order of event time. Events that arrive before the start of the run are
        dropped.
        """
        parts = [*self._waiting, *self._sent(steps, time_ms)]
        records = Records.joined(parts)
        # Ties keep the order of the parts: older intervals first, and a duplicate after its event.
        records = records.take(np.argsort(records.arrival_ms, kind="stable"))
        ready = int(np.searchsorted(records.arrival_ms, next_ms))
        self._waiting = [records.take(slice(ready, None))]
        return records.take(slice(0, ready))

    def _sent(self, steps: Steps, time_ms: Ints) -> list[Records]:
        s = self._settings
        draws = self._rng.random((len(steps), 5))
        late = draws[:, 0] < s.late_fraction
        delay_ms = (draws[:, 1] * (s.out_of_order_ms + 1)).astype(np.int64) + late * s.late_by_ms
        arrival_ms = time_ms + delay_ms
        seen = arrival_ms >= s.start_ms
        again_ms = arrival_ms + 1 + (draws[:, 3] * REDELIVERY_MS_MAX).astype(np.int64)
        kind = self._rng.integers(0, 2**62, len(steps))

        def records(which: Flags, arrival_ms: Ints, role: int) -> Records:
            roles = np.full(len(steps), role, dtype=np.int8)
            return Records(steps, time_ms, arrival_ms, roles, late, kind).take(which)

        return [
            records(seen, arrival_ms, EVENT),
            records(seen & (draws[:, 2] < s.duplicate_fraction), again_ms, DUPLICATE),
            records(seen & (draws[:, 4] < s.broken_fraction), arrival_ms, MALFORMED),
        ]
