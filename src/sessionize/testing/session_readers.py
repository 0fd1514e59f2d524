"""What everything has to do that reads sessions back, as two suites of tests: of closed sessions, and of open ones.

    class TestMine(ClosedSessionReaderContract):
        @pytest.fixture
        def written(self) -> Written: ...

A view of open sessions shows them (ports.LiveView) and reads them (ports.OpenSessionReader).
"""

from collections.abc import Callable
from typing import Protocol

import pyarrow as pa
import pytest

from sessionize.ports import ClosedSessionReader, LiveView, OpenSessionReader
from sessionize.session import columns as col
from sessionize.testing.epoch_sinks import sessions

DAY_MS = 86_400_000
START_MS = 1_700_000_000_000
NOW_MS = 1_800_000_000_000
NOBODY = pa.array([], pa.string())
ODD_USERS = ["a b", "o'hara", 'q"uote', "dé", "日本", "%", "a%", "_", "*", "\\", "line\nfeed", "x" * 300]

# Keeps the sessions, and reads them; the user column is `user`.
Written = Callable[[pa.Table], ClosedSessionReader]


class ClosedSessionReaderContract:
    """What reads final sessions. Override the fixture `written`."""

    @pytest.fixture
    def written(self) -> Written:
        """Writes sessions to an empty place, and gives what reads them."""
        raise NotImplementedError

    def test_a_user_has_its_own_sessions_the_newest_first(self, written: Written) -> None:
        starts = [START_MS, START_MS + DAY_MS, START_MS - DAY_MS, START_MS + 60_000]
        reader = written(pa.concat_tables(sessions(["ann", "ben"], start_ms=start) for start in starts))
        found = reader.sessions_of("ann", limit=10)
        assert found[col.USER].to_pylist() == ["ann"] * 4
        assert found[col.SESSION_START].to_pylist() == sorted(starts, reverse=True)
        assert reader.sessions_of("ann", limit=2)[col.SESSION_START].to_pylist() == sorted(starts)[:1:-1]

    def test_rows_come_back_as_they_are(self, written: Written) -> None:
        made = sessions(["ann"], start_ms=START_MS, pages=["home", "cart"])
        (row,) = written(made).sessions_of("ann", limit=1).select(made.column_names).to_pylist()
        assert row == made.to_pylist()[0]

    def test_an_unknown_user_has_no_rows(self, written: Written) -> None:
        reader = written(sessions(["ann"]))
        for user in ("an", "ann ", "ANN", "%", "' OR 1 = 1 --"):
            found = reader.sessions_of(user, limit=10)
            assert (found.num_rows, col.SESSION_ID in found.column_names) == (0, True)

    def test_users_of_any_name(self, written: Written) -> None:
        reader = written(sessions(ODD_USERS))
        for user in ODD_USERS:
            assert reader.sessions_of(user, limit=10)[col.USER].to_pylist() == [user]

    def test_the_sessions_that_began_last(self, written: Written) -> None:
        starts = [START_MS + hours * 3_600_000 for hours in (0, 1, 30, 31, 32, 80)]
        reader = written(pa.concat_tables(sessions([f"u{at}"], start_ms=start) for at, start in enumerate(starts)))
        for limit in (1, 3, 4, 6, 100):
            found = reader.recent(limit)
            assert found[col.SESSION_START].to_pylist() == starts[::-1][:limit]

    def test_sessions_that_began_together_come_by_their_ids(self, written: Written) -> None:
        found = written(sessions(["cid", "ann", "ben"])).recent(2)
        assert found[col.USER].to_pylist() == ["ann", "ben"]


class OpenView(LiveView, OpenSessionReader, Protocol):
    """Shows open sessions, and reads them."""


class OpenSessionReaderContract:
    """What shows and reads open sessions. Override the fixture `view`."""

    @pytest.fixture
    def view(self) -> OpenView:
        """An empty view; the user column is `user`."""
        raise NotImplementedError

    def test_an_open_session_is_read_with_all_its_columns(self, view: OpenView) -> None:
        view.update(_open(["ann", "ben"]), NOBODY, now_ms=NOW_MS)
        found = view.open_session("ann")
        assert found is not None
        assert {name: found[name] for name in col.SESSION_COLUMNS} == {
            **_open(["ann"]).to_pylist()[0],
            col.EVENTS_BY_TYPE: {"purchase": 1, "view": 2},
            col.SESSION_DATE: "2023-11-14",
        }
        assert found["shown_at_ms"] == NOW_MS

    def test_who_has_none_is_none(self, view: OpenView) -> None:
        assert view.open_session("ann") is None
        view.update(_open(["ann"]), NOBODY, now_ms=NOW_MS)
        for user in ("an", "ann ", "*", ""):
            assert view.open_session(user) is None

    def test_a_session_grows_ends_and_begins_anew(self, view: OpenView) -> None:
        view.update(_open(["ann", "ben"]), NOBODY, now_ms=NOW_MS)
        view.update(_open(["ann"], start_ms=START_MS + 5), pa.array(["ben", "never there"]), now_ms=NOW_MS + 1)
        found = view.open_session("ann")
        assert found is not None
        assert (found[col.SESSION_START], found["shown_at_ms"]) == (START_MS + 5, NOW_MS + 1)
        assert view.open_session("ben") is None
        view.update(_open(["ben"]), pa.array(["ann"]), now_ms=NOW_MS + 2)
        assert view.open_session("ann") is None
        assert view.open_session("ben") is not None

    def test_a_view_that_is_cleared_shows_nobody(self, view: OpenView) -> None:
        view.update(_open(["ann"]), NOBODY, now_ms=NOW_MS)
        view.clear()
        assert view.open_session("ann") is None
        view.update(_open(["ann"]), NOBODY, now_ms=NOW_MS)
        assert view.open_session("ann") is not None

    def test_users_of_any_name(self, view: OpenView) -> None:
        view.update(_open(ODD_USERS), NOBODY, now_ms=NOW_MS)
        for user in ODD_USERS:
            found = view.open_session(user)
            assert found is not None
            assert found[col.USER] == user


def _open(users: list[str], *, start_ms: int = START_MS) -> pa.Table:
    made = sessions(users, start_ms=start_ms)
    at = made.column_names.index(col.END_REASON)
    return made.set_column(at, made.schema.field(at), pa.nulls(len(users), made.schema.field(at).type))
