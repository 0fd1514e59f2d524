"""What every EpochSink has to do, as checks that any connector's tests can run against the real thing.

A connector says how to make its sink and how to read what others can see of it (SinkUnderTest), and runs the checks:

    @pytest.mark.parametrize("check", EPOCH_CHECKS, ids=check_name)
    def test_contract(check, place): check(SinkUnderTest(make=…, visible=…))

Each check needs an empty place. OUTAGE_CHECKS also need `away` and `back`, REPLACE_CHECKS a sink that can `replace`.
"""

import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest

from sessionize.errors import SessionizeError, StateError, UnavailableError
from sessionize.ports import EpochOutput, EpochSink, ReplacingSink
from sessionize.session import columns as col
from sessionize.session import output_tables as output
from sessionize.testing.epoch_outputs import (
    empty_rows,
    epoch_id,
    epoch_rows,
    events,
    keys,
    rejected,
    sessions,
    with_revision,
)

__all__ = [
    "EPOCH_CHECKS",
    "OUTAGE_CHECKS",
    "REPLACE_CHECKS",
    "ReplacingSink",
    "SinkUnderTest",
    "check_name",
    "empty_rows",
    "epoch_id",
    "epoch_rows",
    "events",
    "keys",
    "rejected",
    "sessions",
    "tells_what_to_do",
    "with_revision",
]

# What is compared of a row; a sink may keep more.
_COMPARED = {
    output.SESSIONS.name: (
        col.USER,
        col.SESSION_ID,
        col.SESSION_START,
        col.EVENT_COUNT,
        col.PAGES_VISITED,
        col.EVENTS_BY_TYPE,
    ),
    output.LATE_EVENTS.name: (col.USER, col.EVENT_TIME, col.EVENT_ID, col.PAGE),
    output.REJECTED_EVENTS.name: ("raw", "source", "line_number", "reason", "detail"),
}

_OLD_NAMES = {
    "SESSIONS": output.SESSIONS.name,
    "LATE": output.LATE_EVENTS.name,
    "REJECTED": output.REJECTED_EVENTS.name,
}

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkUnderTest:
    """A place to write to, with the two ways to it.

    make: a new sink on the place, as a new process would make it; it takes the user column `user`. visible: the rows of
    an output table, by its name, that a reader sees now, pages_visited as a list, events_by_type as a dict or a list of
    pairs, raw as bytes. kept: the names of the tables the sink keeps, of those that are compared. text: how the sink
    keeps a text, where it cannot keep every character. away, back: stop and start the server behind it.

    For the checks of further_tables.py: make_further: a sink that knows the specs FURTHER_TABLES, and writes these of
    the further tables beside those of `kept`. updates: a row with a key that is there takes its place. writer: under
    which name the epochs come.
    """

    make: Callable[[], EpochSink]
    visible: Callable[[str], Iterable[Row]]
    kept: frozenset[str] = frozenset(_COMPARED)
    text: Callable[[str], str] = str
    away: Callable[[], None] | None = None
    back: Callable[[], None] | None = None
    make_further: Callable[[Sequence[str]], EpochSink] | None = None
    updates: bool = False
    writer: str = "writer"

    def shows(self, *epochs: EpochOutput) -> None:
        """Assert that exactly the rows of these epochs are visible, in any order, each once."""
        for table in sorted(self.kept):
            expected = [row for rows in epochs for row in rows.tables[table].to_pylist()]
            seen = sorted(repr(_compared(table, row, str)) for row in self.visible(table))
            assert seen == sorted(repr(_compared(table, row, self.text)) for row in expected), table


def check_name(check: Callable[..., object]) -> str:
    """A check's name, for pytest's ids."""
    return check.__name__.removeprefix("check_")


def check_rows_become_visible(place: SinkUnderTest) -> None:
    """Epoch after epoch, everything is there, also to a sink made later."""
    with closing(place.make()) as sink:
        sink.write_epoch(epoch_id(1), epoch_rows(1))
        place.shows(epoch_rows(1))
        sink.write_epoch(epoch_id(2), epoch_rows(2))
    place.shows(epoch_rows(1), epoch_rows(2))


def check_the_same_epoch_twice(place: SinkUnderTest) -> None:
    """By the sink that wrote it, and by one that comes after it."""
    with closing(place.make()) as sink:
        sink.write_epoch(epoch_id(1), epoch_rows(1))
        sink.write_epoch(epoch_id(1), epoch_rows(1))
    with closing(place.make()) as sink:
        sink.write_epoch(epoch_id(1), epoch_rows(1))
    place.shows(epoch_rows(1))


