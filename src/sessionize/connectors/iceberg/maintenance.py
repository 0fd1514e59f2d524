"""Maintenance of a table that is written in many small commits: pack files, expire snapshots, remove what nobody needs.

All of it is safe beside running writers and readers, and may be interrupted at any moment: what is left over is removed
by a later run. A reader needs the snapshot that was current when it began; so a snapshot expires when it has not been
current for `keep_s`, and the files that it alone needs go with it. The record of a stream's epochs is a property of the
table, so no snapshot is needed for it.
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
from sessionize.connectors.iceberg.compaction import Packed, pack, plan, target_of
from sessionize.connectors.iceberg.errors import STORAGE_ERRORS, storage_failure
from sessionize.connectors.iceberg.expired_files import left_behind, named_by
from sessionize.connectors.iceberg.listing import accounting
from sessionize.connectors.iceberg.tables import BOUNDED_METADATA
from sessionize.errors import ConfigError, UnavailableError

ORPHAN_AGE_MIN_H = 1.0

_ATTEMPTS_MAX = 5

# Called with the table, what is done to it now, the steps done since the last call, and all steps (0: not known).
MaintenanceProgress = Callable[[str, str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceSettings:
    """What maintenance may do.

    target_bytes: size to pack toward; None: the table's own. files_min: fewest small files of a partition worth
    packing. keep_s, keep_snapshots: a snapshot expires when it was not current for so long and is not among so many of
    the newest. orphan_age_h: how long a file that no snapshot ever named stays, at least an hour unless force. dry_run:
    only look. Errors: ConfigError.
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
                "files that young may belong to a commit that is on its way",
                detail=f"age {self.orphan_age_h} h, at least {ORPHAN_AGE_MIN_H} h",
                hint="force it only while nothing writes to the tables",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TableMaintenance:
    """What was done to a table; with dry_run what would be done, and the state after is the one before.

    rows: in the table. packed: files that were replaced, by packed_into. freed: files of expired snapshots that were
    removed. waiting: data files that were replaced and stay for readers of younger snapshots. orphans: files that no
    snapshot named. shared_with: a metadata file of another table in the same folder, so nothing counts as an orphan
    there. Sizes in bytes.
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
        """What people should hear about the table."""
        if self.shared_with is None:
            return None
        return (
            f"the folder of {self.table} also holds another table's files ({self.shared_with}), so files that no "
            "snapshot names stay there: two catalogs share a warehouse, and an earlier version made the tables"
        )


def maintain_table(
    catalog: Catalog,
    database: str,
    name: str,
    settings: MaintenanceSettings,
    *,
    progress: MaintenanceProgress | None = None,
    stop: Callable[[], bool] = lambda: False,
    apart: Set[str] = frozenset(),
) -> TableMaintenance:
    """Maintain one table. stop: asked from time to time whether to leave the rest for the next time. apart: paths of
    data files that are not packed.

    Errors: ConfigError for one that is not there, UnavailableError, OutputError.
    """
    tell = progress or (lambda table, what, done, total: None)
    table = load_table(catalog, database, name)
    try:
        if not settings.dry_run:
            _bound_metadata(table)
        before, snapshots = accounting(table), len(table.metadata.snapshots)
        tell(name, "packing", 0, 0)
        packed = _packed(table, settings, lambda done, total: tell(name, "packing", done, total), stop, apart)
        tell(name, "expiring snapshots", 0, 0)
        expired = [] if stop() else _expire(table, settings)
        tell(name, "removing files", 0, 0)
        with_metadata = [] if stop() else orphans.there(table)
        table.refresh()
        gone = {snapshot.snapshot_id for snapshot in expired}
        needed = named_by(table, (each for each in table.metadata.snapshots if each.snapshot_id not in gone))
        freed = left_behind(table, expired, needed)
        found = orphans.orphans(
            table, with_metadata, needed, freed, older_than_s=settings.orphan_age_h * 3600, now_s=time.time()
        )
        shared_with = orphans.another_tables(table, with_metadata, found)
        found = [] if shared_with is not None else found
        sizes = orphans.sizes(table, with_metadata, freed)
        if not settings.dry_run:
            orphans.remove(table, sizes)
            orphans.remove(table, [orphan.path for orphan in found])
        after = before if settings.dry_run else accounting(table)
        current = named_by(table, [each for each in [table.current_snapshot()] if each is not None])
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
    """Tables of before kept a hundred old metadata files."""
    if not BOUNDED_METADATA.keys() <= table.properties.keys():
        with contextlib.suppress(CommitFailedException):  # the next run does it
            table.transaction().set_properties(BOUNDED_METADATA).commit_transaction()
        table.refresh()


def _packed(
    table: Table,
    settings: MaintenanceSettings,
    progress: Callable[[int, int], None],
    stop: Callable[[], bool],
    apart: Set[str],
) -> Packed:
    size, files_min = settings.target_bytes, settings.files_min
    if not settings.dry_run:
        return pack(table, target_bytes=size, files_min=files_min, progress=progress, stop=stop, apart=apart)
    groups = plan(table, target_bytes=size, files_min=files_min, apart=apart)
    into = sum(group.wanted(target_of(table, settings.target_bytes)) for group in groups)
    return Packed(sum(len(group.files) for group in groups), into, sum(group.rows for group in groups))


def _expire(table: Table, settings: MaintenanceSettings) -> list[Snapshot]:
    """The snapshots that were removed from the table, or would be. Branches and tags keep theirs."""
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
                # pyiceberg's own way copies all of the metadata for each snapshot
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
