"""Calls to servers that may be away: tried again with growing pauses, for a bounded time, and told about.

Only UnavailableError is worth another try. Everything else is a mistake that waiting does not mend.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

import tenacity

from sessionize.errors import UnavailableError

T = TypeVar("T")

_WAIT_MIN_S = 0.1
_WAIT_MAX_S = 10.0


class Patience:
    """Tries again while a server is away.

    outage_s_max: how long one call may fail in a row before the error is final. stopping: set when the run is to end,
    which ends a wait at once. on_outage: hears who is away, and the error; None for the error when it is back.
    """

    def __init__(
        self,
        outage_s_max: float,
        *,
        stopping: threading.Event,
        on_outage: Callable[[str, UnavailableError | None], None],
    ) -> None:
        self._outage_s_max = outage_s_max
        self._stopping = stopping
        self._on_outage = on_outage
        self._given_up = threading.Event()

    def give_up(self) -> None:
        """The run ends by another error: calls that wait in other threads are not tried again."""
        self._given_up.set()

    def call(self, who: str, what: Callable[[], T]) -> T:
        """The result of what(). Errors: its own; UnavailableError when it lasts too long, or the run is to end."""
        away = False

        def tell(state: tenacity.RetryCallState) -> None:
            nonlocal away
            away = True
            error = state.outcome.exception() if state.outcome is not None else None
            self._on_outage(who, error if isinstance(error, UnavailableError) else None)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(UnavailableError),
            wait=tenacity.wait_exponential_jitter(multiplier=_WAIT_MIN_S, max=_WAIT_MAX_S, jitter=_WAIT_MIN_S),
            stop=tenacity.stop_any(
                tenacity.stop_after_delay(self._outage_s_max),
                tenacity.stop_when_event_set(self._stopping),
                tenacity.stop_when_event_set(self._given_up),
            ),
            sleep=tenacity.sleep_using_event(self._stopping),
            before_sleep=tell,
            reraise=True,
        )
        result: T = retrying(what)
        if away and not self._stopping.is_set():  # told to stop, a call may return without having asked anybody
            self._on_outage(who, None)
        return result