def check_an_older_epoch(place: SinkUnderTest) -> None:
    """Everything is repeated after a crash; only what comes after the last epoch is new."""
    with closing(place.make()) as sink:
        for number in (1, 2, 3):
            sink.write_epoch(epoch_id(number), epoch_rows(number))
    with closing(place.make()) as sink:
        for number in (1, 2, 3, 4):
            sink.write_epoch(epoch_id(number), epoch_rows(number))
    place.shows(*(epoch_rows(number) for number in (1, 2, 3, 4)))


def check_another_plan_is_refused(place: SinkUnderTest) -> None:
    """Also by a new sink; and the refused rows are nowhere, while the true plan goes on."""
    with closing(place.make()) as sink:
        sink.write_epoch(epoch_id(1), epoch_rows(1))
        with pytest.raises(StateError) as caught:
            sink.write_epoch(epoch_id(1, plan="other"), epoch_rows(7))
    tells_what_to_do(caught.value)
    with closing(place.make()) as sink:
        with pytest.raises(StateError):
            sink.write_epoch(epoch_id(1, plan="other"), epoch_rows(7))
        sink.write_epoch(epoch_id(2), epoch_rows(2))
    place.shows(epoch_rows(1), epoch_rows(2))


def check_two_writers(place: SinkUnderTest) -> None:
    """Each counts its own epochs; the same number with another plan is no conflict between them."""
    one, two = (epoch_rows(1, ["a"]), epoch_rows(1, ["b"]))
    with closing(place.make()) as first, closing(place.make()) as second:
        first.write_epoch(epoch_id(1, writer="one", plan="x"), one)
        second.write_epoch(epoch_id(1, writer="two", plan="y"), two)
        first.write_epoch(epoch_id(2, writer="one", plan="x2"), epoch_rows(2, ["a"]))
        second.write_epoch(epoch_id(1, writer="two", plan="y"), two)
    place.shows(one, two, epoch_rows(2, ["a"]))


def check_an_empty_epoch(place: SinkUnderTest) -> None:
    """It shows nothing, and counts as written."""
    with closing(place.make()) as sink:
        sink.write_epoch(epoch_id(1), empty_rows())
        sink.write_epoch(epoch_id(2), epoch_rows(2))
        sink.write_epoch(epoch_id(3), empty_rows())
    with closing(place.make()) as sink:
        assert sink.last_epoch("writer") == 3
        with pytest.raises(StateError):
            sink.write_epoch(epoch_id(3, plan="other"), empty_rows())
        sink.write_epoch(epoch_id(1), epoch_rows(1))
    place.shows(epoch_rows(2))


def check_the_last_epoch(place: SinkUnderTest) -> None:
    """Of each writer, also one whose name begins with another's; told by the sink that wrote it and by a later one."""
    with closing(place.make()) as sink:
        assert sink.last_epoch("writer") == 0
        for number in (1, 2, 10):
            sink.write_epoch(epoch_id(number), epoch_rows(number))
            assert sink.last_epoch("writer") == number
        sink.write_epoch(epoch_id(2), epoch_rows(2))
    with closing(place.make()) as sink:
        sink.write_epoch(epoch_id(300, writer="writer-1"), epoch_rows(3))
        assert [sink.last_epoch(name) for name in ("writer", "writer-1", "write")] == [10, 300, 0]
    place.shows(*(epoch_rows(number) for number in (1, 2, 10, 3)))


def check_odd_text(place: SinkUnderTest) -> None:
    """What can stand in a JSON string stays what it was, or what `text` says; and different users stay different."""
    users = ["dé", "日本", "😀", "a\0b", "a␀b", "a␛␀b", "\x1b\x7f", "it's", 'say "x"', "a\\b", "\\N", "%s", "{}", "a,b"]
    users += ["tab\there", "line\nfeed", "return\r\n", "\n\\.\n", "\u2028", " padded ", "null"]
    users += ["x" * 1_000, "\ufeffbom"]
    rows = epoch_rows(1, users, pages=[*users, ""])
    with closing(place.make()) as sink:
        sink.write_epoch(epoch_id(1, writer="wri'ter é\n"), rows)
        sink.write_epoch(epoch_id(1, writer="wri'ter é\n"), rows)
    place.shows(rows)


