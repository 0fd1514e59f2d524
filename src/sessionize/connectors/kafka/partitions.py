"""The partitions of a topic that one process reads: a list, or the share of one of n instances. Pure functions."""

import re
from collections.abc import Iterable

from sessionize.errors import ConfigError, InputError

_PART = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)
_ORDINAL = re.compile(r".*-(\d{1,9})", re.ASCII)
_PARTITIONS_MAX = 100_000


def parse_partitions(text: str) -> frozenset[int]:
    """Partition numbers from text such as "0-3,7". Errors: ConfigError."""
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise _unreadable(text, f"{part.strip()!r} is neither a number nor a range")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last - first >= _PARTITIONS_MAX:
            raise _unreadable(text, f"{part.strip()!r} is not a range of up to {_PARTITIONS_MAX} partitions")
        found.update(range(first, last + 1))
    return frozenset(found)


def _unreadable(text: str, why: str) -> ConfigError:
    return ConfigError("invalid partitions", detail=f"partitions = {text!r}: {why}", hint='for example "0-3,7"')


def instance_of(hostname: str, total: int) -> tuple[int, int]:
    """(i, n) for a member of a StatefulSet of n, whose host name ends with its number: worker-2 is i = 2.

    Errors: ConfigError if the name does not end with a number below n.
    """
    match = _ORDINAL.fullmatch(hostname)
    if match is None:
        raise ConfigError(
            "the host name does not contain the instance number",
            detail=f"{hostname!r} does not end in a dash and a number",
            hint="set it, counted from 0: --set input.kafka.instance=0",
        )
    instance = (int(match[1]), total)
    check_instance(instance)
    return instance


def check_instance(instance: tuple[int, int]) -> None:
    """Errors: ConfigError if the instance does not exist."""
    number, total = instance
    if total < 1 or not 0 <= number < total:
        raise ConfigError(
            "the instance does not exist",
            detail=f"instance {number} of {total}",
            hint="instances are counted from 0: three instances are 0, 1 and 2",
        )


def check_partitions(topic: str, there: frozenset[int], wanted: frozenset[int] | None) -> None:
    """Errors: InputError if some of the wanted partitions do not exist."""
    missing = sorted((wanted or frozenset()) - there)
    if missing:
        raise InputError(
            "the Kafka topic does not have these partitions",
            detail=f"{topic} has 0-{max(there)}; asked for {', '.join(map(str, missing))}",
            hint="name existing partitions: --partitions, or input.kafka.partitions",
        )


def share(there: Iterable[int], wanted: frozenset[int] | None, instance: tuple[int, int]) -> frozenset[int]:
    """The existing partitions that this process reads; each belongs to one instance."""
    number, total = instance
    return frozenset(p for p in there if (wanted is None or p in wanted) and p % total == number)
