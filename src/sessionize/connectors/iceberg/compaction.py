"""Compacts the small files of a partition into few files of the target size; a checksum proves that the rows are equal.

It is safe beside running writers: the new files replace the old ones only if all of these are unchanged in the
snapshot that the commit builds on; otherwise the new ones are discarded and the work is planned again. Files of an
earlier layout are compacted into the current one. Memory holds at most a part of one partition's rows (sorting.py).
"""

import contextlib
import uuid
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field

import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException, ValidationException
from pyiceberg.manifest import DataFile, FileFormat
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform

from sessionize.connectors.iceberg.checksum import Checksum, checksum
from sessionize.connectors.iceberg.commits import COMMIT_ID, commit_with_retry, made_by, replace_files, single_attempt
from sessionize.connectors.iceberg.dataset import batches
from sessionize.connectors.iceberg.errors import STORAGE_ERRORS, storage_failure
from sessionize.connectors.iceberg.layouts import specs_to_choose
from sessionize.connectors.iceberg.listing import ListedFile, listed_files, paths_with_deletes
from sessionize.connectors.iceberg.schema_evolution import aligned
from sessionize.connectors.iceberg.sorting import SortedRows, leading_columns
from sessionize.connectors.iceberg.staging import Staging
from sessionize.errors import OutputError, UnavailableError
from sessionize.session.columns import BUCKET_COUNT, SESSION_DATE, USER_HASH_BUCKET

PACKED = "sessionize.packed-files"

# A file close to the target size is not compacted.
_SMALL = 0.75
_TARGET_BYTES_DEFAULT = 128 << 20
# The bytes replaced by one commit: a conflict repeats at most this much work.
_UNIT_BYTES_MAX = 1 << 30
_UNIT_FILES_MAX = 5_000
_UNIT_PARTITIONS_MAX = 100
_PLANS_MAX = 20
_TARGET = "write.target-file-size-bytes"
# Rows are hashed and sorted in pieces of about this size, because very small pieces have a high overhead.
_PIECE_BYTES = 8 << 20
_PARTS_MAX = 500

# Called with the number of small files processed since the last call, and the total.
PackProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Compacted:
    """files: the number of small files, replaced by `into` new ones. rows: in them."""

    files: int = 0
    into: int = 0
    rows: int = 0

    def __add__(self, other: "Compacted") -> "Compacted":
        return Compacted(self.files + other.files, self.into + other.into, self.rows + other.rows)


