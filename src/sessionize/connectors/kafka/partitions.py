"""Which partitions of a topic one process reads: a list, or a fixed share of each of n instances. Pure functions."""

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
    return ConfigError(
        "the partitions cannot be understood", detail=f"partitions = {text!r}: {why}", hint='for example "0-3,7"'
    )


def instance_of(hostname: str, total: int) -> tuple[int, int]:
    """(i, n) for the member of a StatefulSet of n, whose host name ends with its number: worker-2 is i = 2.

    Errors: ConfigError when the name has no number at its end, or one that is not below n.
    """
    match = _ORDINAL.fullmatch(hostname)
    if match is None:
        raise ConfigError(
            "the host name does not tell which instance this is",
            detail=f"{hostname!r} does not end in a dash and a number",
            hint="say which it is, from 0 on: --set input.kafka.instance=0",
        )
    instance = (int(match[1]), total)
    check_instance(instance)
    return instance


def check_instance(instance: tuple[int, int]) -> None:
    """Errors: ConfigError when there is no such instance."""
    number, total = instance
    if total < 1 or not 0 <= number < total:
        raise ConfigError(
            "there is no such instance",
            detail=f"instance {number} of {total}",
            hint="instances are counted from 0: of three they are 0, 1 and 2",
        )


def check_partitions(topic: str, there: frozenset[int], wanted: frozenset[int] | None) -> None:
    """Errors: InputError when some of the wanted ones are not there."""
    missing = sorted((wanted or frozenset()) - there)
    if missing:
        raise InputError(
            "the Kafka topic does not have these partitions",
            detail=f"{topic} has 0-{max(there)}; asked for {', '.join(map(str, missing))}",
            hint="ask for those that are there: --partitions, or input.kafka.partitions",
        )


def share(there: Iterable[int], wanted: frozenset[int] | None, instance: tuple[int, int]) -> frozenset[int]:
    """Those of the partitions that are there which this process reads: each goes to one of the instances."""
    number, total = instance
    return frozenset(p for p in there if (wanted is None or p in wanted) and p % total == number)
