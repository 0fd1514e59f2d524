"""What every EpochSink has to do, as checks that any connector's tests can run against the real thing.

A connector says how to make its sink and how to read what others can see of it (SinkUnderTest), and runs the checks:

    @pytest.mark.parametrize("check", EPOCH_CHECKS, ids=check_name)
    def test_contract(check, place): check(SinkUnderTest(make=…, visible=…))

Each check needs an empty place. OUTAGE_CHECKS also need `away` and `back`, REPLACE_CHECKS a sink that can `replace`.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest

from sessionize.errors import SessionizeError, StateError, UnavailableError
from sessionize.ports import EpochId, EpochRows, EpochSink, ReplacingSink
from sessionize.session import columns as col
from sessionize.session.ids import user_hash_buckets

SESSIONS = "sessions"
LATE = "late"
REJECTED = "rejected"

# What is compared of a row; a sink may keep more.
_COMPARED = {
    SESSIONS: (col.USER, col.SESSION_ID, col.SESSION_START, col.EVENT_COUNT, col.PAGES_VISITED, col.EVENTS_BY_TYPE),
    LATE: (col.USER, col.EVENT_TIME, col.EVENT_ID, col.PAGE),
    REJECTED: ("raw", "source", "line_number", "reason", "detail"),
}

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkUnderTest:
    """A place to write to, with the two ways to it.

    make: a new sink on the place, as a new process would make it; it takes the user column `user`. visible: the rows of
    "sessions", "late" or "rejected" that a reader sees now, pages_visited as a list, events_by_type as a dict or a list
    of pairs, raw as bytes. kept: the tables the sink keeps. text: how the sink keeps a text, where it cannot keep every
    character. away, back: stop and start the server behind it.
    """

    make: Callable[[], EpochSink]
    visible: Callable[[str], Iterable[Row]]
    kept: frozenset[str] = frozenset({SESSIONS, LATE, REJECTED})
    text: Callable[[str], str] = str
    away: Callable[[], None] | None = None
    back: Callable[[], None] | None = None

    def shows(self, *epochs: EpochRows) -> None:
        """Assert that exactly the rows of these epochs are visible, in any order, each once."""
        for table in sorted(self.kept):
            expected = [row for rows in epochs for row in getattr(rows, table).to_pylist()]
            seen = sorted(repr(_compared(table, row, str)) for row in self.visible(table))
            assert seen == sorted(repr(_compared(table, row, self.text)) for row in expected), table


def check_name(check: Callable[..., object]) -> str:
    """A check's name, for pytest's ids."""
    return check.__name__.removeprefix("check_")


def sessions(users: Sequence[str], *, start_ms: int = 1_700_000_000_000, pages: Sequence[str] = ("home",)) -> pa.Table:
    """One session of two minutes for each user, with every session column."""
    rows = [
        {
            col.USER: user,
            col.SESSION_ID: f"{user}_{start_ms}",
            col.SESSION_START: start_ms,
            col.SESSION_END: start_ms + 120_000,
            col.SESSION_DURATION: 120.0,
            col.EVENT_COUNT: 3,
            col.PAGES_VISITED: list(pages),
            col.ENTRY_PAGE: pages[0] if pages else None,
            col.EXIT_PAGE: pages[-1] if pages else None,
            col.EVENTS_BY_TYPE: [("purchase", 1), ("view", 2)],
            col.HAS_CONVERSION: True,
            col.REVENUE: 12.5,
            col.START_REASON: "first",
            col.END_REASON: "inactivity",
            col.SESSION_DATE: start_ms // 86_400_000,
            col.USER_HASH_BUCKET: bucket,
        }
        for user, bucket in zip(users, user_hash_buckets(pa.array(users, pa.string())).to_pylist(), strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=col.SessionColumns().schema())


def events(users: Sequence[str], *, time_ms: int = 1_700_000_000_000, page: str = "home") -> pa.Table:
    """One event for each user, with every event column."""
    some: Row = {col.EVENT_TYPE: "view", col.PAGE: page, col.VALUE: 0.5, col.PROPERTIES: '{"a": 1}'}
    rows = [{**some, col.USER: user, col.EVENT_TIME: time_ms, col.EVENT_ID: f"{user}-{time_ms}"} for user in users]
    return pa.Table.from_pylist(rows, schema=pa.schema(list(col.EVENT_TYPES.items())))


def rejected(raws: Sequence[bytes]) -> pa.Table:
    """One rejected record for each of these bytes."""
    rows = [
        {"raw": raw, "source": "topic/0", "line_number": line, "reason": "bad_json", "detail": "not JSON"}
        for line, raw in enumerate(raws)
    ]
    return pa.Table.from_pylist(rows, schema=col.REJECTED_SCHEMA)


def epoch_rows(number: int, users: Sequence[str] = ("a", "b"), *, pages: Sequence[str] = ("home",)) -> EpochRows:
    """An epoch with a session and a late event for each user, other ones for each number, and two rejected records."""
    start_ms = 1_700_000_000_000 + number * 3_600_000
    return EpochRows(
        sessions=sessions(users, start_ms=start_ms, pages=pages),
        events=events(users, time_ms=start_ms),
        late=events(users, time_ms=start_ms - 86_400_000, page=pages[0] if pages else ""),
        rejected=rejected([f"{number}".encode(), b"\x00\xff\\"]),
        watermark_ms=start_ms,
    )


def epoch_id(number: int, *, writer: str = "writer", plan: str | None = None) -> EpochId:
    """The epoch's name; its plan's digest follows from the number unless it is given."""
    return EpochId(writer, number, f"plan-{number}" if plan is None else plan)


def empty_rows() -> EpochRows:
    """An epoch that adds nothing."""
    return EpochRows(
        sessions=sessions([]), events=events([]), late=events([]), rejected=rejected([]), watermark_ms=None
    )


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
    _tells_what_to_do(caught.value)
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
    changed = plain.sessions
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
        sink.write_epoch(epoch_id(2), _with_sessions(more, more.sessions.slice(1, 1)))
    place.shows(_with_sessions(plain, changed), _with_sessions(more, more.sessions.slice(1, 1)))


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
        _tells_what_to_do(caught.value)
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
        sink.replace(keys(rows.sessions.slice(0, 1)), joined, token="first")
        expected = _with_sessions(rows, pa.concat_tables([rows.sessions.slice(1), joined.drop_columns([col.REVISION])]))
        place.shows(expected)
        assert _revisions(place) == {"a_5": 1, rows.sessions[col.SESSION_ID][1].as_py(): 0}

        sink.replace(keys(joined), with_revision(rows.sessions.slice(0, 1), 2), token="second")
        place.shows(rows)
        sink.replace(keys(rows.sessions.slice(0, 1)), joined, token="first")
    with closing(_replacing(place)) as sink:
        sink.replace(keys(rows.sessions.slice(0, 1)), joined, token="first")
    place.shows(rows)
    assert set(_revisions(place).values()) == {0, 2}


def check_replacing_by_the_same_id(place: SinkUnderTest) -> None:
    """A session that keeps its id but changes inside; one that was never there may be removed."""
    rows = epoch_rows(1, ["a", "b"])
    changed = sessions(["a"], start_ms=rows.sessions[col.SESSION_START][0].as_py(), pages=["more", "pages"])
    with closing(_replacing(place)) as sink:
        sink.write_epoch(epoch_id(1), rows)
        sink.replace(keys(pa.concat_tables([changed, sessions(["nobody"])])), with_revision(changed, 1), token="only")
        sink.replace(keys(sessions([])), with_revision(sessions([]), 1), token="nothing")
    place.shows(_with_sessions(rows, pa.concat_tables([changed, rows.sessions.slice(1)])))


def keys(rows: pa.Table) -> pa.Table:
    """The user and session_id of sessions, as `replace` wants them."""
    return rows.select([col.USER, col.SESSION_ID])


def with_revision(rows: pa.Table, revision: int) -> pa.Table:
    """Sessions with this revision."""
    return rows.append_column(col.REVISION, pa.array([revision] * rows.num_rows, pa.int32()))


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
)
OUTAGE_CHECKS: tuple[Callable[[SinkUnderTest], None], ...] = (check_an_outage, check_an_outage_at_the_start)
REPLACE_CHECKS: tuple[Callable[[SinkUnderTest], None], ...] = (
    check_sessions_are_replaced,
    check_replacing_by_the_same_id,
)


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


def _with_sessions(rows: EpochRows, replaced: pa.Table) -> EpochRows:
    return EpochRows(
        sessions=replaced, events=rows.events, late=rows.late, rejected=rows.rejected, watermark_ms=rows.watermark_ms
    )


def _replacing(place: SinkUnderTest) -> ReplacingSink:
    sink = place.make()
    assert isinstance(sink, ReplacingSink)
    return sink


def _revisions(place: SinkUnderTest) -> dict[str, int]:
    return {row[col.SESSION_ID]: row[col.REVISION] for row in place.visible(SESSIONS)}


def _tells_what_to_do(error: SessionizeError) -> None:
    assert error.message
    assert error.detail
    assert error.hint
