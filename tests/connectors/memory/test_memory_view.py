"""Open sessions in this process: the contract, threads, and memory that follows what is open."""

import threading
from itertools import pairwise

import pyarrow as pa
import pytest

from sessionize.connectors.memory import MemoryLiveView
from sessionize.session import columns as col
from sessionize.testing.epoch_sinks import sessions
from sessionize.testing.session_readers import NOBODY, NOW_MS, OpenSessionReaderContract, OpenView


class TestMemoryLiveView(OpenSessionReaderContract):
    @pytest.fixture
    def view(self) -> OpenView:
        return MemoryLiveView()


def test_the_user_column_is_called_as_in_the_input() -> None:
    view = MemoryLiveView(user_name="uuid")
    view.update(sessions(["ann"]).rename_columns(["uuid", *sessions([]).column_names[1:]]), NOBODY, now_ms=NOW_MS)
    found = view.open_session("ann")
    assert found is not None
    assert found["uuid"] == "ann"


def test_memory_follows_what_is_open() -> None:
    view = MemoryLiveView()
    users = [f"u{number}" for number in range(1_000)]
    for turn in range(100):
        view.update(sessions(users, start_ms=turn), NOBODY, now_ms=turn)
        assert view.rows_kept <= 2 * 1_000 + 10_000
    assert len(view) == 1_000
    assert view.open_session("u7") == {**(view.open_session("u7") or {}), col.SESSION_START: 99, "shown_at_ms": 99}
    for turn in range(100):
        view.update(sessions([]), pa.array(users), now_ms=turn)
        view.update(sessions([f"v{turn}"]), NOBODY, now_ms=turn)
    assert len(view) == 100
    assert view.rows_kept <= 100 + 12_000
    assert view.open_session("u7") is None
    assert (view.open_session("v3") or {})["shown_at_ms"] == 3


def test_packing_leaves_every_user_the_own_session() -> None:
    """Half of the users stay as they were shown first, while the others are shown again until rows are packed."""
    view, users = MemoryLiveView(), [f"u{number}" for number in range(600)]
    view.update(sessions(users, start_ms=1), NOBODY, now_ms=1)
    kept = [view.rows_kept]
    for turn in range(2, 60):
        view.update(sessions(users[::2], start_ms=turn), NOBODY, now_ms=turn)
        kept.append(view.rows_kept)
    assert any(later < earlier for earlier, later in pairwise(kept))
    for at, user in enumerate(users):
        found = view.open_session(user) or {}
        assert (found[col.USER], found[col.SESSION_START]) == (user, 1 if at % 2 else 59)


def test_readers_of_other_threads_see_whole_sessions() -> None:
    """A reader never sees a row of another user, nor columns of two updates mixed."""
    view, users, ended = MemoryLiveView(), [f"u{number}" for number in range(200)], threading.Event()
    wrong: list[object] = []
    read = 0

    def look() -> None:
        nonlocal read
        while not ended.is_set():
            for user in users:
                found = view.open_session(user)
                read += found is not None
                if found is not None and (found[col.USER], found[col.SESSION_START]) != (user, found["shown_at_ms"]):
                    wrong.append(found)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    turn = 0
    while read < 2_000 or turn < 150:
        turn += 1
        some = users[turn % 100 :]
        view.update(sessions(some, start_ms=turn), pa.array(users[: turn % 100]), now_ms=turn)
        if turn % 40 == 0:
            view.clear()
    ended.set()
    for thread in threads:
        thread.join()
    assert wrong == []
