"""Ports of the read side: live views of open sessions, and readers of open and closed ones."""

from collections.abc import Mapping
from typing import Any, Protocol

import pyarrow as pa


class LiveView(Protocol):
    """Shows sessions that are still open. A cache: it may be emptied at any time and is filled again.

    Errors: those of EpochSink.
    """

    def clear(self) -> None:
        """Forget everything shown by this writer: the engine starts over."""

    def update(self, sessions: pa.Table, closed_users: pa.Array, *, now_ms: int) -> None:
        """Open sessions as they stand now, at most one for a user; and the users who have none any more."""

    def close(self) -> None:
        """Release everything; what is shown stays."""


class ClosedSessionReader(Protocol):
    """Reads sessions that are final, from where a sink keeps them, as they are at that moment.

    Rows have the session columns that are kept, the user column under the input's name for it; a reader may add more.
    Errors: ConfigError where no sessions are kept, or not their start and id; those of EpochSink.
    """

    def sessions_of(self, user: str, *, limit: int) -> pa.Table:
        """A user's sessions, at most `limit` of them, those that began last first; no rows for an unknown user."""

    def recent(self, limit: int) -> pa.Table:
        """The sessions of all users that began last, at most `limit` of them, the latest first."""


class OpenSessionReader(Protocol):
    """Reads sessions that are still open, from a live view. Errors: those of EpochSink."""

    def open_session(self, user: str) -> Mapping[str, Any] | None:
        """A user's open session as it was shown last; None where none is open, or none is shown.

        Column -> value as JSON has it: dates as ISO 8601, events_by_type as {type: count}; end_reason is None.
        shown_at_ms: when it stood so, ms since 1970 UTC. A view may cut long texts and lists short.
        """


class SessionReader(ClosedSessionReader, OpenSessionReader, Protocol):
    """Reads both: what is final, and what is still open."""
