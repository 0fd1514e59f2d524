"""`reconcile`: late events into the sessions of the tables, until they equal a batch over all archived events.

Users go in groups, by bucket; each group is read, computed and replaced in one commit, so a kill leaves every group as
it was or as it shall be, and the next time goes on. Which late events were dealt with is a property of user_sessions,
moved on only past those that are settled; the others are looked at again.
"""

import contextlib
import datetime as dt
import uuid
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.app.alone import alone, no_engine
from sessionize.app.archived import ArchivedTables
from sessionize.app.catalogs import has_local_catalog
from sessionize.app.config import PipelineConfig
from sessionize.app.pending import Pending
from sessionize.engine.reconcile import Replacement, Replacer, reconcile, runs_of, taking_part
from sessionize.session import columns as col

USERS_MAX = 20_000  # users of one group, and so of one commit
ROWS_MAX = 4_000_000  # events of a group in memory; a group that has more is divided
OPERATION = "sessionize.operation"
_DAY_MS = 86_400_000

Dates = frozenset[dt.date]


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


def _quiet(done: int, total: int, so_far: Reconciled) -> None:
    """The progress of nobody."""


def reconcile_tables(
    home: Path,
    config: PipelineConfig,
    *,
    window_ms: int | None = None,
    drained: bool = False,
    closed: Set[str] = frozenset(),
    dry_run: bool = False,
    stores: Sequence[Replacer] = (),
    progress: ReconcileProgress = _quiet,
    stop: Callable[[], bool] = lambda: False,
    users_max: int = USERS_MAX,
    rows_max: int = ROWS_MAX,
) -> Reconciled:
    """Reconcile the tables of a pipeline; safe beside running engines, one reconciliation at a time.

    window_ms: look only at late events this far before the newest event; they are all looked at again by a call
    without it. drained: nothing is open, whatever the tables say, and no engine goes on in this home meanwhile;
    closed: nothing of these writers is. stores: get the same replacements after Iceberg, also those of a call that was
    interrupted in between; each has to hold what the tables hold. stop: asked from time to time whether to end early,
    which loses nothing.
    Errors: ConfigError where there is nothing that could be reconciled; StateError for drained beside an engine;
    UnavailableError while another one runs, or when something is not there now; OutputError.
    """
    from sessionize.connectors.iceberg.failures import failures_told

    with (
        contextlib.nullcontext()
        if dry_run
        else alone(home, "reconcile", "reconciliation", local=has_local_catalog(config)),
        no_engine(home, "reconcile --drained") if drained else contextlib.nullcontext(),
        failures_told("the tables cannot be reconciled", config.output.database),
    ):
        tables = ArchivedTables.of(home, config)
        pending = Pending(home / "reconcile-pending")
        work = _Work(tables, Reconciled(dry_run=dry_run), stores, rows_max, pending, stop)
        if not dry_run:
            work.finish_interrupted()
        work.done.horizon_ms = work.horizon_ms = None if drained else tables.horizon_ms(closed=closed)
        causes = work.causes(window_ms)
        total = len(pc.unique(causes[col.USER]))
        waiting = [causes.slice(0, 0)]
        seen = 0
        for group in _groups(causes, users_max):
            waiting.append(work.settle(group))
            seen += len(pc.unique(group[col.USER]))
            progress(seen, total, work.done)
        if not dry_run and not work.done.stopped:
            work.move_on(pa.concat_tables(waiting))
    return work.done


