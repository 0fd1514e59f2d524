"""Feeds a live view: which users changed since it was last shown, and how their sessions stand.

The view is a cache, so an outage of it never holds the stream up: it is tried again with the next change, and shown
anew from the whole state once it is back.
"""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from sessionize.errors import UnavailableError
from sessionize.kernel.sessionizer import Sessionizer
from sessionize.ports import LiveView

_USERS_MAX = 20_000  # shown in one go
_PAUSE_S = 5.0  # before a view that was away is tried again


class LiveFeed:
    """Shows changed users at most every every_s seconds. on_outage: hears that the view is away, or (None) back."""

    def __init__(
        self,
        view: LiveView,
        *,
        every_s: float = 0.5,
        on_outage: Callable[[UnavailableError | None], None] = lambda error: None,
    ) -> None:
        self._view, self._every_s, self._on_outage = view, every_s, on_outage
        self._changed: list[pa.Array | pa.ChunkedArray] = []
        self._next_s = 0.0
        self._stale = True

    def touched(self, users: pa.Array | pa.ChunkedArray) -> None:
        """These users' sessions changed."""
        if len(users):
            self._changed.append(users)

    def restart(self, sessionizer: Sessionizer, *, now_ms: int) -> None:
        """The engine starts: what the view has may be of another time."""
        self._stale = True
        self._show(sessionizer, now_ms=now_ms)

    def refresh(self, sessionizer: Sessionizer, *, at_s: float, now_ms: int) -> None:
        """Show what changed, if it is time. at_s: now, by a clock that only moves forward."""
        if at_s < self._next_s or not (self._changed or self._stale):
            return
        self._next_s = at_s + (self._every_s if self._show(sessionizer, now_ms=now_ms) else _PAUSE_S)

    def _show(self, sessionizer: Sessionizer, *, now_ms: int) -> bool:
        was_stale = self._stale
        try:
            if self._stale:
                self._view.clear()
                users = sessionizer.users()
            else:
                users = _distinct(self._changed)
            self._changed = []
            for at in range(0, len(users), _USERS_MAX):
                some = users.slice(at, _USERS_MAX)
                still_open = sessionizer.live_many(some, open_only=True)
                open_users = still_open[sessionizer.user_name]
                gone = some.filter(pc.invert(pc.is_in(some, pc.unique(open_users).cast(some.type))))
                self._view.show(still_open, gone, now_ms=now_ms)
        except UnavailableError as error:
            self._stale, self._changed = True, []
            self._on_outage(error)
            return False
        self._stale = False
        if was_stale:
            self._on_outage(None)
        return True


def _distinct(columns: list[pa.Array | pa.ChunkedArray]) -> pa.Array:
    chunks: list[pa.Array] = []
    for column in columns:
        chunks.extend(column.chunks if isinstance(column, pa.ChunkedArray) else [column])
    plain = [chunk.cast(pa.string()) for chunk in chunks]
    return pc.unique(pa.chunked_array(plain, pa.string()))