@dataclass(slots=True)
class Group:
    """Files of one partition to compact, or files of an earlier layout that belong together."""

    files: list[ListedFile] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        """The bytes of all files."""
        return sum(listed.file.file_size_in_bytes for listed in self.files)

    @property
    def rows(self) -> int:
        """The rows of all files."""
        return sum(listed.file.record_count for listed in self.files)

    def wanted(self, target_bytes: int) -> int:
        """The number of files after compaction."""
        return -(-self.size_bytes // target_bytes)


@dataclass(slots=True)
class _Planned:
    """The state that a plan is based on.

    snapshot_id: the snapshot of the planned files; it follows only our own commits. may_be_there: whether a snapshot
    may name the last written files, so that they must stay.
    """

    snapshot_id: int | None
    may_be_there: bool = False

    def follow(self, table: Table, commit_id: str) -> None:
        """Move to the snapshot of our commit, if it directly follows the known one."""
        for snapshot in table.metadata.snapshots:
            is_ours = snapshot.summary is not None and snapshot.summary[COMMIT_ID] == commit_id
            if is_ours and snapshot.parent_snapshot_id == self.snapshot_id:
                self.snapshot_id = snapshot.snapshot_id
                return


def plan(table: Table, *, target_bytes: int | None, files_min: int, exclude: Set[str] = frozenset()) -> list[Group]:
    """The files worth compacting: files of an earlier layout; small files of a partition with at least files_min of
    them, if they become fewer; all files of a sessions partition whose files cover many dates or buckets each. exclude:
    paths of files that are not compacted.
    """
    target = target_of(table, target_bytes)
    present = {spec.spec_id for spec in specs_to_choose(table.metadata)}
    excluded = paths_with_deletes(table) | exclude
    groups: dict[tuple[object, ...], Group] = {}
    for listed in listed_files(table):
        file = listed.file
        if file.file_format != FileFormat.PARQUET or file.file_path in excluded:
            continue
        is_present = file.spec_id in present
        together = (file.spec_id, repr(file.partition)) if is_present else _date_of(table, file)
        groups.setdefault((is_present, *together), Group()).files.append(listed)
    sorts = leading_columns(table.metadata, table.schema()) == [SESSION_DATE, USER_HASH_BUCKET]
    found = []
    for key, group in sorted(groups.items(), key=lambda item: repr(item[0])):
        if key[0] and not (sorts and _is_scattered(group)):
            small = [listed for listed in group.files if listed.file.file_size_in_bytes < _SMALL * target]
            group = Group(small)
            if len(small) < max(2, files_min) or group.wanted(target) >= len(small):
                continue
        group.files.sort(key=lambda listed: listed.file.file_path)
        found.append(group)
    return found


def _date_of(table: Table, file: DataFile) -> tuple[object, ...]:
    """The key that groups files of an earlier layout: the date if they are partitioned by it."""
    spec = table.specs()[file.spec_id]
    for at, partition in enumerate(spec.fields):
        if isinstance(partition.transform, IdentityTransform) and partition.name.endswith("_date"):
            return ("date", file.partition[at])
    return (file.spec_id, repr(file.partition))


def _is_scattered(group: Group) -> bool:
    """Whether at least half of the bytes are in files with more than twice their share of the dates or, if all rows
    have one date, of the buckets.

    Replacing the rows of a few users, or a query for a date, must open every such file. Rows are sorted by date, then
    bucket, so sorted files of many dates hold all buckets but few dates each. Sorted files are never scattered: they
    are consecutive in each separately compacted piece, so wide files with half of the bytes would hold more dates or
    buckets than exist.
    """
    ranges = [listed.dates for listed in group.files]
    known = [dates for dates in ranges if dates is not None]
    if len(known) < len(ranges):
        return False
    all_of_them = max(high for _, high in known) - min(low for low, _ in known)
    if all_of_them == 0:
        ranges, all_of_them = [listed.buckets for listed in group.files], BUCKET_COUNT
    total, wide = group.size_bytes, 0
    pieces = sum(1 for _ in _units([group]))
    for listed, held in zip(group.files, ranges, strict=True):
        if held is None:
            return False
        share = pieces * all_of_them * listed.file.file_size_in_bytes / max(1, total)
        if held[1] - held[0] > 2 * share + 2:
            wide += listed.file.file_size_in_bytes
    return wide > 0 and 2 * wide >= total


def compact(
    table: Table,
    *,
    target_bytes: int | None,
    files_min: int,
    progress: PackProgress,
    stop: Callable[[], bool] = lambda: False,
    exclude: Set[str] = frozenset(),
) -> Compacted:
    """Compact the table's small files, commit by commit. stop: called before each; True leaves the rest for later.
    exclude: as in plan.

    Errors: UnavailableError; OutputError if the checksums differ.
    """
    done = Compacted()
    for _ in range(_PLANS_MAX):
        groups = plan(table, target_bytes=target_bytes, files_min=files_min, exclude=exclude)
        planned = _Planned(table.metadata.current_snapshot_id)
        total = done.files + sum(len(group.files) for group in groups)
        progress(0, total)
        overtaken = False
        for unit in _units(groups):
            if stop():
                return done
            packed = _compact_unit(table, unit, target_bytes, stop, planned)
            overtaken = overtaken or packed is None
            done += packed or Compacted()
            progress(packed.files if packed else 0, total)
            pa.default_memory_pool().release_unused()
        if not overtaken:
            return done
        table.refresh()
    raise UnavailableError(
        "small files cannot be compacted",
        detail=f"{'.'.join(table.name())}: other writers rewrite the same files; planned {_PLANS_MAX} times",
        hint="run maintain again when there are fewer writers",
    )


def _units(groups: list[Group]) -> Iterator[list[Group]]:
    """The groups in pieces of one commit each; a group is split only if it is too large for one."""
    unit: list[Group] = []
    files = size = 0
    for group in groups:
        if files and (size + group.size_bytes > _UNIT_BYTES_MAX or files + len(group.files) > _UNIT_FILES_MAX):
            yield unit
            unit, files, size = [], 0, 0
        part = Group()
        unit.append(part)
        for listed in group.files:
            if files > 1 and (size + listed.file.file_size_in_bytes > _UNIT_BYTES_MAX or files >= _UNIT_FILES_MAX):
                yield [each for each in unit if each.files]
                part, files, size = Group(), 0, 0
                unit = [part]
            part.files.append(listed)
            files, size = files + 1, size + listed.file.file_size_in_bytes
        if len(unit) >= _UNIT_PARTITIONS_MAX:
            yield unit
            unit, files, size = [], 0, 0
    if unit:
        yield unit


def _compact_unit(
    table: Table, unit: list[Group], target_bytes: int | None, stop: Callable[[], bool], planned: _Planned
) -> Compacted | None:
    """Rewrite and replace these files; None if another writer replaced some of them first, or if it must stop."""
    target = {**table.metadata.properties, _TARGET: str(target_of(table, target_bytes))}
    staging = Staging(table.io, table.metadata.model_copy(update={"properties": target}), table.schema())
    planned.may_be_there = False
    files = [listed.file for group in unit for listed in group.files]
    try:
        old, new = Checksum(), Checksum()
        for group in unit:
            old += _stage(table, group, staging, stop)
            if stop():
                return None
        made = list(staging.finish())
        for rows in staging.read_back():
            new += checksum(aligned(rows, staging.schema))
        recorded = sum(group.rows for group in unit)
        if old != new or recorded != new.rows:
            raise OutputError(
                "compacted files do not hold the same rows",
                detail=f"{'.'.join(table.name())}: {recorded} rows recorded, {old} read, {new} written",
                hint="nothing was changed; report this with the table's metadata",
            )
        is_done = _replace(table, files, made, planned)
        return Compacted(len(files), len(made), new.rows) if is_done else None
    except (*STORAGE_ERRORS, pa.ArrowException) as error:
        if isinstance(error, FileNotFoundError):
            return None  # expired and removed during the read
        raise storage_failure("small files cannot be compacted", ".".join(table.name()), error) from error
    finally:
        if not planned.may_be_there:
            _discard(staging)


def _stage(table: Table, group: Group, staging: Staging, stop: Callable[[], bool]) -> Checksum:
    """Stage the rows of a group, or only some if it must stop; returns their checksum."""
    total = Checksum()
    files = [listed.file for listed in group.files]
    with SortedRows(staging, lambda names: batches(table, files, only=names)) as in_order:
        for rows in _pieces(batches(table, files)):
            rows = aligned(rows, staging.schema)
            total += checksum(rows)
            in_order.add(rows)
            if stop():
                return total
        in_order.finish()
    return total


def _pieces(rows: Iterator[pa.Table]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    size = 0
    for part in rows:
        waiting.append(part)
        size += part.nbytes
        if len(waiting) >= _PARTS_MAX:  # each has an overhead of a few kB
            waiting = [pa.concat_tables(waiting).combine_chunks()]
        if size >= _PIECE_BYTES:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting, size = [], 0
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def _replace(table: Table, old: Sequence[DataFile], new: Sequence[DataFile], planned: _Planned) -> bool:
    """Replace the old files by the new ones; False if the old files are no longer as planned.

    Errors: UnavailableError if other writers were always faster, or if the result is unknown.
    """
    commit_id = uuid.uuid4().hex
    spec, schema = table.metadata.default_spec_id, table.schema()

    def attempt() -> bool:
        table.refresh()
        if made_by(table, commit_id):
            planned.follow(table, commit_id)
            return True
        same_layout = spec == table.metadata.default_spec_id and schema == table.schema()
        same_files = table.metadata.current_snapshot_id == planned.snapshot_id or _unchanged(table, old)
        if not same_layout or not same_files:
            return False
        transaction = single_attempt(table)
        properties = {COMMIT_ID: commit_id, PACKED: str(len(old))}
        replace_files(transaction, old, new, properties)
        before, planned.may_be_there = planned.may_be_there, True
        try:
            transaction.commit_transaction()
        except (CommitFailedException, ValidationException):
            planned.may_be_there = before  # rejected; any other failure may have come after the commit
            raise
        table.refresh()
        planned.follow(table, commit_id)
        return True

    return commit_with_retry(
        attempt,
        gave_up=lambda error, tries: UnavailableError(
            "compacted files cannot be committed",
            detail=f"{'.'.join(table.name())}, {tries}",
            hint="nothing is lost; run maintain again when there are fewer writers",
        ),
    )


def _unchanged(table: Table, old: Sequence[DataFile]) -> bool:
    """Whether the current snapshot has all of these files, and no delete files for them."""
    now = {listed.file.file_path for listed in listed_files(table)} - paths_with_deletes(table)
    return all(file.file_path in now for file in old)


def _discard(staging: Staging) -> None:
    # A file that cannot be removed is no error: no snapshot names it.
    with contextlib.suppress(OutputError):
        staging.discard()


def target_of(table: Table, target_bytes: int | None) -> int:
    """The target size of files: the requested one, or the table's own."""
    return target_bytes or int(table.properties.get(_TARGET, _TARGET_BYTES_DEFAULT))
