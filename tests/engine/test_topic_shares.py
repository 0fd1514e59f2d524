"""Who reads which part of a topic, as the tables remember it: no record is read by two processes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize.engine.stream.topic_shares import (
    Place,
    Process,
    Share,
    check_place,
    drained,
    positions_to_seek,
    take_place,
)
from sessionize.errors import StateError
from sessionize.testing.streams import InMemoryStreamSource

WHOLE = Share()
SHARES = st.one_of(
    st.integers(1, 6).flatmap(lambda n: st.integers(0, n - 1).map(lambda i: Share(None, (i, n)))),
    st.frozensets(st.integers(0, 7), min_size=1).map(Share),
)


def of(number: int, total: int) -> Share:
    return Share(None, (number, total))


def listed(*partitions: int) -> Share:
    return Share(frozenset(partitions))


def process(writer: str, share: Share, *, take_over: bool = False, topic_id: str | None = "id") -> Process:
    return Process(writer=writer, topic="web", topic_id=topic_id, share=share, take_over=take_over)


@dataclass
class Tables:
    """What the tables remember."""

    properties: dict[str, str] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)

    def start(self, who: Process) -> Place:
        place = take_place(who, self.properties, self.epochs)
        self.properties.update(place.changes)
        return place

    def epoch(self, who: Process, place: Place) -> None:
        check_place(who, place.generation, self.properties)
        self.epochs[who.writer] = self.epochs.get(who.writer, 0) + 1

    def end(self, who: Process, place: Place, positions: Mapping[str, int]) -> None:
        self.properties.update(drained(who, place.generation, self.epochs.get(who.writer, 0), positions))


@given(SHARES, SHARES)
def test_shares_overlap_where_a_partition_is_of_both(one: Share, other: Share) -> None:
    both = any(one.has(p) and other.has(p) for p in range(60))  # more than any product of two numbers of processes
    assert one.overlaps(other) == other.overlaps(one) == both


def test_a_process_goes_on_with_its_share() -> None:
    tables, who = Tables(), process("w", WHOLE)
    first = tables.start(who)
    assert (first.generation, first.begin) == (1, {})
    tables.epoch(who, first)
    assert tables.start(who) == Place(1, {}, {})
    tables.end(who, first, {"web[0]": 9})
    assert tables.start(who) == Place(1, {}, {})


def test_all_of_one_split_may_start() -> None:
    tables = Tables()
    for number in range(4):
        tables.start(process(f"w-{number}", of(number, 4)))
    tables = Tables()
    tables.start(process("a", listed(0, 1)))
    tables.start(process("b", listed(2, 3)))


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        (WHOLE, of(0, 4), "it is split not at all there, between 4 processes here (number 0 of 4)"),
        (of(1, 4), of(1, 6), "it is split between 4 processes there, between 6 processes here (number 1 of 6)"),
        (of(1, 4), of(1, 4), "number 1 of 4 here, and writer 'old' has number 1 of 4"),
        (WHOLE, WHOLE, "all partitions here, and writer 'old' has all partitions"),
        (listed(0, 1), listed(1, 2), "partitions 1,2 here, and writer 'old' has partitions 0,1"),
        (listed(0, 1), of(0, 2), "it is split by lists of partitions there, between 2 processes here"),
    ],
)
def test_what_does_not_fit_is_refused(first: Share, second: Share, says: str) -> None:
    tables = Tables()
    tables.start(process("old", first))
    with pytest.raises(StateError) as caught:
        tables.start(process("new", second))
    assert says in str(caught.value)
    assert "(run --once, while stream.drain is on), then start the new ones with --take-over" in str(caught.value)


def test_the_same_writer_cannot_change_its_share_by_itself() -> None:
    tables = Tables()
    tables.start(process("w", listed(0, 1)))
    with pytest.raises(StateError, match="writer 'w' has partitions 0,1 there, partitions 0,1,2 here"):
        tables.start(process("w", listed(0, 1, 2)))


def test_the_number_of_processes_changes_when_all_have_ended() -> None:
    tables = Tables()
    old = [process(f"w-{number}", of(number, 2)) for number in range(2)]
    places = [tables.start(each) for each in old]
    for each, place in zip(old, places, strict=True):
        tables.epoch(each, place)
    tables.end(old[0], places[0], {"web[0]": 10, "web[2]": 30})
    new = [process(f"w-{number}", of(number, 3), take_over=True) for number in range(3)]
    with pytest.raises(StateError, match="writer 'w-1' with number 1 of 2, which has written 1 epochs"):
        tables.start(new[0])
    tables.end(old[1], places[1], {"web[1]": 20})
    begun = [tables.start(each) for each in new]
    assert [(each.generation, each.begin) for each in begun] == [(2, {"web[0]": 10, "web[1]": 20, "web[2]": 30})] * 3
    for each, place in zip(new, begun, strict=True):
        tables.epoch(each, place)
    for each in old:  # started again by mistake, or never ended
        with pytest.raises(StateError, match="split between 3 processes there, between 2 processes here"):
            tables.start(each)
    with pytest.raises(StateError, match="was taken over by others"):
        tables.epoch(old[1], places[1])
    again = tables.start(new[2])
    assert (again.begin, again.changes) == (begun[2].begin, {})


def test_what_was_written_after_the_end_was_noted_counts() -> None:
    """It was run on, so how far it had come then is too little."""
    tables, old = Tables(), process("w", WHOLE)
    place = tables.start(old)
    tables.end(old, place, {"web[0]": 10})
    tables.epoch(old, place)
    with pytest.raises(StateError, match="not ended with its sessions"):
        tables.start(process("w-0", of(0, 2), take_over=True))


def test_a_process_that_never_wrote_needs_no_end() -> None:
    tables = Tables()
    tables.start(process("w", listed(0, 1, 2, 3)))  # a mistyped list, stopped at once
    place = tables.start(process("w", listed(0, 1), take_over=True))
    assert (place.generation, place.begin) == (2, {})


def test_positions_grow_from_split_to_split() -> None:
    tables, writers = Tables(), [process(f"w{n}", of(0, n + 1), take_over=True) for n in range(4)]
    for n, each in enumerate(writers):
        place = tables.start(each)
        assert place.generation == n + 1
        assert place.begin == ({} if n == 0 else {"web[0]": n * 10, "web[9]": 5})
        tables.epoch(each, place)
        tables.end(each, place, {"web[0]": (n + 1) * 10, "web[9]": 5 - n})


def test_a_topic_made_anew_is_another_one() -> None:
    tables = Tables()
    tables.start(process("w", WHOLE))
    assert tables.start(process("x", of(0, 2), topic_id="another")).generation == 1
    with pytest.raises(StateError, match="split otherwise"):
        tables.start(process("y", WHOLE, topic_id=None))  # servers that give no ids


@pytest.mark.parametrize("before", [1, 2, 3, 4])
@pytest.mark.parametrize("now", [1, 2, 3, 4])
def test_a_recreated_topic_takes_any_number_of_processes(before: int, now: int) -> None:
    """Those of the topic before it have the same names, and their generation is the first as well."""
    tables = Tables()
    for number in range(before):
        who = process(f"w-{number}", of(number, before))
        tables.epoch(who, tables.start(who))
    new = [process(f"w-{number}", of(number, now), topic_id="another") for number in range(now)]
    places = [tables.start(each) for each in new]
    assert [(each.generation, each.begin) for each in places] == [(1, {})] * now
    assert [tables.start(each).changes for each in new] == [{}] * now
    with pytest.raises(StateError, match="split otherwise"):
        tables.start(process("more", of(0, now), topic_id="another"))
    for number, (each, place) in enumerate(zip(new, places, strict=True)):
        tables.end(each, place, {f"web[{number}]": number})
    # the earlier readers never ended, and nobody waits for them
    with pytest.raises(StateError, match="split otherwise"):
        tables.start(process("w-0", of(0, now + 1), topic_id="another"))
    place = tables.start(process("w-0", of(0, now + 1), topic_id="another", take_over=True))
    assert (place.generation, place.begin) == (2, {f"web[{number}]": number for number in range(now)})


def test_other_topics_do_not_matter() -> None:
    tables = Tables()
    tables.start(process("w", WHOLE))
    other = Process(writer="x", topic="shop", topic_id="id", share=WHOLE)
    assert tables.start(other).generation == 1


def test_a_record_that_cannot_be_read_is_an_error() -> None:
    for name in ("sessionize.split.web", "sessionize.share.v"):
        with pytest.raises(StateError, match=f"property {name}"):
            Tables({name: "soon"}).start(process("w", WHOLE))


def test_positions_go_on_where_others_have_ended() -> None:
    """Unless this process is further itself; a partition that others read now does not count."""
    source = InMemoryStreamSource([[], [], [], []])
    own = {"0": 7, "1": 2, "9": 4}

    assert positions_to_seek(own, None, source) == own
    assert positions_to_seek(own, {"1": 5, "2": 6, "8": 1}, source) == {"0": 7, "1": 5, "2": 6}
