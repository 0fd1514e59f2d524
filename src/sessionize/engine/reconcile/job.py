"""A reconciliation of an archive of events and sessions, from its triggers to the saved position, group by group.

Users are grouped by bucket. Each group is read, computed (diff.py) and replaced in one commit, so a killed process
leaves every group either old or new, and the next reconciliation continues. The archive records the position up to
which late events are merged; it passes only those that are settled, and the others are examined again.
"""

import datetime as dt
import uuid
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.engine.reconcile.diff import chains_of, diff_sessions, without_excluded
from sessionize.engine.reconcile.intents import IntentLog
from sessionize.engine.run_events.reports import Reconciled
from sessionize.ports import Archive, Dates, Replacement, Replacer
from sessionize.session import columns as col
from sessionize.session.definition import SessionDefinition
from sessionize.session.limits import TIME_MS_MAX, TIME_MS_MIN
from sessionize.session.time import EPOCH_DATE, MS_PER_DAY

# Gets how many of how many users are done, and the numbers so far.
ReconcileProgress = Callable[[int, int, Reconciled], None]


class ReconcileJob:
    """Makes the sessions of an archive, and then those of stores, equal to a batch over all its events.

    stores: get the same replacements after the archive, also those of an interrupted reconciliation, which `unfinished`
    records. horizon_ms: sessions below it are final, None: all are. rows_max: events of a group in memory; a group that
    has more is divided. dry_run: change nothing. stop: asked from time to time whether to end.
    """

    def __init__(
        self,
        definition: SessionDefinition,
        archive: Archive,
        *,
        stores: Sequence[Replacer],
        unfinished: IntentLog,
        horizon_ms: int | None,
        rows_max: int,
        dry_run: bool,
        stop: Callable[[], bool],
    ) -> None:
        self._definition, self._archive, self._stores, self._unfinished = definition, archive, stores, unfinished
        self._rows_max, self._stop = rows_max, stop
        self._done = Reconciled(dry_run=dry_run, horizon_ms=horizon_ms)
        self._end_ms: int | None = None
        self._newest = self._position = 0
        self._outside_from: int | None = None

    def run(self, *, window_ms: int | None, users_max: int, progress: ReconcileProgress) -> Reconciled:
        """Reconcile. window_ms: only late events at most this long before the newest event. users_max: of one commit.

        Errors: those of the archive and the stores.
        """
        if not self._done.dry_run:
            self._finish_interrupted()
        triggers = self._triggers(window_ms)
        total = len(pc.unique(triggers[col.USER]))
        waiting = [triggers.slice(0, 0)]
        seen = 0
        for group in _groups(triggers, users_max):
            waiting.append(self._settle(group))
            seen += len(pc.unique(group[col.USER]))
            progress(seen, total, self._done)
        if not self._done.dry_run and not self._done.stopped:
            self._save_position(pa.concat_tables(waiting))
        return self._done

    def _triggers(self, window_ms: int | None) -> pa.Table:
        """What may change sessions: late events that are not settled, and ends of input that are no ends any more.

        Columns user, event_time_ms, user_hash_bucket, sequence (null for the ends).
        """
        definition, self._end_ms = self._definition, self._archive.newest_ms()
        if self._end_ms is None:
            return _TRIGGERS.empty_table()
        # numbers of sessions depend on all events before them, so every user with any late event is examined
        self._position = 0 if definition.policy.numbers_sessions else self._archive.reconciled_position()
        late = self._archive.late_after(self._position)
        self._newest = pc.max(late["sequence"]).as_py() or 0
        self._done.late_events = late.num_rows
        drained = self._archive.drained_before(self._end_ms - definition.policy.shortest_silence_ms)
        triggers = pa.concat_tables(
            [
                pa.table({n: t[n].cast(k) if n in t.column_names else pa.nulls(t.num_rows, k) for n, k in _TYPES})
                for t in (drained, without_excluded(late, definition))
            ]
        )
        if window_ms is not None:
            inside = pc.greater_equal(triggers[col.EVENT_TIME], self._end_ms - window_ms)
            self._outside_from = pc.min(triggers.filter(pc.invert(inside))["sequence"]).as_py()
            triggers = triggers.filter(inside)
            self._done.late_events = len(triggers["sequence"].drop_null())
        return triggers

    def _settle(self, triggers: pa.Table) -> pa.Table:
        """Compute and replace the sessions of these users; the triggers that have to wait."""
        if self._stop():
            self._done.stopped = True
            return triggers
        users = pc.unique(triggers[col.USER])
        replacement = self._replacement(triggers, users, self._rows_max if len(users) > 1 else None)
        if replacement is None:
            first = pc.is_in(triggers[col.USER], value_set=users.slice(0, len(users) // 2))
            return pa.concat_tables([self._settle(triggers.filter(part)) for part in (first, pc.invert(first))])
        self._replace(replacement)
        done, waiting = self._done, triggers.filter(pa.array(replacement.waiting))
        done.users += len(users)
        done.replaced += replacement.removed.num_rows
        done.added += replacement.added.num_rows
        done.unchanged += replacement.unchanged
        done.incomplete_users += replacement.incomplete
        done.waiting += len(waiting["sequence"].drop_null())
        return waiting

    def _replacement(self, triggers: pa.Table, users: pa.Array, rows_max: int | None) -> Replacement | None:
        """Read events by the day, and more days while a chain may extend into them. None: more than rows_max events."""
        definition, reach_ms = self._definition, self._definition.policy.reach_ms
        buckets = frozenset(triggers[col.USER_HASH_BUCKET].to_pylist())
        times = triggers[col.EVENT_TIME].to_numpy()
        dates = None if definition.policy.numbers_sessions else _dates(times - reach_ms, times + reach_ms)
        further_ms = 0
        while True:
            found = self._archive.events(users, buckets, dates, rows_max=rows_max)
            if found is None:
                return None
            events = without_excluded(found, definition)
            if dates is None:
                break
            chains = chains_of(events, definition.policy)
            chain = np.unique(chains.locate(triggers[col.USER], times))
            chain = chain[chain >= 0]
            wanted = _dates(chains.first_ms[chain] - reach_ms, chains.last_ms[chain] + reach_ms)
            if wanted <= dates:
                break
            further_ms = 2 * further_ms + MS_PER_DAY
            dates |= _dates(chains.first_ms[chain] - further_ms, chains.last_ms[chain] + further_ms) | wanted
        stored, horizon_ms = self._archive.sessions(users, buckets, dates), self._done.horizon_ms
        return diff_sessions(events, stored, triggers, definition, horizon_ms=horizon_ms, end_ms=self._end_ms)

    def _save_position(self, waiting: pa.Table) -> None:
        """Save the commit of late events up to which all are settled."""
        if self._definition.policy.numbers_sessions:
            return
        left = [first for first in (pc.min(waiting["sequence"]).as_py(), self._outside_from) if first is not None]
        to = min(left) - 1 if left else self._newest
        if to > self._position:
            self._archive.save_position(to)

    def _replace(self, replacement: Replacement) -> None:
        if replacement.empty or self._done.dry_run:
            return
        token = uuid.uuid4().hex
        if self._stores:
            self._unfinished.write(token, {"removed": replacement.removed, "added": replacement.added})
        self._archive.replace(replacement, token=token)
        self._done.commits += 1
        if self._stores:
            self._replace_in_stores(token, replacement.removed, replacement.added)

    def _replace_in_stores(self, token: str, removed: pa.Table, added: pa.Table) -> None:
        for store in self._stores:
            store.replace(removed, added, token=token)
        self._unfinished.drop(token)

    def _finish_interrupted(self) -> None:
        """Send the stores replacements that are in the archive and may be missing in them."""
        for token in self._unfinished.tokens() if self._stores else ():
            if self._archive.was_committed(token):
                tables = self._unfinished.read(token, ("removed", "added"))
                self._replace_in_stores(token, tables["removed"], tables["added"])
            else:
                self._unfinished.drop(token)


_TYPES = (
    (col.USER, pa.string()),
    (col.EVENT_TIME, pa.int64()),
    (col.USER_HASH_BUCKET, pa.int32()),
    ("sequence", pa.int64()),
)
_TRIGGERS = pa.schema(_TYPES)


def _groups(triggers: pa.Table, users_max: int) -> Iterator[pa.Table]:
    """The triggers of at most users_max users at a time, neighbouring buckets together."""
    if not triggers.num_rows:
        return
    triggers = triggers.sort_by([(col.USER_HASH_BUCKET, "ascending"), (col.USER, "ascending")]).combine_chunks()
    code = triggers[col.USER].combine_chunks().dictionary_encode().indices.to_numpy()
    # sorted by user, so codes increase by one with each user
    cuts = np.searchsorted(code, np.arange(0, int(code[-1]) + 1, users_max)).tolist()
    for start, end in zip(cuts, [*cuts[1:], triggers.num_rows], strict=True):
        yield triggers.slice(start, end - start)


def _dates(first_ms: npt.NDArray[np.int64], last_ms: npt.NDArray[np.int64]) -> Dates:
    """All UTC dates of these spans of time, within the limits of event times."""
    ends = np.clip(np.stack([first_ms, last_ms], axis=1), TIME_MS_MIN, TIME_MS_MAX)
    spans = np.unique(ends // MS_PER_DAY, axis=0).tolist()
    days = {day for first, last in spans for day in range(first, last + 1)}
    epoch = EPOCH_DATE
    return frozenset(epoch + dt.timedelta(days=day) for day in days)
