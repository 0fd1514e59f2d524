"""The incremental core: push events as they come, move the watermark, get the sessions that became final.

    sessionizer = Sessionizer(Policy.of(gap="30m"))
    late = sessionizer.push(events)              # Arrow: user, event_time_ms, event_id, event_type, page, value
    final = sessionizer.advance(watermark_ms)    # an Arrow table of sessions
    rest = sessionizer.flush()                   # the input is over

A batch run is one push and one flush. The result is the same for every order and every cut of the same events, as long
as none is below the watermark. Source: docs/spec/sessions.md.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sessionize.kernel.changes import Changes
from sessionize.kernel.counts import Counts
from sessionize.kernel.folding import CutRows
from sessionize.kernel.processor import EventProcessor
from sessionize.kernel.sessionizer_state import SessionizerState
from sessionize.kernel.snapshot import from_bytes, to_bytes
from sessionize.kernel.validation import as_users
from sessionize.session import columns as col
from sessionize.session.definition import SessionDefinition
from sessionize.session.output_tables import SESSIONS
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules


class Sessionizer:
    """Turns events into sessions, incrementally.

    Not thread-safe: use one per shard of users. The result is the same for every order and every split of the same
    events, as long as none of them is below the watermark when it is pushed.

    Parameters
    ----------
    policy : Policy, optional
        What ends a session. Default: `Policy()`.
    rules : Rules, optional
        What the events say about boundaries. Default: `Rules()`.
    columns : SessionColumns, optional
        Which session columns to make. Default: all.
    user_name : str
        The name of the user column of the sessions; no other session column may have it.
    track_changes : bool
        Record what `changes` returns. A batch run does not need it.

    Raises
    ------
    ConfigError
        `user_name` is the name of another session column.

    Notes
    -----
    Source: docs/spec/sessions.md. Memory is O(open sessions + pending events), except with numbered session ids, which
    keep every user.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from sessionize import Policy, Sessionizer
    >>> core = Sessionizer(Policy.of(gap="30m"))
    >>> late = core.push(pa.table({"user": ["a", "a"], "event_time_ms": [0, 60_000]}))
    >>> core.advance(60_001 + core.policy.gap_ms)["event_count"].to_pylist()
    [2]
    >>> core.push(pa.table({"user": ["b"], "event_time_ms": [1]})).num_rows  # below the watermark: late
    1
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        rules: Rules | None = None,
        columns: col.SessionColumns | None = None,
        user_name: str = col.USER,
        track_changes: bool = False,
    ) -> None:
        col.check_user_name(user_name)
        policy = policy or Policy()
        definition = SessionDefinition(
            policy=policy,
            rules=rules or Rules(),
            columns=columns or col.SessionColumns.every(bounces=bool(policy.bounce)),
            user_name=user_name,
        )
        self._be(EventProcessor(definition, track_changes=track_changes))

    def _be(self, processor: EventProcessor) -> None:
        self._processor, definition = processor, processor.definition
        self.policy, self.rules = definition.policy, definition.rules
        self.columns, self.user_name = definition.columns, definition.user_name

    @classmethod
    def of(cls, definition: SessionDefinition, *, track_changes: bool = False) -> "Sessionizer":
        """One that makes the sessions of a definition."""
        return cls(
            definition.policy,
            rules=definition.rules,
            columns=definition.columns,
            user_name=definition.user_name,
            track_changes=track_changes,
        )

    @classmethod
    def over(cls, processor: EventProcessor) -> "Sessionizer":
        """The sessions of a processor, which further operators may share: it stays the same one."""
        made = cls.__new__(cls)
        made._be(processor)
        return made

    @property
    def _held(self) -> SessionizerState:
        return self._processor.sessions.held

    @property
    def watermark_ms(self) -> int | None:
        """Events before it are late; None before the first one."""
        return self._processor.watermark_ms

    @property
    def latest_ms(self) -> int | None:
        """The time of the latest event that was pushed, None before the first one."""
        return self._processor.latest_ms

    @property
    def counts(self) -> Counts:
        """What became of the events so far: a copy, which stays as it is when more are pushed."""
        return self._processor.counts

    @property
    def open_sessions(self) -> int:
        """Sessions that settled events have opened and nothing has closed yet."""
        return self._processor.sessions.open_sessions

    def push(self, events: pa.Table | pa.RecordBatch) -> pa.Table:
        """Take in events and hand back those below the watermark, which are late and take no part.

        events: `user` (text) and `event_time_ms` (int64) without nulls, and whichever of `event_id`, `event_type`,
        `page`, `value` there are. Rows may come in any order. Errors: InputError, and then nothing was taken in.
        """
        return self._processor.push(events)

    def cut_bounded(self, events: pa.Table) -> tuple[CutRows, pa.Array, npt.NDArray[np.int64]] | None:
        """Cut bounded input without taking it in, on a fresh Sessionizer: for whoever needs the session of each event.

        Returns the cut rows, the id of each session, and for each row of the cut its row in events; None where every
        event is excluded.
        """
        found = self._processor.bounded(events)
        if found is None:
            return None
        settled, row = found
        done, ids = self._processor.sessions.cut(settled)
        return done, ids, row

    def cut_once(self, events: pa.Table) -> tuple[CutRows, pa.Array, npt.NDArray[np.int64]] | None:
        """The old name of cut_bounded."""
        warnings.warn("Sessionizer.cut_once is called cut_bounded now", DeprecationWarning, stacklevel=2)
        return self.cut_bounded(events)

    def advance(self, watermark_ms: int) -> pa.Table:
        """Move the watermark and return the sessions that became final: no event at or after it can change them.

        A watermark below the present one changes nothing. Errors: InputError for one that is no whole number.
        """
        return self._processor.advance(watermark_ms)[SESSIONS.name]

    def flush(self, end_ms: int | None = None) -> pa.Table:
        """Bounded input is over: settle what is pending and end every session.

        end_ms: when the whole input ended; default the latest event seen. A shard of a larger input must be given the
        latest event of all shards: a session whose gap had not run out by then ends by `end_of_input`. Errors:
        InputError for an end that is no whole number.
        """
        return self._processor.flush(end_ms)[SESSIONS.name]

    def live(self, user: str) -> pa.Table:
        """The user's sessions as they stand: the open one and what pending events add to it. Nothing changes.

        A session that is still open has no end_reason. No rows for a user who has none.
        """
        return self.live_many(as_users([user]))

    def live_many(self, users: pa.Array | pa.ChunkedArray, *, open_only: bool = False) -> pa.Table:
        """`live` for several users in one pass; unknown ones are skipped.

        users: text. open_only: leave out sessions that pending events have ended already, so that each user has at
        most one. Errors: InputError for users that are no text.
        """
        return self._processor.sessions.live(as_users(users), open_only=open_only)

    def users(self) -> pa.Array:
        """Everybody with an open session or pending events."""
        return self._processor.sessions.users()

    def pushed_session_ids(self) -> pa.Array:
        """The session of every event pushed since the last `changes`, as things stand. Nothing changes.

        One id per event in the order they were pushed, the late ones left out (`push` hands them back): null for an
        event of an excluded type or one that is settled by now, the session of the event it repeats for a duplicate
        (null if that one is settled).
        Ask before the watermark moves. Errors: ValueError without track_changes.
        """
        return self._processor.sessions.ids_of_pushed()

    def changes(self) -> Changes:
        """What has changed since the last call, since the beginning, or since the restore; costs what changed.

        Errors: ValueError without track_changes.
        """
        return self._processor.changes()

    def snapshot(self) -> bytes:
        """Everything that the future results depend on, as bytes (kernel/snapshot.py has the format).

        Errors: ValueError where further operators share the events: a snapshot has the sessions alone.
        """
        if self._processor.further:
            raise ValueError(f"a snapshot has no room for other operators: {', '.join(self._processor.further)}")
        header = {**self._processor.sessions.describe(), **self._processor.describe()}
        return to_bytes(self._held, header, self._processor.recent_ids)

    @classmethod
    def restore(
        cls, data: bytes, policy: Policy | None = None, *, rules: Rules | None = None, track_changes: bool = False
    ) -> "Sessionizer":
        """Go on from a snapshot.

        policy and rules must be those of the snapshot: it says which, but a boundary function can't be stored.
        Errors: StateError for damaged bytes, an unknown version, or another policy or other rules.
        """
        header, tables = from_bytes(data)
        return cls.restore_tables(header, tables, policy, rules=rules, track_changes=track_changes)

    @classmethod
    def restore_tables(
        cls,
        header: Mapping[str, Any],
        tables: Mapping[str, pa.Table],
        policy: Policy | None = None,
        *,
        rules: Rules | None = None,
        track_changes: bool = False,
    ) -> "Sessionizer":
        """Go on from the header and the tables of merged changes (kernel/changes.py): "users", "pending", and
        "recent_ids" if they are remembered.

        Errors: StateError for another policy or other rules, or when the tables do not hold what the header says.
        """
        definition = SessionDefinition(
            policy=policy or Policy(),
            rules=rules or Rules(),
            columns=col.SessionColumns.stored(header["columns"], header.get("own_columns", {})),
            user_name=header["user_name"],
        )
        none, recent = pa.array([], pa.string()), tables.get("recent_ids")
        state = Changes.of_sessions(header, tables["users"], none, tables["pending"], recent, whole=True)
        return cls.over(EventProcessor.restore(state, definition, track_changes=track_changes))
