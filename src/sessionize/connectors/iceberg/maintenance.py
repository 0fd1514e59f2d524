"""Upkeep of a table that is written in many small commits: pack files, expire snapshots, remove what nobody needs.

All of it is safe beside running writers, and may be interrupted at any moment: what is left over is removed by the
next run. The record of a stream's epochs is a property of the table, so no snapshot is needed for it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

from sessionize.connectors.iceberg import orphans
from sessionize.connectors.iceberg.catalog import Catalog, load_table
from sessionize.connectors.iceberg.commits import data_files
from sessionize.connectors.iceberg.failures import STORAGE_ERRORS, storage_failure
from sessionize.connectors.iceberg.packing import Packed, files_wanted, pack, small_files
from sessionize.errors import ConfigError, UnavailableError

ORPHAN_AGE_MIN_H = 1.0

_ATTEMPTS_MAX = 5
_DAY_S = 86_400

# Called with the table, what is done to it now, the steps done since the last call, and all steps (0: not known).
UpkeepProgress = Callable[[str, str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpkeepSettings:
    """What upkeep may do.

    target_bytes: size to pack toward; None: the table's own. files_min: fewest small files of a partition worth
    packing. keep_days, keep_snapshots: a snapshot expires when it is older than this and not among so many of the
    newest. orphan_age_h: how long a file that nobody needs stays, at least an hour unless force. dry_run: only look.
    Errors: ConfigError.
    """

    target_bytes: int | None = None
    files_min: int = 2
    keep_days: float = 7.0
    keep_snapshots: int = 10
    orphan_age_h: float = 72.0
    force: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        checks = (
            ("target size", self.target_bytes is None or self.target_bytes > 0, "more than 0 bytes"),
            ("smallest number of files", self.files_min >= 2, "at least 2"),
            ("days to keep snapshots", self.keep_days >= 0, "0 or more"),
            ("number of snapshots to keep", self.keep_snapshots >= 1, "at least 1"),
            ("age of files to remove", self.orphan_age_h >= 0, "0 or more hours"),
        )
        for what, is_fine, hint in checks:
            if not is_fine:
                raise ConfigError(f"the {what} cannot be meant", hint=hint)
        if self.orphan_age_h < ORPHAN_AGE_MIN_H and not self.force:
            raise ConfigError(
                "files that young may belong to a commit that is on its way",
                detail=f"age {self.orphan_age_h} h, at least {ORPHAN_AGE_MIN_H} h",
                hint="force it only while nothing writes to the tables",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TableUpkeep:
    """What was done to a table; with dry_run what would be done, and the state after is the one before.

    rows: in the table. packed: small files that were replaced, by packed_into. Sizes in bytes.
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
    orphans: int
    orphan_bytes: int


def maintain_table(
    catalog: Catalog, database: str, name: str, settings: UpkeepSettings, *, progress: UpkeepProgress | None = None
) -> TableUpkeep:
    """Look after one table. Errors: ConfigError for one that is not there, UnavailableError, OutputError."""
    tell = progress or (lambda table, what, done, total: None)
    table = load_table(catalog, database, name)
    try:
        before, snapshots = data_files(table), len(table.metadata.snapshots)
        tell(name, "packing", 0, 0)
        packed = _packed(table, settings, lambda done, total: tell(name, "packing", done, total))
        tell(name, "expiring snapshots", 0, 0)
        expired = _expire(table, settings)
        tell(name, "looking for orphans", 0, 0)
        found = orphans.orphans(table, older_than_s=settings.orphan_age_h * 3600, now_s=time.time())
        if not settings.dry_run:
            orphans.remove(table, found)
        after = before if settings.dry_run else data_files(table.refresh())
    except STORAGE_ERRORS as error:
        raise storage_failure("a table cannot be looked after", f"{database}.{name}", error) from error
    return TableUpkeep(
        table=name,
        rows=sum(file.record_count for file in after),
        files_before=len(before),
        files_after=len(after),
        bytes_before=sum(file.file_size_in_bytes for file in before),
        bytes_after=sum(file.file_size_in_bytes for file in after),
        packed=packed.files,
        packed_into=packed.into,
        packed_rows=packed.rows,
        snapshots_before=snapshots,
        snapshots_expired=expired,
        orphans=len(found),
        orphan_bytes=sum(orphan.size_bytes for orphan in found),
    )


def _packed(table: Table, settings: UpkeepSettings, progress: Callable[[int, int], None]) -> Packed:
    if not settings.dry_run:
        return pack(table, target_bytes=settings.target_bytes, files_min=settings.files_min, progress=progress)
    plan = small_files(table, target_bytes=settings.target_bytes, files_min=settings.files_min)
    rows = sum(task.file.record_count for tasks in plan for task in tasks)
    into = sum(files_wanted(table, tasks, settings.target_bytes) for tasks in plan)
    return Packed(sum(map(len, plan)), into, rows)


def _expire(table: Table, settings: UpkeepSettings) -> int:
    """How many snapshots were removed from the table, or would be. Branches and tags keep theirs."""
    lost: Exception | None = None
    for _ in range(_ATTEMPTS_MAX):
        table.refresh()
        snapshots = sorted(table.metadata.snapshots, key=lambda s: (s.timestamp_ms, s.sequence_number or 0))
        kept = {s.snapshot_id for s in snapshots[-settings.keep_snapshots :]}
        kept |= {ref.snapshot_id for ref in table.metadata.refs.values()}
        cut_ms = (time.time() - settings.keep_days * _DAY_S) * 1000
        old = [s.snapshot_id for s in snapshots if s.snapshot_id not in kept and s.timestamp_ms < cut_ms]
        if old and not settings.dry_run:
            try:
                table.maintenance.expire_snapshots().by_ids(old).commit()
            except (CommitFailedException, ValueError) as error:  # another writer, or another upkeep, was faster
                lost = error
                continue
        return len(old)
    raise UnavailableError(
        "snapshots cannot be expired",
        detail=f"{'.'.join(table.name())}, {_ATTEMPTS_MAX} tries; the last one: {lost}",
        hint="other writers were faster; run maintain again",
    ) from lost
