"""Partitions that have more records and bring none: the client may have lost sight of them, or they are damaged.

Pausing, resuming and assigning meet in threads of librdkafka, and a partition that is left behind paused is never
fetched again, without any error. Fetching anew from our own positions is always right, so that is done after a while.
Records that are damaged in the log are asked for again and again; nothing of the partition comes any more.
"""

import logging
from collections.abc import Set

from confluent_kafka import KafkaError

from sessionize.errors import InputError

DAMAGED = frozenset({KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION})
_STUCK_S = 15.0
_DAMAGED_S = 30.0  # another replica may have them whole, and lead by then
_LOG = logging.getLogger("sessionize.input.kafka")


class StallDetector:
    """How long we have waited for each partition since it last brought something."""

    def __init__(self) -> None:
        self._waited_s: dict[str, float] = {}
        self._silent_s: dict[str, float] = {}  # the same, however often all began anew
        self._damaged: dict[str, str] = {}

    def damaged(self, place: str, why: str) -> None:
        """The client has fetched records of this partition that it cannot hand out."""
        self._damaged[place] = why

    def is_stalled(self, lagging: Set[str], heard: Set[str], waited_s: float) -> bool:
        """After a poll of waited_s seconds: whether to begin anew with all, and then counting begins anew too.

        lagging: partitions that are not read to their end. heard: those that brought something.
        """
        silent = lagging - heard
        self._damaged = {p: why for p, why in self._damaged.items() if p in silent}
        self._silent_s = {p: self._silent_s.get(p, 0.0) + waited_s for p in silent}
        self._waited_s = {p: self._waited_s.get(p, 0.0) + waited_s for p in silent}
        if max(self._waited_s.values(), default=0.0) < _STUCK_S:
            return False
        stuck = sorted(p for p, so_far_s in self._silent_s.items() if so_far_s >= 2 * _STUCK_S)
        if stuck:  # fetching anew has not helped
            longest_s = max(self._silent_s[p] for p in stuck)
            _LOG.warning("nothing has come of %s for %.0f s, though there is more", ", ".join(stuck), longest_s)
        self._waited_s = {}
        return True

    def check(self, places: Set[str] | None = None) -> None:
        """Errors: InputError when records of one of these places, or of any, have been damaged for a while."""
        for place, why in self._damaged.items():
            if places is None and self._silent_s.get(place, 0.0) < _DAMAGED_S:
                continue
            if places is None or place in places:
                raise InputError(
                    "records of a Kafka partition cannot be read",
                    detail=f"{place}: {why}",
                    hint="they are damaged in the broker's log: let another replica lead; or delete them, with all "
                    'before them (kafka-delete-records), and go on behind the gap with on_expired = "earliest"',
                )
