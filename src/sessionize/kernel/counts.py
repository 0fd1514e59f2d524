"""What became of the events that were pushed."""

from dataclasses import asdict, dataclass


@dataclass(slots=True)
class Counts:
    """Events by what became of them. consumed is the sum of all the others, at any moment.

    settled: in sessions, open or emitted. pending: waiting for the watermark. late: below it on arrival, handed back.
    duplicate, excluded: counted nowhere else. short_sessions: no events, but sessions that are too short to be
    written.
    """

    consumed: int = 0
    settled: int = 0
    pending: int = 0
    late: int = 0
    duplicate: int = 0
    excluded: int = 0
    short_sessions: int = 0

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)
