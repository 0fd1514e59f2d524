"""Maintenance of a table written in many small commits: compact files, expire snapshots, remove unneeded files.

It is safe beside running writers and readers, and can be interrupted at any time: a later run removes the remains. A
reader needs the snapshot that was current when it started; so a snapshot expires when it has not been current for
`keep_s`, and the files that only it needs are removed. A stream's epochs are recorded in a table property and need no
snapshot.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Set
from dataclasses import dataclass

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update.snapshot import ExpireSnapshots

from sessionize.connectors.iceberg import orphans
from sessionize.connectors.iceberg.catalog import Catalog, load_table
from sessionize.connectors.iceberg.commits import single_attempt
from sessionize.connectors.iceberg.compaction import Compacted, compact, plan, target_of
from sessionize.connectors.iceberg.errors import STORAGE_ERRORS, storage_failure
from sessionize.connectors.iceberg.expired_files import files_named_by, unneeded_files
from sessionize.connectors.iceberg.listing import table_size
from sessionize.connectors.iceberg.tables import BOUNDED_METADATA
from sessionize.errors import ConfigError, UnavailableError

ORPHAN_AGE_MIN_H = 1.0

_ATTEMPTS_MAX = 5

# Called with the table, the current action, the steps done since the last call, and all steps (0: unknown).
MaintenanceProgress = Callable[[str, str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceSettings:
    """The settings of maintenance.

    target_bytes: target size of files; None: the table's own. files_min: the fewest small files of a partition worth
    compacting. keep_s, keep_snapshots: a snapshot expires when it has not been current for this long and is not among
    this many newest ones. orphan_age_h: how long a file that no snapshot ever named stays, at least an hour unless
    force. dry_run: only report. Errors: ConfigError.
    """

    target_bytes: int | None = None
    files_min: int = 2
    keep_s: float = 3600.0
    keep_snapshots: int = 1
    orphan_age_h: float = 72.0
    force: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        checks = (
            ("target size", self.target_bytes is None or self.target_bytes > 0, "more than 0 bytes"),
            ("smallest number of files", self.files_min >= 2, "at least 2"),
            ("time to keep snapshots", self.keep_s >= 0, "0 or longer"),
            ("number of snapshots to keep", self.keep_snapshots >= 1, "at least 1"),
            ("age of files to remove", self.orphan_age_h >= 0, "0 or more hours"),
        )
        for what, is_fine, hint in checks:
            if not is_fine:
                raise ConfigError(f"invalid {what}", hint=hint)
        if self.orphan_age_h < ORPHAN_AGE_MIN_H and not self.force:
            raise ConfigError(
                "younger files may belong to an unfinished commit",
                detail=f"age {self.orphan_age_h} h, at least {ORPHAN_AGE_MIN_H} h",
                hint="use force only while nothing writes to the tables",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TableMaintenance:
    """The result of maintaining a table; with dry_run the planned result, and an unchanged table.

    rows: in the table. packed: compacted files, replaced by packed_into. freed: removed files of expired snapshots.
    waiting: replaced data files that stay for readers of newer snapshots. orphans: files that no snapshot named.
    shared_with: a metadata file of another table in the same folder, where then no file counts as an orphan. Sizes in
    bytes.
    """

    table: str
    rows: int
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    packed: int
    packed_into: int
    packed_rows: int
    snapshots_before: int
    snapshots_expired: int
    freed: int
    freed_bytes: int
    waiting: int
    waiting_bytes: int
    orphans: int
    orphan_bytes: int
    shared_with: str | None = None

    def warning(self) -> str | None:
        """The warning about the table, if there is one."""
        if self.shared_with is None:
            return None
        return (
            f"the folder of {self.table} also has another table's files ({self.shared_with}), so files that no "
            "snapshot names stay there: two catalogs share a warehouse, and an earlier version created the tables"
        )


def maintain_table(
    catalog: Catalog,
    database: str,
    name: str,
    settings: MaintenanceSettings,
    *,
    progress: MaintenanceProgress | None = None,
    stop: Callable[[], bool] = lambda: False,
    exclude: Set[str] = frozenset(),
) -> TableMaintenance:
    """Maintain one table. stop: called from time to time; True leaves the rest for the next run. exclude: paths of data
    files that are not compacted.

    Errors: ConfigError for a missing table, UnavailableError, OutputError.
    """
    progress = progress or (lambda table, what, done, total: None)
    table = load_table(catalog, database, name)
    try:
        if not settings.dry_run:
            _bound_metadata(table)
        before, snapshots = table_size(table), len(table.metadata.snapshots)
        progress(name, "packing", 0, 0)
        packed = _compacted(table, settings, lambda done, total: progress(name, "packing", done, total), stop, exclude)
        progress(name, "expiring snapshots", 0, 0)
        expired = [] if stop() else _expire(table, settings)
        progress(name, "removing files", 0, 0)
        with_metadata = [] if stop() else orphans.list_files(table)
        table.refresh()
        removed = {snapshot.snapshot_id for snapshot in expired}
        needed = files_named_by(table, (each for each in table.metadata.snapshots if each.snapshot_id not in removed))
        freed = unneeded_files(table, expired, needed)
        found = orphans.orphans(
            table, with_metadata, needed, freed, older_than_s=settings.orphan_age_h * 3600, now_s=time.time()
        )
        shared_with = orphans.another_tables(table, with_metadata, found)
        found = [] if shared_with is not None else found
        sizes = orphans.sizes(table, with_metadata, freed)
        if not settings.dry_run:
            orphans.remove(table, sizes)
            orphans.remove(table, [orphan.path for orphan in found])
        after = before if settings.dry_run else table_size(table)
        current = files_named_by(table, [each for each in [table.current_snapshot()] if each is not None])
    except STORAGE_ERRORS as error:
        raise storage_failure("maintenance of a table failed", f"{database}.{name}", error) from error
    waiting = [size for path, size in needed.data.items() if path not in current.data]
    return TableMaintenance(
        table=name,
        rows=after.rows,
        files_before=before.files,
        files_after=after.files,
        bytes_before=before.size_bytes,
        bytes_after=after.size_bytes,
        packed=packed.files,
        packed_into=packed.into,
        packed_rows=packed.rows,
        snapshots_before=snapshots,
        snapshots_expired=len(expired),
        freed=len(sizes),
        freed_bytes=sum(sizes.values()),
        waiting=len(waiting),
        waiting_bytes=sum(waiting),
        orphans=len(found),
        orphan_bytes=sum(orphan.size_bytes for orphan in found),
        shared_with=shared_with,
    )


def _bound_metadata(table: Table) -> None:
    """Limit the old metadata files; tables of earlier versions kept a hundred."""
    if not BOUNDED_METADATA.keys() <= table.properties.keys():
        with contextlib.suppress(CommitFailedException):  # the next run repeats it
            table.transaction().set_properties(BOUNDED_METADATA).commit_transaction()
        table.refresh()


def _compacted(
    table: Table,
    settings: MaintenanceSettings,
    progress: Callable[[int, int], None],
    stop: Callable[[], bool],
    exclude: Set[str],
) -> Compacted:
    size, files_min = settings.target_bytes, settings.files_min
    if not settings.dry_run:
        return compact(table, target_bytes=size, files_min=files_min, progress=progress, stop=stop, exclude=exclude)
    groups = plan(table, target_bytes=size, files_min=files_min, exclude=exclude)
    into = sum(group.wanted(target_of(table, settings.target_bytes)) for group in groups)
    return Compacted(sum(len(group.files) for group in groups), into, sum(group.rows for group in groups))


def _expire(table: Table, settings: MaintenanceSettings) -> list[Snapshot]:
    """The snapshots that are removed, or would be. Branches and tags keep theirs."""
    lost: Exception | None = None
    for _ in range(_ATTEMPTS_MAX):
        table.refresh()
        snapshots = sorted(table.metadata.snapshots, key=lambda s: (s.timestamp_ms, s.sequence_number or 0))
        kept = {s.snapshot_id for s in snapshots[-settings.keep_snapshots :]}
        kept |= {ref.snapshot_id for ref in table.metadata.refs.values()}
        cut_ms = (time.time() - settings.keep_s) * 1000
        # a snapshot was current until the next one came
        ended = ((s, after.timestamp_ms) for s, after in itertools.pairwise(snapshots))
        old = [s for s, end_ms in ended if s.snapshot_id not in kept and end_ms <= cut_ms]
        if old and not settings.dry_run:
            try:
                # pyiceberg's own method copies all metadata for each snapshot
                transaction = single_attempt(table)
                ExpireSnapshots(transaction).by_ids([s.snapshot_id for s in old]).commit()
                transaction.commit_transaction()
                table.refresh()
            except (CommitFailedException, ValueError) as error:  # another writer, or another maintain, was faster
                lost = error
                continue
        return old
    raise UnavailableError(
        "snapshots cannot be expired",
        detail=f"{'.'.join(table.name())}, {_ATTEMPTS_MAX} tries; the last one: {lost}",
        hint="other writers were faster; run maintain again",
    ) from lost
