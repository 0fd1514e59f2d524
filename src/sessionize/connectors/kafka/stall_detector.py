"""Detects partitions that have more records but deliver none: the client may have lost them, or they are damaged.

Pausing, resuming and assigning can race in librdkafka's threads; a partition that stays paused is never fetched again,
without any error. A new assignment from our positions is always correct, so it is made after a while. Records damaged
in the log are requested again and again, and the partition delivers nothing more.
"""

import logging
from collections.abc import Set

from confluent_kafka import KafkaError

from sessionize.errors import InputError

DAMAGED = frozenset({KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION})
_STUCK_S = 15.0
_DAMAGED_S = 30.0  # another replica with intact records may lead by then
_LOG = logging.getLogger("sessionize.input.kafka")


class StallDetector:
    """Measures how long each partition has delivered nothing."""

    def __init__(self) -> None:
        self._waited_s: dict[str, float] = {}
        self._silent_s: dict[str, float] = {}  # the same, not reset by a new assignment
        self._damaged: dict[str, str] = {}

    def damaged(self, split: str, why: str) -> None:
        """Record that the client fetched records of this partition that it cannot decode."""
        self._damaged[split] = why

    def is_stalled(self, lagging: Set[str], received: Set[str], waited_s: float) -> bool:
        """After a poll of waited_s seconds: whether to assign all partitions again, which also resets the count.

        lagging: partitions that are not read to their end. received: those that delivered something.
        """
        silent = lagging - received
        self._damaged = {p: why for p, why in self._damaged.items() if p in silent}
        self._silent_s = {p: self._silent_s.get(p, 0.0) + waited_s for p in silent}
        self._waited_s = {p: self._waited_s.get(p, 0.0) + waited_s for p in silent}
        if max(self._waited_s.values(), default=0.0) < _STUCK_S:
            return False
        stuck = sorted(p for p, so_far_s in self._silent_s.items() if so_far_s >= 2 * _STUCK_S)
        if stuck:  # a new assignment did not help
            longest_s = max(self._silent_s[p] for p in stuck)
            _LOG.warning("no records of %s for %.0f s, though there are more", ", ".join(stuck), longest_s)
        self._waited_s = {}
        return True

    def check(self, splits: Set[str] | None = None) -> None:
        """Errors: InputError if records of one of these partitions, or of any, stay damaged for a while."""
        for split, why in self._damaged.items():
            if splits is None and self._silent_s.get(split, 0.0) < _DAMAGED_S:
                continue
            if splits is None or split in splits:
                raise InputError(
                    "records of a Kafka partition cannot be read",
                    detail=f"{split}: {why}",
                    hint="they are damaged in the broker's log: let another replica lead; or delete them and all "
                    'before them (kafka-delete-records), and continue after the gap with on_expired = "earliest"',
                )
