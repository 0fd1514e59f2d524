"""Feeds a live view: which users changed since it was last shown, and how their sessions stand.

The view is a cache, so nothing of it holds the stream up. What to show is taken from the state between two polls, some
users at a time; showing it is left to a thread of its own, and while that is busy nothing is handed over: who changed
meanwhile is shown next, as things stand then. After an outage the view is shown anew from the whole state.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for

import pyarrow as pa
import pyarrow.compute as pc

from sessionize.engine.stream.epoch_writer import in_a_thread
from sessionize.errors import SessionizeError, UnavailableError
from sessionize.kernel.sessionizer import Sessionizer
from sessionize.ports import LiveView

_USERS_MAX = 20_000  # shown in one go
_PAUSE_S = 5.0  # before a view that was away is tried again
END_S = 10.0  # how long the end of a run waits for a view
_CHANGED_MIN = 500_000  # rows of changed users that are kept before double ones are taken out


class LiveFeed:
    """Shows changed users at most every every_s seconds. on_unavailable: hears that the view is away, or (None) back.

    The view is called from one thread at a time, not from the caller's. Errors of the view other than UnavailableError
    are raised by the next call of restart, refresh or finish, as long as it has never taken anything (a password may be
    wrong). Later it counts as away with them.
    """

    def __init__(
        self,
        view: LiveView,
        *,
        every_s: float = 0.5,
        on_unavailable: Callable[[UnavailableError | None], None] = lambda error: None,
    ) -> None:
        self._view, self._every_s, self._on_outage = view, every_s, on_unavailable
        self._changed: list[pa.Array | pa.ChunkedArray] = []
        self._changed_rows, self._changed_max = 0, _CHANGED_MIN
        self._left: pa.Array | None = None  # users of this round who are not shown yet
        self._showing: Future[None] | None = None
        self._next_s = 0.0
        self._stale = True  # the next round shows everything, to a view that was emptied
        self._away = False
        self._worked = False  # whether it has taken anything yet

    def touched(self, users: pa.Array | pa.ChunkedArray) -> None:
        """These users' sessions changed."""
        if not len(users):
            return
        self._changed.append(users)
        self._changed_rows += len(users)
        if self._changed_rows > self._changed_max:
            distinct = _distinct(self._changed)
            self._changed, self._changed_rows = [distinct], len(distinct)
            self._changed_max = max(_CHANGED_MIN, 2 * len(distinct))

    def restart(self, sessionizer: Sessionizer, *, now_ms: int) -> None:
        """The engine starts: what the view has may be of another time."""
        self._stale = True
        self.refresh(sessionizer, at_s=self._next_s, now_ms=now_ms)

    def refresh(self, sessionizer: Sessionizer, *, at_s: float, now_ms: int) -> None:
        """Show what changed, if it is time and the view has taken what came before; never waits for it.

        at_s: now, by a clock that only moves forward.
        """
        if self._showing is None or (self._showing.done() and self._take_answer(at_s)):
            self._show_more(sessionizer, at_s=at_s, now_ms=now_ms)

    def finish(self, sessionizer: Sessionizer, *, now_ms: int, wait_s: float | None = None) -> None:
        """Show all that has changed, if the view takes it within wait_s, END_S by default: the run is at its end."""
        until = time.monotonic() + (END_S if wait_s is None else wait_s)
        while self._showing is None or self._is_answered(until):
            self._show_more(sessionizer, at_s=math.inf, now_ms=now_ms)
            if self._showing is None:
                return

    def _is_answered(self, until: float) -> bool:
        """Whether the view takes in time what it was given."""
        assert self._showing is not None
        return bool(wait_for([self._showing], max(0.0, until - time.monotonic())).done) and self._take_answer(math.inf)

    def _take_answer(self, at_s: float) -> bool:
        """Whether the view took what it was given. Errors: of the view, when waiting does not mend it."""
        assert self._showing is not None
        error = self._showing.exception()
        self._showing = None
        if error is None:
            self._worked = True
        elif self._worked and isinstance(error, SessionizeError) and not isinstance(error, UnavailableError):
            # it worked before, so what it refuses now (a right that was taken away, a key that others use) ends no run
            error = UnavailableError(error.message, detail=error.detail, hint=error.hint)
        if isinstance(error, UnavailableError):
            self._stale, self._left = True, None
            self._changed, self._changed_rows = [], 0
            self._next_s = at_s + _PAUSE_S
        elif error is not None:
            raise error
        if error is not None or self._away:
            self._away = error is not None
            self._on_outage(error)
        return error is None

    def _show_more(self, sessionizer: Sessionizer, *, at_s: float, now_ms: int) -> None:
        """Hand over the next users of this round, or of a new one if it is time."""
        if self._left is None:
            if at_s < self._next_s or not (self._changed or self._stale):
                return
            self._next_s = at_s + self._every_s
            self._left = sessionizer.users() if self._stale else _distinct(self._changed)
            self._changed, self._changed_rows = [], 0
        some, rest = self._left.slice(0, _USERS_MAX), self._left.slice(_USERS_MAX)
        self._left = rest if len(rest) else None
        anew, self._stale = self._stale, False
        still_open = sessionizer.live_many(some, open_only=True)
        open_users = still_open[sessionizer.user_name]
        gone = some.filter(pc.invert(pc.is_in(some, pc.unique(open_users).cast(some.type))))
        self._showing = in_a_thread("live view", lambda: self._show(still_open, gone, now_ms=now_ms, anew=anew))

    def _show(self, still_open: pa.Table, gone: pa.Array, *, now_ms: int, anew: bool) -> None:
        if anew:
            self._view.clear()
        self._view.update(still_open, gone, now_ms=now_ms)


def _distinct(columns: list[pa.Array | pa.ChunkedArray]) -> pa.Array:
    chunks: list[pa.Array] = []
    for column in columns:
        chunks.extend(column.chunks if isinstance(column, pa.ChunkedArray) else [column])
    plain = [chunk.cast(pa.string()) for chunk in chunks]
    return pc.unique(pa.chunked_array(plain, pa.string()))
