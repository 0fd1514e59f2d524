"""Feeds a live view: which users changed since its last update, and their open sessions now.

The view is a cache, so it never delays the stream. Between two polls an update is taken from the state, for some users
at a time, and a thread sends it. While that thread is busy nothing else is handed to it: users that change meanwhile
are in the next update, with their sessions as of then. After an outage the view is filled again from the whole state.
"""

import math
import time
from concurrent.futures import Future
from concurrent.futures import wait as wait_for

import pyarrow as pa
import pyarrow.compute as pc

from sessionize.engine.run_events import UNOBSERVED, Observer, ServerRecovered, ServerUnavailable
from sessionize.engine.stream.epoch_writer import in_a_thread
from sessionize.errors import SessionizeError, UnavailableError
from sessionize.kernel.sessionizer import Sessionizer
from sessionize.ports import LiveView

_USERS_MAX = 20_000  # of one update
_PAUSE_S = 5.0  # before a view that was unavailable is tried again
END_S = 10.0  # how long the end of a run waits for a view
_CHANGED_MIN = 500_000  # rows of changed users that are kept before duplicates are removed


class LiveFeed:
    """Updates a view with changed users at most every every_s seconds.

    server: what the view is called in ServerUnavailable and ServerRecovered, which the observer gets. The view is
    called from one thread at a time, not from the caller's. Errors of the view other than UnavailableError are raised
    by the next call of restart, refresh or finish, as long as no update has succeeded (a password may be wrong). After
    that the view counts as unavailable with them.
    """

    def __init__(
        self, view: LiveView, *, every_s: float = 0.5, server: str = "live view", observer: Observer = UNOBSERVED
    ) -> None:
        self._view, self._every_s, self._server, self._observer = view, every_s, server, observer
        self._changed: list[pa.Array | pa.ChunkedArray] = []
        self._changed_rows, self._changed_max = 0, _CHANGED_MIN
        self._left: pa.Array | None = None  # users of this round who are in no update yet
        self._showing: Future[None] | None = None
        self._next_s = 0.0
        self._stale = True  # the next round empties the view and has everything
        self._problem: str | None = None  # of the last update; None after one that succeeded
        self._worked = False  # whether an update has succeeded

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
        """The engine starts: the view may hold sessions of an earlier run."""
        self._stale = True
        self.refresh(sessionizer, at_s=self._next_s, now_ms=now_ms)

    def refresh(self, sessionizer: Sessionizer, *, at_s: float, now_ms: int) -> None:
        """Send what changed, if an update is due and the one before has ended; never waits for the view.

        at_s: now, by a clock that only moves forward.
        """
        if self._showing is None or (self._showing.done() and self._take_answer(at_s)):
            self._show_more(sessionizer, at_s=at_s, now_ms=now_ms)

    def finish(self, sessionizer: Sessionizer, *, now_ms: int, wait_s: float | None = None) -> None:
        """Send all that has changed, as far as the view accepts it within wait_s (END_S by default): the run ends."""
        until = time.monotonic() + (END_S if wait_s is None else wait_s)
        while self._showing is None or self._is_answered(until):
            self._show_more(sessionizer, at_s=math.inf, now_ms=now_ms)
            if self._showing is None:
                return

    def _is_answered(self, until: float) -> bool:
        """Whether the view accepts the update in time."""
        assert self._showing is not None
        return bool(wait_for([self._showing], max(0.0, until - time.monotonic())).done) and self._take_answer(math.inf)

    def _take_answer(self, at_s: float) -> bool:
        """Whether the view accepted the update. Errors: those of the view that waiting does not mend."""
        assert self._showing is not None
        error = self._showing.exception()
        self._showing = None
        if error is None:
            self._worked = True
        elif self._worked and isinstance(error, SessionizeError) and not isinstance(error, UnavailableError):
            # it worked before, so what it refuses now (a revoked right, a key that another program uses) ends no run
            error = UnavailableError(error.message, detail=error.detail, hint=error.hint)
        elif self._worked and isinstance(error, Exception) and not isinstance(error, SessionizeError):
            error = UnavailableError("the live view failed", detail=f"{type(error).__name__}: {error}")
        if isinstance(error, UnavailableError):
            self._stale, self._left = True, None
            self._changed, self._changed_rows = [], 0
            self._next_s = at_s + _PAUSE_S
        elif error is not None:
            raise error
        self._report(error)
        return error is None

    def _report(self, error: UnavailableError | None) -> None:
        problem = None if error is None else str(error)
        if problem == self._problem:
            return
        self._problem = problem
        recovered = ServerRecovered(server=self._server)
        self._observer.on_event(recovered if error is None else ServerUnavailable.of(self._server, error))

    def _show_more(self, sessionizer: Sessionizer, *, at_s: float, now_ms: int) -> None:
        """Hand over the next users of this round, or of a new one if it is due."""
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
        closed = some.filter(pc.invert(pc.is_in(some, pc.unique(open_users).cast(some.type))))
        self._showing = in_a_thread("live view", lambda: self._show(still_open, closed, now_ms=now_ms, anew=anew))

    def _show(self, still_open: pa.Table, closed: pa.Array, *, now_ms: int, anew: bool) -> None:
        if anew:
            self._view.clear()
        self._view.update(still_open, closed, now_ms=now_ms)


def _distinct(columns: list[pa.Array | pa.ChunkedArray]) -> pa.Array:
    chunks: list[pa.Array] = []
    for column in columns:
        chunks.extend(column.chunks if isinstance(column, pa.ChunkedArray) else [column])
    plain = [chunk.cast(pa.string()) for chunk in chunks]
    return pc.unique(pa.chunked_array(plain, pa.string()))
