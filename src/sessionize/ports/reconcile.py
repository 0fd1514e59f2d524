"""Ports of reconciling: an archive of events and sessions, and what replaces stored sessions."""

import datetime as dt
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sessionize.ports.stream import EpochSink

Dates = frozenset[dt.date]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """What has to change for the stored sessions to equal a batch over the events.

    removed: user and session_id, the user called as in `added`. removed_start_ms: int64[n], their starts as stored.
    added: the session columns and `revision`: one more than the highest that was removed from the same run, 0 where
    nothing was. unchanged: sessions that were computed again and came out as stored. waiting: bool, for each cause
    whether its run is not settled and has to be looked at again. incomplete: users whose stored sessions hold more
    than the archived events, so that nothing was touched.
    """

    removed: pa.Table
    removed_start_ms: pa.Array
    added: pa.Table
    unchanged: int
    waiting: npt.NDArray[np.bool_]
    incomplete: int

    @property
    def empty(self) -> bool:
        """Whether nothing has to change."""
        return not self.removed.num_rows and not self.added.num_rows


class Archive(Protocol):
    """Events on time and late ones, and the sessions that are stored of them.

    Rows are asked for by user, the buckets of these users, and the UTC dates of events or session starts (None: all).
    """

    def newest_ms(self) -> int | None:
        """The latest event time; None without events."""

    def drained_before(self, end_ms: int) -> pa.Table:
        """Sessions that ended by `end_of_input` and before this time: user, event_time_ms of their end, and bucket."""

    def late_after(self, sequence: int) -> pa.Table:
        """Late events of commits after this one: user, event_time_ms, event_type, bucket, and `sequence`."""

    def events(
        self, users: pa.Array, buckets: frozenset[int], dates: Dates | None, *, rows_max: int | None
    ) -> pa.Table | None:
        """All events of users, canonical, with the columns that sessions are made of; None for more than rows_max."""

    def sessions(self, users: pa.Array, buckets: frozenset[int], dates: Dates | None) -> pa.Table:
        """The stored sessions of users, with the job's columns and, if there is one, `revision`."""

    def replace(self, replacement: Replacement, *, token: str) -> None:
        """Change the stored sessions, in one commit; nothing when the token is known."""

    def was_committed(self, token: str) -> bool:
        """Whether the replacement with this token took place."""

    def reconciled_position(self) -> int:
        """The commit of late events up to which everything is in the sessions; 0 for none."""

    def save_position(self, sequence: int) -> None:
        """Say so."""


class Replacer(Protocol):
    """A store whose sessions can be replaced. Errors: UnavailableError when the same call may succeed later."""

    def replace(self, removed: pa.Table, added: pa.Table, *, token: str) -> None:
        """Remove the sessions of `removed` (user, session_id) and add the rows of `added` (session columns and
        `revision`), in one step; nothing when the token is known.
        """


@runtime_checkable
class ReplacingSink(EpochSink, Replacer, Protocol):
    """A sink of epochs whose sessions can be replaced, as reconciling does."""


class FollowingStore(Protocol):
    """What keeps late events and rejected records beside the tables. Errors: those of EpochSink."""

    def bring_back(self, rejected: pa.Table, late: pa.Table, *, token: str) -> None:
        """Remove these rejected records and add these late events, once for each token."""
