"""Fetched records by partition: values and offsets as lists, without an object for each record.

Calls on single messages dominate the cost of reading, so there are as few as possible.
"""

import itertools
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import methodcaller

import numpy as np
from confluent_kafka import Consumer, KafkaError, Message

# Messages per call of the client: they are large objects, and more of them would exceed the processor's cache before
# they are converted (two fifths of the cost of consuming).
_CALL_MESSAGES = 2_000
_FIRST_MESSAGES = 100  # whose size is unknown
_ERROR, _OFFSET, _VALUE = methodcaller("error"), methodcaller("offset"), methodcaller("value")
_PARTITION = methodcaller("partition")


@dataclass(frozen=True, slots=True)
class Fetched:
    """Records of one partition in the order of offsets.

    end: the offset at which the client reached the partition's end, None if it did not. errors: received in place of
    records.
    """

    values: list[bytes | None] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    end: int | None = None
    errors: list[KafkaError] = field(default_factory=list)

    @property
    def after(self) -> int | None:
        """The next offset to read: transaction markers before the end are not records, but have offsets."""
        last = self.offsets[-1] + 1 if self.offsets else None
        return last if self.end is None else max(self.end, last or 0)

    def from_offset(self, first: int) -> "Fetched":
        """The records from an offset on."""
        if not self.offsets or self.offsets[0] >= first:
            return self
        at = bisect_left(self.offsets, first)
        return Fetched(self.values[at:], self.offsets[at:], self.end, self.errors)

    def below(self, end: int) -> "Fetched":
        """The records before an offset."""
        at = bisect_left(self.offsets, end)
        return self if at == len(self.offsets) else Fetched(self.values[:at], self.offsets[:at], self.end, self.errors)


def fetch(consumer: Consumer, records_max: int, bytes_max: int, timeout_s: float) -> dict[int, Fetched]:
    """At most records_max records and about bytes_max of values, waiting for the first record.

    The client fetches more during the call, so it may never be empty.
    """
    found: dict[int, Fetched] = {}
    size = count = 0
    messages = consumer.consume(min(_FIRST_MESSAGES, records_max), 0)
    if not messages and timeout_s > 0:
        messages = consumer.consume(1, timeout_s)
    while messages:
        before = {p: len(part.values) for p, part in found.items()}
        fetched(messages, found)
        size += sum(sum(map(len, filter(None, part.values[before.get(p, 0) :]))) for p, part in found.items())
        count += len(messages)
        fitting = (bytes_max - size) // (size // count + 1)
        more = min(_CALL_MESSAGES, records_max - count, fitting)
        messages = consumer.consume(more, 0) if more > 0 else []
    return found


def fetched(messages: list[Message], found: dict[int, Fetched] | None = None) -> dict[int, Fetched]:
    """The records of one call's messages. found: the result of earlier calls, which is extended."""
    found = {} if found is None else found
    for p, run in _runs(messages):
        part = found.get(p, Fetched())
        end = None
        if any(map(_ERROR, run)):
            errors = list(map(_ERROR, run))
            for message, error in zip(run, errors, strict=True):
                if error is None:
                    end = None
                elif error.code() == KafkaError._PARTITION_EOF:
                    end = message.offset()
                else:
                    part.errors.append(error)
            run = [message for message, error in zip(run, errors, strict=True) if error is None]
        part.values.extend(map(_VALUE, run))
        part.offsets.extend(_offsets(run))
        found[p] = Fetched(part.values, part.offsets, end, part.errors)
    return found


def _offsets(run: list[Message]) -> Iterable[int]:
    """The offsets of a run. They only grow, so if the first and the last are as far apart as the messages are many, the
    others follow.
    """
    if not run:
        return ()
    first, last = run[0].offset() or 0, run[-1].offset() or 0
    return range(first, last + 1) if last - first == len(run) - 1 else map(_OFFSET, run)


def _runs(messages: list[Message]) -> Iterator[tuple[int, list[Message]]]:
    """Consecutive messages of one partition; the client returns whole fetches, so runs are long."""
    if not messages:
        return
    partitions = np.fromiter(map(_PARTITION, messages), np.int32, len(messages))
    cuts = [0, *(np.flatnonzero(np.diff(partitions)) + 1).tolist(), len(messages)]
    for start, stop in itertools.pairwise(cuts):
        yield int(partitions[start]), messages[start:stop]
