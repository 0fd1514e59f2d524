"""How far a run reads a topic: to no end, or to where each partition ended when the run began.

An end is the offset after the last record that could be read then, transactions that were open left out; it is reached
also when nothing but the marks of transactions lies before it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sessionize.errors import InputError


@dataclass(frozen=True, slots=True)
class Bounds:
    """there: partition -> (its first offset, the offset after its last one), as the run began; {} for no end at all."""

    there: Mapping[int, tuple[int, int]]

    @property
    def ends(self) -> dict[int, int]:
        """Partition -> the offset that is not read any more."""
        return {p: end for p, (_, end) in self.there.items()}

    def reached(self, positions: Mapping[int, int]) -> frozenset[int]:
        """Partitions of which nothing is left to read. positions: of those that were read from."""
        return frozenset(p for p, (first, end) in self.there.items() if positions.get(p, first) >= end)

    def check(self, positions: Mapping[int, int], place: Callable[[int], str]) -> None:
        """place: what a partition is called. Errors: InputError for a position beyond the end."""
        for p, end in self.ends.items():
            if positions.get(p, 0) > end:
                raise truncated(place(p), positions[p])

    def left(self, positions: Mapping[int, int]) -> int:
        """Offsets that are still to be read."""
        return sum(max(0, end - positions.get(p, first)) for p, (first, end) in self.there.items())


def truncated(place: str, wanted: int) -> InputError:
    """A partition ends before an offset that it had."""
    return InputError(
        "records that were read before are no longer in Kafka",
        detail=f"{place}: offset {wanted} was reached before, but the partition ends earlier",
        hint="was the topic deleted and made anew? Then begin a new run, with a new state folder",
    )


def expired(place: str, wanted: int, first: int) -> InputError:
    """A partition begins after an offset that is to be read."""
    return InputError(
        "records to go on from are gone from Kafka",
        detail=f"{place}: offset {wanted} is wanted, the first one there is {first}",
        hint='keep records longer (retention), or accept the loss with on_expired = "earliest"',
    )
