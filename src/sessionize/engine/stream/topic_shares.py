"""How several processes share a topic, as the tables of their pipeline remember it, so that no record is read twice.

The table of the sessions keeps, as properties, how the topic is split, and each writer's share of it. A process whose
share does not fit is refused before it reads anything: it would read again what another one has read. Where the number
of processes is to change, all of them end with their sessions, and say in the table how far each has come; then one
that is set to take over begins the next **generation** of the split, whose processes start there. docs/adr/0013.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from sessionize.errors import StateError
from sessionize.ports import Positions, StreamSource

Record = TypeVar("Record")

SPLIT = "sessionize.split"
SHARE = "sessionize.share"
_HOW = (
    "to change how the topic is split, let every process end with its sessions (run --once, while stream.drain is on), "
    "then start the new ones with --take-over"
)


@dataclass(frozen=True, slots=True)
class Share:
    """Which partitions of a topic a process reads: those that are listed, or those that fall to instance i of n."""

    listed: frozenset[int] | None = None
    instance: tuple[int, int] = (0, 1)

    @property
    def split(self) -> str:
        """How the topic is split when all processes do as this one."""
        if self.listed is not None:
            return "by lists of partitions"
        return "not at all" if self.instance[1] == 1 else f"between {self.instance[1]} processes"

    def overlaps(self, other: "Share") -> bool:
        """Whether a partition can be of both."""
        (i, n), (k, m) = self.instance, other.instance
        if self.listed is None and other.listed is None:
            return (i - k) % math.gcd(n, m) == 0
        numbers = (self.listed or frozenset()) | (other.listed or frozenset())
        return any(self.has(number) and other.has(number) for number in numbers)

    def has(self, partition: int) -> bool:
        """Whether a partition is of it."""
        number, total = self.instance
        return (self.listed is None or partition in self.listed) and partition % total == number

    def __str__(self) -> str:
        if self.listed is not None:
            return f"partitions {','.join(map(str, sorted(self.listed)))}"
        return "all partitions" if self.instance[1] == 1 else f"number {self.instance[0]} of {self.instance[1]}"

    def as_json(self) -> dict[str, Any]:
        """JSON-able."""
        return {"listed": None if self.listed is None else sorted(self.listed), "instance": list(self.instance)}

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> "Share":
        """The way back."""
        listed, (number, total) = value["listed"], value["instance"]
        return cls(None if listed is None else frozenset(listed), (number, total))


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process that is about to write. topic_id: None where servers give none."""

    writer: str
    topic: str
    topic_id: str | None
    share: Share
    take_over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Split:
    """How a topic is split now. begin: from where its processes read on, by place."""

    topic_id: str | None
    generation: int
    split: str
    begin: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    """A writer's share. drained: the epoch with which it ended all sessions, and its positions then; None before.

    topic_id: of the topic that it read, as one of the same name may have been recreated since; None as in Process.
    """

    topic: str
    topic_id: str | None
    generation: int
    share: Share
    drained: tuple[int, dict[str, int]] | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process stands among the others. begin: where partitions are read on that it has no position of.

    changes: properties to be set, with which the others know of it.
    """

    generation: int
    begin: Positions
    changes: Mapping[str, str]


def take_place(process: Process, properties: Mapping[str, str], epochs: Mapping[str, int]) -> Place:
    """Where a process stands among those that the table's properties know of. epochs: the last one of each writer.

    Errors: StateError when it would read what others have read, or has given its share away.
    """
    split, members = _split_of(process, properties), _members_of(process, properties)
    if split is None or _is_another(split.topic_id, process.topic_id):
        split, members = _Split(topic_id=process.topic_id, generation=1, split=process.share.split), {}
    mine = members.get(process.writer)
    if mine is not None and (mine.generation, mine.share) == (split.generation, process.share):
        return Place(split.generation, split.begin, {})
    present = {writer: each for writer, each in members.items() if each.generation == split.generation}
    clash = _clash(process, split, present)
    if clash is not None:
        if not process.take_over:
            raise StateError(
                "the topic is split otherwise in these tables", detail=f"{process.topic}: {clash}", hint=_HOW
            )
        split = _next(process, split, present, epochs)
    member = _member(process, split.generation)
    return Place(
        split.generation, split.begin, {_split_name(process.topic): _split_text(split), **_member_text(process, member)}
    )


def check_place(process: Process, generation: int, properties: Mapping[str, str]) -> None:
    """Whether it still stands there. Errors: StateError when its share was taken over."""
    split = _split_of(process, properties)
    if split is not None and not _is_another(split.topic_id, process.topic_id) and split.generation != generation:
        raise StateError(
            "this process's share of the topic was taken over by others",
            detail=f"{process.topic} is split {split.split} now; this is {process.share}",
            hint="end it: what it has read since is read by the others; nothing of it was written",
        )


def drained(process: Process, generation: int, epoch: int, positions: Positions) -> Mapping[str, str]:
    """The properties that say how far a process has come that ended with all its sessions."""
    return _member_text(process, _member(process, generation, (epoch, dict(positions))))


def positions_to_seek(own: Positions, begin: Positions | None, source: StreamSource) -> Positions:
    """Where a source goes on: this process's own positions, or those where others have ended, whichever is further.

    begin: where others have ended; None where nobody was before. Then partitions that others read now do not count.
    """
    if begin is None:
        return own
    return {
        place: max(own.get(place, 0), begin.get(place, 0))
        for place in source.partitions()
        if place in own or place in begin
    }


def _clash(process: Process, split: _Split, present: Mapping[str, _Member]) -> str | None:
    """Why a process cannot take part in a split as it is; None when it can."""
    if process.share.split != split.split:
        return f"it is split {split.split} there, {process.share.split} here ({process.share})"
    mine = present.get(process.writer)
    if mine is not None:
        return f"writer {process.writer!r} has {mine.share} there, {process.share} here"
    for writer, other in sorted(present.items()):
        if other.share.overlaps(process.share):
            return f"{process.share} here, and writer {writer!r} has {other.share}"
    return None


def _next(process: Process, split: _Split, present: Mapping[str, _Member], epochs: Mapping[str, int]) -> _Split:
    """The split after this one, which begins where all its processes have ended."""
    begin = dict(split.begin)
    for writer, member in sorted(present.items()):
        last = epochs.get(writer, 0)
        ended, positions = member.drained or (0, {})
        if ended != last:
            raise StateError(
                "a process whose share is to be taken over has not ended with its sessions",
                detail=f"{process.topic}: writer {writer!r} with {member.share}, which has written {last:,} epochs",
                hint=f"run it with --once, while stream.drain is on, and then this one again; {_HOW}",
            )
        for place, offset in positions.items():
            begin[place] = max(offset, begin.get(place, 0))
    return replace(
        split, topic_id=process.topic_id, generation=split.generation + 1, split=process.share.split, begin=begin
    )


def _member(process: Process, generation: int, ended: tuple[int, dict[str, int]] | None = None) -> _Member:
    return _Member(
        topic=process.topic, topic_id=process.topic_id, generation=generation, share=process.share, drained=ended
    )


def _is_another(known: str | None, topic_id: str | None) -> bool:
    """Whether the topic was deleted and recreated, so that nothing that is known of it counts."""
    return known is not None and topic_id is not None and known != topic_id


def _split_name(topic: str) -> str:
    return f"{SPLIT}.{topic}"


def _split_text(split: _Split) -> str:
    return json.dumps(
        {"topic_id": split.topic_id, "generation": split.generation, "split": split.split, "begin": split.begin}
    )


def _split_of(process: Process, properties: Mapping[str, str]) -> _Split | None:
    return _read(properties, _split_name(process.topic), lambda value: _Split(**value))


def _member_text(process: Process, member: _Member) -> dict[str, str]:
    value = {
        "topic": member.topic,
        "topic_id": member.topic_id,
        "generation": member.generation,
        "share": member.share.as_json(),
        "drained": None if member.drained is None else {"epoch": member.drained[0], "positions": member.drained[1]},
    }
    return {f"{SHARE}.{process.writer}": json.dumps(value)}


def _members_of(process: Process, properties: Mapping[str, str]) -> dict[str, _Member]:
    """By writer: who reads this topic. Readers of an earlier topic of the same name do not count."""
    found = {}
    for name in properties:
        if name.startswith(f"{SHARE}."):
            member = _read(properties, name, _member_of)
            if member is None or member.topic != process.topic:
                continue
            if not _is_another(member.topic_id, process.topic_id):
                found[name.removeprefix(f"{SHARE}.")] = member
    return found


def _member_of(value: Mapping[str, Any]) -> _Member:
    ended = value["drained"]
    return _Member(
        topic=value["topic"],
        topic_id=value.get("topic_id"),  # earlier versions did not note it
        generation=value["generation"],
        share=Share.of_json(value["share"]),
        drained=None if ended is None else (ended["epoch"], dict(ended["positions"])),
    )


def _read(properties: Mapping[str, str], name: str, make: Callable[[dict[str, Any]], Record]) -> Record | None:
    text = properties.get(name)
    if text is None:
        return None
    try:
        return make(json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise StateError(
            "a table's record of who reads a topic cannot be read",
            detail=f"property {name}: {type(error).__name__}: {error}",
            hint="something else changed it, or a newer version wrote it",
        ) from error