def check_nulls_and_encodings(place: SinkUnderTest) -> None:
    """Absent values, empty lists, and text columns that come dictionary-encoded, sliced and in pieces."""
    plain = epoch_rows(1, ["a", "b", "c", "d"])
    changed = _sessions(plain)
    for name in (col.PAGES_VISITED, col.ENTRY_PAGE, col.EVENTS_BY_TYPE, col.END_REASON, col.REVENUE):
        at = changed.schema.get_field_index(name)
        kind = changed.schema.types[at]
        value = changed[name][0].as_py()
        mixed = [None, value, None, [] if isinstance(value, list) else value]
        changed = changed.set_column(at, name, pa.array(mixed, kind))
    pieces = pa.concat_tables([changed.slice(0, 1), changed.slice(1, 2), changed.slice(3)])
    for name in (col.USER, col.END_REASON, col.ENTRY_PAGE):
        pieces = pieces.set_column(pieces.schema.get_field_index(name), name, pieces[name].dictionary_encode())
    with closing(place.make()) as sink:
        sink.write_epoch(epoch_id(1), _with_sessions(plain, pieces))
        more = epoch_rows(2, ["e", "f", "g"])
        sink.write_epoch(epoch_id(2), _with_sessions(more, _sessions(more).slice(1, 1)))
    place.shows(_with_sessions(plain, changed), _with_sessions(more, _sessions(more).slice(1, 1)))


def check_huge_lists(place: SinkUnderTest) -> None:
    """A session of very many pages, long ones among them."""
    pages = [f"/page/{i}" for i in range(50_000)] + ["long" * 50_000]
    rows = epoch_rows(1, ["a"], pages=pages)
    with closing(place.make()) as sink:
        sink.write_epoch(epoch_id(1), rows)
    place.shows(rows)


def check_an_outage(place: SinkUnderTest) -> None:
    """While the server is away, UnavailableError; when it is back, the same sink goes on where it was."""
    assert place.away is not None
    assert place.back is not None
    with closing(place.make()) as sink:
        sink.write_epoch(epoch_id(1), epoch_rows(1))
        place.away()
        try:
            with pytest.raises(UnavailableError) as caught:
                sink.write_epoch(epoch_id(2), epoch_rows(2))
            with pytest.raises(UnavailableError):
                sink.last_epoch("writer")
        finally:
            place.back()
        tells_what_to_do(caught.value)
        assert sink.last_epoch("writer") == 1
        sink.write_epoch(epoch_id(2), epoch_rows(2))
        sink.write_epoch(epoch_id(3), epoch_rows(3))
    place.shows(*(epoch_rows(number) for number in (1, 2, 3)))


def check_an_outage_at_the_start(place: SinkUnderTest) -> None:
    """A sink may be made, or fail with UnavailableError, while its server is away; later it works."""
    assert place.away is not None
    assert place.back is not None
    place.away()
    try:
        with pytest.raises(UnavailableError), closing(place.make()) as sink:
            sink.write_epoch(epoch_id(1), epoch_rows(1))
    finally:
        place.back()
    with closing(place.make()) as sink:
        sink.write_epoch(epoch_id(1), epoch_rows(1))
    place.shows(epoch_rows(1))


def check_sessions_are_replaced(place: SinkUnderTest) -> None:
    """Removed ones are gone, added ones there with their revision, the others untouched; each token works once."""
    joined = with_revision(sessions(["a"], start_ms=5, pages=["joined"]), 1)
    rows = epoch_rows(1, ["a", "b"])
    with closing(_replacing(place)) as sink:
        sink.write_epoch(epoch_id(1), rows)
        sink.replace(keys(_sessions(rows).slice(0, 1)), joined, token="first")
        expected = _with_sessions(
            rows, pa.concat_tables([_sessions(rows).slice(1), joined.drop_columns([col.REVISION])])
        )
        place.shows(expected)
        assert _revisions(place) == {"a_5": 1, _sessions(rows)[col.SESSION_ID][1].as_py(): 0}

        sink.replace(keys(joined), with_revision(_sessions(rows).slice(0, 1), 2), token="second")
        place.shows(rows)
        sink.replace(keys(_sessions(rows).slice(0, 1)), joined, token="first")
    with closing(_replacing(place)) as sink:
        sink.replace(keys(_sessions(rows).slice(0, 1)), joined, token="first")
    place.shows(rows)
    assert set(_revisions(place).values()) == {0, 2}


