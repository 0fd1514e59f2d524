"""How far a run reads a topic: without end, or to the end of each partition when the run began.

An end is the offset after the last readable record at that time, open transactions excluded; it is also reached if
only transaction markers remain before it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sessionize.errors import InputError


@dataclass(frozen=True, slots=True)
class EndOffsets:
    """there: partition -> (its first offset, the offset after its last one) when the run began; {} for no end."""

    there: Mapping[int, tuple[int, int]]

    @property
    def ends(self) -> dict[int, int]:
        """Partition -> the first offset that is not read."""
        return {p: end for p, (_, end) in self.there.items()}

    def reached(self, positions: Mapping[int, int]) -> frozenset[int]:
        """Partitions read to their end. positions: of the partitions read so far."""
        return frozenset(p for p, (first, end) in self.there.items() if positions.get(p, first) >= end)

    def check(self, positions: Mapping[int, int], name_of: Callable[[int], str]) -> None:
        """name_of: gives a partition its name. Errors: InputError for a position beyond the end."""
        for p, end in self.ends.items():
            if positions.get(p, 0) > end:
                raise truncated(name_of(p), positions[p])

    def left(self, positions: Mapping[int, int]) -> int:
        """The number of offsets still to read."""
        return sum(max(0, end - positions.get(p, first)) for p, (first, end) in self.there.items())


def truncated(split: str, wanted: int) -> InputError:
    """The error for a partition that ends before an offset already read."""
    return InputError(
        "records that were read before are no longer in Kafka",
        detail=f"{split}: offset {wanted} was reached before, but the partition ends earlier",
        hint="if the topic was deleted and recreated, start a new run with a new state folder",
    )


def expired(split: str, wanted: int, first: int) -> InputError:
    """The error for a partition that begins after the next offset to read."""
    return InputError(
        "the next records to read have expired in Kafka",
        detail=f"{split}: offset {wanted} is next, the first available one is {first}",
        hint='keep records longer (retention), or accept the loss with on_expired = "earliest"',
    )