@dataclass(slots=True)
class _Work:
    tables: ArchivedTables
    done: Reconciled
    stores: Sequence[Replacer]
    rows_max: int
    pending: Pending
    stop: Callable[[], bool]
    horizon_ms: int | None = None
    end_ms: int | None = None
    newest: int = 0
    _outside_from: int | None = field(default=None, init=False)
    _sequence: int = field(default=0, init=False)

    def causes(self, window_ms: int | None) -> pa.Table:
        """What makes us look at users: late events not settled yet, and ends that are no ends any more.

        Columns user, event_time_ms, user_hash_bucket, sequence (null for the ends).
        """
        from sessionize.connectors.iceberg import archive

        tables, job = self.tables, self.tables.job
        latest = [archive.latest_time_of(table) for table in (tables.events, tables.late) if table is not None]
        self.end_ms = max((ms for ms in latest if ms is not None), default=None)
        if self.end_ms is None:
            return _CAUSES.empty_table()
        silent_ms = self.end_ms - job.policy.longest_silence_ms
        found = [archive.drained_before(tables.sessions, silent_ms, user_name=job.user_name)]
        if tables.late is not None:
            # numbers of sessions depend on everything before them, so every user who was ever late is looked at
            numbered = job.policy.remembers_users
            self._sequence = 0 if numbered else archive.reconciled_to(tables.sessions, tables.late)
            late = archive.late_after(tables.late, self._sequence, user_name=job.user_name)
            self.newest = pc.max(late[archive.SEQUENCE]).as_py() or 0
            self.done.late_events = late.num_rows
            found.append(taking_part(late, job))
        causes = pa.concat_tables(
            [
                pa.table({n: t[n].cast(k) if n in t.column_names else pa.nulls(t.num_rows, k) for n, k in _CAUSE_TYPES})
                for t in found
            ]
        )
        if window_ms is not None:
            inside = pc.greater_equal(causes[col.EVENT_TIME], self.end_ms - window_ms)
            self._outside_from = pc.min(causes.filter(pc.invert(inside))["sequence"]).as_py()
            causes = causes.filter(inside)
            self.done.late_events = len(causes["sequence"].drop_null())
        return causes

    def settle(self, causes: pa.Table) -> pa.Table:
        """Compute and replace the sessions of these users; the causes that have to wait."""
        from sessionize.connectors.iceberg.archive import TooManyRowsError

        if self.stop():
            self.done.stopped = True
            return causes
        users = pc.unique(causes[col.USER])
        try:
            replacement = self._replacement(causes, users, self.rows_max if len(users) > 1 else None)
        except TooManyRowsError:
            first = pc.is_in(causes[col.USER], value_set=users.slice(0, len(users) // 2))
            return pa.concat_tables([self.settle(causes.filter(part)) for part in (first, pc.invert(first))])
        self._replace(replacement)
        done, waiting = self.done, causes.filter(pa.array(replacement.waiting))
        done.users += len(users)
        done.replaced += replacement.removed.num_rows
        done.added += replacement.added.num_rows
        done.unchanged += replacement.unchanged
        done.incomplete_users += replacement.incomplete
        done.waiting += len(waiting["sequence"].drop_null())
        return waiting

    def move_on(self, waiting: pa.Table) -> None:
        """Note up to which commit of late_events everything is settled."""
        from sessionize.connectors.iceberg import archive, user_sessions
        from sessionize.connectors.iceberg.replacing import RowReplacer

        late = self.tables.late
        if late is None or self.tables.job.policy.remembers_users:
            return
        left = [first for first in (pc.min(waiting["sequence"]).as_py(), self._outside_from) if first is not None]
        to = min(left) - 1 if left else self.newest
        if to > self._sequence:
            replacer = RowReplacer(self.tables.sessions, user_sessions(self.tables.job.user_name))
            replacer.set_properties(archive.bookmark(late, to))

    def _replacement(self, causes: pa.Table, users: pa.Array, rows_max: int | None) -> Replacement:
        """Events are read by the day, and further days as long as a run may go on there."""
        from sessionize.connectors.iceberg.archive import Wanted, rows_of

        job, silence_ms = self.tables.job, self.tables.job.policy.longest_silence_ms
        buckets = frozenset(causes[col.USER_HASH_BUCKET].to_pylist())
        times = causes[col.EVENT_TIME].to_numpy()
        dates = None if job.policy.remembers_users else _dates(times - silence_ms, times + silence_ms)
        further_ms = 0
        while True:
            events = self._events(Wanted(users, buckets, dates), rows_max)
            if dates is None:
                break
            runs = runs_of(events, silence_ms)
            run = np.unique(runs.holding(causes[col.USER], times))
            run = run[run >= 0]
            wanted = _dates(runs.first_ms[run] - silence_ms, runs.last_ms[run] + silence_ms)
            if wanted <= dates:
                break
            further_ms = 2 * further_ms + _DAY_MS
            dates |= _dates(runs.first_ms[run] - further_ms, runs.last_ms[run] + further_ms) | wanted
        known = frozenset(job.columns.schema(job.user_name).names) | {"revision"}
        wanted_rows = Wanted(users, buckets, dates)
        stored = rows_of(self.tables.sessions, wanted_rows, user_name=job.user_name, date=col.SESSION_DATE, only=known)
        return reconcile(events, stored, causes, job, horizon_ms=self.horizon_ms, end_ms=self.end_ms)

    def _events(self, wanted: Any, rows_max: int | None) -> pa.Table:
        """Accepted and late events, with the columns that sessions are made of; a function of the user's sees all."""
        from sessionize.connectors.iceberg.archive import rows_of

        job = self.tables.job
        needed = {col.EVENT_TIME, col.EVENT_ID, col.EVENT_TYPE, col.PAGE, col.VALUE, job.user_name}
        only = frozenset(needed) if job.rules.boundary is None else None
        parts = []
        for table in (self.tables.events, self.tables.late):
            if table is not None:
                rows = rows_of(table, wanted, user_name=job.user_name, date="event_date", only=only, rows_max=rows_max)
                if job.user_name != col.USER and col.USER in rows.column_names:
                    rows = rows.drop_columns([col.USER])
                parts.append(rows.rename_columns([col.USER if n == job.user_name else n for n in rows.column_names]))
        return taking_part(pa.concat_tables(parts, promote_options="permissive"), job)

    def _replace(self, replacement: Replacement) -> None:
        if replacement.empty or self.done.dry_run:
            return
        from sessionize.connectors.iceberg import user_sessions
        from sessionize.connectors.iceberg.replacing import RowReplacer

        token = uuid.uuid4().hex
        if self.stores:
            self.pending.write(token, {"removed": replacement.removed, "added": replacement.added})
        replacer = RowReplacer(self.tables.sessions, user_sessions(self.tables.job.user_name))
        replacer.replace(
            replacement.removed,
            replacement.added,
            token=token,
            start_ms=replacement.removed_start_ms,
            snapshot_properties={OPERATION: "reconcile"},
        )
        self.done.commits += 1
        if self.stores:
            self._tell_stores(token, replacement.removed, replacement.added)

    def _tell_stores(self, token: str, removed: pa.Table, added: pa.Table) -> None:
        for store in self.stores:
            store.replace(removed, added, token=token)
        self.pending.drop(token)

    def finish_interrupted(self) -> None:
        """Replacements that are in the tables and that the stores may not have heard of."""
        from sessionize.connectors.iceberg import user_sessions
        from sessionize.connectors.iceberg.replacing import RowReplacer

        replacer = RowReplacer(self.tables.sessions, user_sessions(self.tables.job.user_name))
        for token in self.pending.tokens() if self.stores else ():
            if replacer.landed(token):
                tables = self.pending.read(token)
                self._tell_stores(token, tables["removed"], tables["added"])
            else:
                self.pending.drop(token)


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
    """All UTC dates of these spans of time."""
    spans = np.unique(np.stack([first_ms // _DAY_MS, last_ms // _DAY_MS], axis=1), axis=0).tolist()
    days = {day for first, last in spans for day in range(first, last + 1)}
    epoch = dt.date(1970, 1, 1)
    return frozenset(epoch + dt.timedelta(days=day) for day in days)
