"""Partitions that have more records and bring none: the client may have lost sight of them.

Pausing, resuming and assigning meet in threads of librdkafka, and a partition that is left behind paused is never
fetched again, without any error. Fetching anew from our own positions is always right, so that is done after a while.
"""

from collections.abc import Set

_STUCK_S = 15.0


class Silences:
    """How long we have waited for each partition since it last brought something."""

    def __init__(self) -> None:
        self._waited_s: dict[str, float] = {}

    def are_too_long(self, lagging: Set[str], heard: Set[str], waited_s: float) -> bool:
        """After a poll of waited_s seconds: whether to begin anew with all, and then counting begins anew too.

        lagging: partitions that are not read to their end. heard: those that brought something.
        """
        self._waited_s = {p: self._waited_s.get(p, 0.0) + waited_s for p in lagging - heard}
        if max(self._waited_s.values(), default=0.0) < _STUCK_S:
            return False
        self._waited_s = {}
        return True
