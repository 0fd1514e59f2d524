"""A reconciliation from what makes us look to what is settled: group by group, over any archive of events and sessions.

Users go in groups, by bucket; each group is read, computed (reconcile.py) and replaced in one commit, so a kill leaves
every group as it was or as it shall be, and the next time goes on. Up to where late events were dealt with is noted in
the archive, and moved on only past those that are settled; the others are looked at again.
"""

import datetime as dt
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.engine.reconcile.diff import chains_of, reconcile, without_excluded
from sessionize.engine.reconcile.intents import IntentLog
from sessionize.ports import Archive, Dates, Replacement, Replacer
from sessionize.session import columns as col
from sessionize.session.definition import SessionDefinition
from sessionize.session.limits import TIME_MS_MAX, TIME_MS_MIN
from sessionize.session.time import EPOCH_DATE, MS_PER_DAY


@dataclass(slots=True)
class Reconciled:
    """What a reconciliation looked at and did; with dry_run: what it would do.

    late_events: looked at. users: whose sessions were computed again. replaced: stored sessions taken out, for which
    `added` came in. unchanged: computed again and equal. waiting: late events whose sessions are not final yet, or
    whose users' archive is incomplete. commits: snapshots made. horizon_ms: sessions below it are final, None: all are.
    stopped: told to end before all users were looked at.
    """

    dry_run: bool = False
    late_events: int = 0
    users: int = 0
    replaced: int = 0
    added: int = 0
    unchanged: int = 0
    waiting: int = 0
    incomplete_users: int = 0
    commits: int = 0
    horizon_ms: int | None = None
    stopped: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The numbers by name."""
        return asdict(self)


# Told how many of how many users are done, and the numbers so far.
ReconcileProgress = Callable[[int, int, Reconciled], None]


class ReconcileJob:
    """Brings the sessions of an archive, and then those of stores, to what a batch over all its events makes.

    stores: get the same replacements after the archive, also those of a reconciliation that was interrupted in between,
    which `unfinished` knows. horizon_ms: sessions below it are final, None: all are. rows_max: events of a group in
    memory; a group that has more is divided. dry_run: only find out. stop: asked from time to time whether to end.
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
        self._newest = self._settled_to = 0
        self._outside_from: int | None = None

    def run(self, *, window_ms: int | None, users_max: int, progress: ReconcileProgress) -> Reconciled:
        """Do it. window_ms: look only at late events this far before the newest event. users_max: of one commit.

        Errors: those of the archive and the stores.
        """
        if not self._done.dry_run:
            self._finish_interrupted()
        causes = self._causes(window_ms)
        total = len(pc.unique(causes[col.USER]))
        waiting = [causes.slice(0, 0)]
        seen = 0
        for group in _groups(causes, users_max):
            waiting.append(self._settle(group))
            seen += len(pc.unique(group[col.USER]))
            progress(seen, total, self._done)
        if not self._done.dry_run and not self._done.stopped:
            self._move_on(pa.concat_tables(waiting))
        return self._done

    def _causes(self, window_ms: int | None) -> pa.Table:
        """What makes us look at users: late events not settled yet, and ends that are no ends any more.

        Columns user, event_time_ms, user_hash_bucket, sequence (null for the ends).
        """
        definition, self._end_ms = self._definition, self._archive.newest_ms()
        if self._end_ms is None:
            return _CAUSES.empty_table()
        # numbers of sessions depend on everything before them, so every user who was ever late is looked at
        self._settled_to = 0 if definition.policy.numbers_sessions else self._archive.reconciled_position()
        late = self._archive.late_after(self._settled_to)
        self._newest = pc.max(late["sequence"]).as_py() or 0
        self._done.late_events = late.num_rows
        drained = self._archive.drained_before(self._end_ms - definition.policy.longest_silence_ms)
        causes = pa.concat_tables(
            [
                pa.table({n: t[n].cast(k) if n in t.column_names else pa.nulls(t.num_rows, k) for n, k in _CAUSE_TYPES})
                for t in (drained, without_excluded(late, definition))
            ]
        )
        if window_ms is not None:
            inside = pc.greater_equal(causes[col.EVENT_TIME], self._end_ms - window_ms)
            self._outside_from = pc.min(causes.filter(pc.invert(inside))["sequence"]).as_py()
            causes = causes.filter(inside)
            self._done.late_events = len(causes["sequence"].drop_null())
        return causes

    def _settle(self, causes: pa.Table) -> pa.Table:
        """Compute and replace the sessions of these users; the causes that have to wait."""
        if self._stop():
            self._done.stopped = True
            return causes
        users = pc.unique(causes[col.USER])
        replacement = self._replacement(causes, users, self._rows_max if len(users) > 1 else None)
        if replacement is None:
            first = pc.is_in(causes[col.USER], value_set=users.slice(0, len(users) // 2))
            return pa.concat_tables([self._settle(causes.filter(part)) for part in (first, pc.invert(first))])
        self._replace(replacement)
        done, waiting = self._done, causes.filter(pa.array(replacement.waiting))
        done.users += len(users)
        done.replaced += replacement.removed.num_rows
        done.added += replacement.added.num_rows
        done.unchanged += replacement.unchanged
        done.incomplete_users += replacement.incomplete
        done.waiting += len(waiting["sequence"].drop_null())
        return waiting

    def _replacement(self, causes: pa.Table, users: pa.Array, rows_max: int | None) -> Replacement | None:
        """Events are read by the day, and further days as long as a run may go on there. None: more than rows_max."""
        definition, silence_ms = self._definition, self._definition.policy.longest_silence_ms
        buckets = frozenset(causes[col.USER_HASH_BUCKET].to_pylist())
        times = causes[col.EVENT_TIME].to_numpy()
        dates = None if definition.policy.numbers_sessions else _dates(times - silence_ms, times + silence_ms)
        further_ms = 0
        while True:
            found = self._archive.events(users, buckets, dates, rows_max=rows_max)
            if found is None:
                return None
            events = without_excluded(found, definition)
            if dates is None:
                break
            runs = chains_of(events, silence_ms)
            run = np.unique(runs.holding(causes[col.USER], times))
            run = run[run >= 0]
            wanted = _dates(runs.first_ms[run] - silence_ms, runs.last_ms[run] + silence_ms)
            if wanted <= dates:
                break
            further_ms = 2 * further_ms + MS_PER_DAY
            dates |= _dates(runs.first_ms[run] - further_ms, runs.last_ms[run] + further_ms) | wanted
        stored = self._archive.sessions(users, buckets, dates)
        return reconcile(events, stored, causes, definition, horizon_ms=self._done.horizon_ms, end_ms=self._end_ms)

    def _move_on(self, waiting: pa.Table) -> None:
        """Note up to which commit of late events everything is settled."""
        if self._definition.policy.numbers_sessions:
            return
        left = [first for first in (pc.min(waiting["sequence"]).as_py(), self._outside_from) if first is not None]
        to = min(left) - 1 if left else self._newest
        if to > self._settled_to:
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
            self._tell_stores(token, replacement.removed, replacement.added)

    def _tell_stores(self, token: str, removed: pa.Table, added: pa.Table) -> None:
        for store in self._stores:
            store.replace(removed, added, token=token)
        self._unfinished.drop(token)

    def _finish_interrupted(self) -> None:
        """Replacements that are in the archive and that the stores may not have heard of."""
        for token in self._unfinished.tokens() if self._stores else ():
            if self._archive.was_committed(token):
                tables = self._unfinished.read(token, ("removed", "added"))
                self._tell_stores(token, tables["removed"], tables["added"])
            else:
                self._unfinished.drop(token)


_CAUSE_TYPES = (
    (col.USER, pa.string()),
    (col.EVENT_TIME, pa.int64()),
    (col.USER_HASH_BUCKET, pa.int32()),
    ("sequence", pa.int64()),
)
_CAUSES = pa.schema(_CAUSE_TYPES)


def _groups(causes: pa.Table, users_max: int) -> Iterator[pa.Table]:
    """The causes of at most users_max users at a time, neighbouring buckets together."""
    if not causes.num_rows:
        return
    causes = causes.sort_by([(col.USER_HASH_BUCKET, "ascending"), (col.USER, "ascending")]).combine_chunks()
    code = causes[col.USER].combine_chunks().dictionary_encode().indices.to_numpy()
    # sorted by user, so codes rise by one with each user
    cuts = np.searchsorted(code, np.arange(0, int(code[-1]) + 1, users_max)).tolist()
    for start, end in zip(cuts, [*cuts[1:], causes.num_rows], strict=True):
        yield causes.slice(start, end - start)


def _dates(first_ms: npt.NDArray[np.int64], last_ms: npt.NDArray[np.int64]) -> Dates:
    """All UTC dates of these spans of time, as far as there can be events."""
    ends = np.clip(np.stack([first_ms, last_ms], axis=1), TIME_MS_MIN, TIME_MS_MAX)
    spans = np.unique(ends // MS_PER_DAY, axis=0).tolist()
    days = {day for first, last in spans for day in range(first, last + 1)}
    epoch = EPOCH_DATE
    return frozenset(epoch + dt.timedelta(days=day) for day in days)