def check_replacing_by_the_same_id(place: SinkUnderTest) -> None:
    """A session that keeps its id but changes inside; one that was never there may be removed."""
    rows = epoch_rows(1, ["a", "b"])
    changed = sessions(["a"], start_ms=_sessions(rows)[col.SESSION_START][0].as_py(), pages=["more", "pages"])
    with closing(_replacing(place)) as sink:
        sink.write_epoch(epoch_id(1), rows)
        sink.replace(keys(pa.concat_tables([changed, sessions(["nobody"])])), with_revision(changed, 1), token="only")
        sink.replace(keys(sessions([])), with_revision(sessions([]), 1), token="nothing")
    place.shows(_with_sessions(rows, pa.concat_tables([changed, _sessions(rows).slice(1)])))


def check_session_columns_of_ones_own(place: SinkUnderTest) -> None:
    """Each type comes through; rows from before a column was added, and after it was left out, have nothing there."""
    own: dict[str, pa.Array] = {
        "Own_Text": pa.array(["é", None]),
        "own_list": pa.array([["x", "y"], []], pa.list_(pa.string())),
        "own_number": pa.array([0.5, None]),
        "own_integer": pa.array([2**53 + 1, None]),
        "own_boolean": pa.array([True, None]),
    }
    with closing(place.make()) as sink:
        for number, names in enumerate([[], list(own), ["own_list", "own_number"]], start=1):
            columns = _sessions(epoch_rows(number))
            for name in names:
                columns = columns.append_column(name, own[name])
            sink.write_epoch(epoch_id(number), _with_sessions(epoch_rows(number), columns))
    if output.SESSIONS.name not in place.kept:
        return
    seen = {(row[col.USER], row[col.SESSION_ID]): row for row in place.visible(output.SESSIONS.name)}
    for number, names in ((1, []), (2, list(own)), (3, ["own_list", "own_number"])):
        for at, row in enumerate(_sessions(epoch_rows(number)).to_pylist()):
            found = seen[row[col.USER], row[col.SESSION_ID]]
            for name, values in own.items():
                expected, value = values[at].as_py() if name in names else None, found.get(name)
                value = json.loads(value) if isinstance(value, str) and name == "own_list" else value
                assert value == expected, (number, name)


EPOCH_CHECKS: tuple[Callable[[SinkUnderTest], None], ...] = (
    check_rows_become_visible,
    check_the_same_epoch_twice,
    check_an_older_epoch,
    check_another_plan_is_refused,
    check_two_writers,
    check_an_empty_epoch,
    check_the_last_epoch,
    check_odd_text,
    check_nulls_and_encodings,
    check_huge_lists,
    check_session_columns_of_ones_own,
)
OUTAGE_CHECKS: tuple[Callable[[SinkUnderTest], None], ...] = (check_an_outage, check_an_outage_at_the_start)
REPLACE_CHECKS: tuple[Callable[[SinkUnderTest], None], ...] = (
    check_sessions_are_replaced,
    check_replacing_by_the_same_id,
)


def __getattr__(name: str) -> str:
    """What tables were called here before they had the names of the tables."""
    if name not in _OLD_NAMES:
        raise AttributeError(name)
    warnings.warn(f"{name} is the table {_OLD_NAMES[name]!r}", DeprecationWarning, stacklevel=2)
    return _OLD_NAMES[name]


def _compared(table: str, row: Row, text: Callable[[str], str]) -> list[object]:
    return [_plain(row.get(name), text) for name in _COMPARED[table]]


def _plain(value: object, text: Callable[[str], str]) -> object:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, dict):
        return _plain(sorted(value.items()), text)
    if isinstance(value, list | tuple):
        return [_plain(inner, text) for inner in value]
    return value


def _sessions(rows: EpochOutput) -> pa.Table:
    return rows.tables[output.SESSIONS.name]


def _with_sessions(rows: EpochOutput, replaced: pa.Table) -> EpochOutput:
    return rows.with_tables({output.SESSIONS.name: replaced})


def _replacing(place: SinkUnderTest) -> ReplacingSink:
    sink = place.make()
    assert isinstance(sink, ReplacingSink)
    return sink


def _revisions(place: SinkUnderTest) -> dict[str, int]:
    return {row[col.SESSION_ID]: row[col.REVISION] for row in place.visible(output.SESSIONS.name)}


def tells_what_to_do(error: SessionizeError) -> None:
    """Assert that an error says what failed, where, and what to do."""
    assert error.message
    assert error.detail
    assert error.hint
