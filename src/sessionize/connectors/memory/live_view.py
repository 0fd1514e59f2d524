"""Open sessions in this process: a live view without any server, which readers in the same process may ask.

Sessions stay in the tables that they came in; an index says where each user's newest row is. Once more rows are out of
date than are shown, the tables are packed into one, so that memory follows what is open.
"""

import threading
from collections.abc import Mapping
from datetime import date
from typing import Any

import pyarrow as pa

from sessionize.session import columns as col

_OUTDATED_MIN = 10_000  # rows that are kept before the tables are packed


class MemoryLiveView:
    """Shows open sessions to this process (ports.LiveView), and reads them (ports.OpenSessionReader).

    user_name: what the input calls the user column. For any number of threads.
    """

    def __init__(self, *, user_name: str = col.USER) -> None:
        self._user_name = user_name
        self._lock = threading.Lock()
        self._tables: dict[int, tuple[pa.Table, int]] = {}  # number -> rows, and when they were shown, ms
        self._at: dict[str, tuple[int, int]] = {}  # user -> number of the table, and row in it
        self._rows = self._last = 0

    def clear(self) -> None:
        """Forget every session (ports.LiveView)."""
        with self._lock:
            self._tables, self._at, self._rows = {}, {}, 0

    def update(self, sessions: pa.Table, closed_users: pa.Array, *, now_ms: int) -> None:
        """Update these open sessions, and remove those of closed users (ports.LiveView)."""
        users, removed = sessions[self._user_name].to_pylist(), closed_users.to_pylist()
        with self._lock:
            for user in removed:
                self._at.pop(user, None)
            if users:
                self._last += 1
                self._tables[self._last] = (sessions, now_ms)
                self._at.update({user: (self._last, row) for row, user in enumerate(users)})
                self._rows += len(users)
            if self._rows - len(self._at) > max(_OUTDATED_MIN, len(self._at)):
                self._pack()

    def close(self) -> None:
        """Nothing to release; what is shown stays (ports.LiveView)."""

    def open_session(self, user: str) -> Mapping[str, Any] | None:
        """A user's open session (ports.OpenSessionReader)."""
        with self._lock:
            at = self._at.get(user)
            if at is None:
                return None
            table, shown_at_ms = self._tables[at[0]]
        (row,) = table.slice(at[1], 1).to_pylist(maps_as_pydicts="lossy")
        return {name: _as_json(value) for name, value in row.items()} | {"shown_at_ms": shown_at_ms}

    def __len__(self) -> int:
        """How many sessions are shown."""
        return len(self._at)

    @property
    def rows_kept(self) -> int:
        """Rows in memory, those included that are out of date."""
        return self._rows

    def _pack(self) -> None:
        """Keep of every table the rows that are shown."""
        shown: dict[int, list[tuple[int, str]]] = {}
        for user, (number, row) in self._at.items():
            shown.setdefault(number, []).append((row, user))
        tables: dict[int, tuple[pa.Table, int]] = {}
        for number, rows in shown.items():
            table, shown_at_ms = self._tables[number]
            tables[number] = (table.take(pa.array([row for row, _ in rows], pa.int64())), shown_at_ms)
            self._at.update({user: (number, at) for at, (_, user) in enumerate(rows)})
        self._tables, self._rows = tables, len(self._at)


def _as_json(value: object) -> object:
    return value.isoformat() if isinstance(value, date) else value
