"""Small files of a partition become few of the table's target size; the rows stay what they are, which is proven.

Beside running writers: the new files replace the old ones only if all of these are still there, unchanged, in the
snapshot that is committed upon; otherwise the new ones are dropped and the work is planned again. Old files go when
the snapshots that name them expire.
"""

import contextlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.manifest import DataFile, FileFormat
from pyiceberg.table import FileScanTask, Table

from sessionize.connectors.iceberg.alignment import aligned
from sessionize.connectors.iceberg.checksum import Checksum, checksum
from sessionize.connectors.iceberg.commits import COMMIT_ID, made_by, one_try, replace_files, until_committed
from sessionize.connectors.iceberg.failures import STORAGE_ERRORS, storage_failure
from sessionize.connectors.iceberg.staging import Staging
from sessionize.errors import OutputError, UnavailableError

PACKED = "sessionize.packed-files"

# A file that is nearly as large as wanted is left alone.
_SMALL = 0.75
_TARGET_BYTES_DEFAULT = 128 << 20
# What one commit replaces: a conflict costs at most this much work.
_UNIT_BYTES_MAX = 1 << 30
_UNIT_PARTITIONS_MAX = 100
_PLANS_MAX = 20
_TARGET = "write.target-file-size-bytes"

# Called with the number of small files that were dealt with since the last call, and of all there are.
PackProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Packed:
    """files: small ones that were replaced, by `into`. rows: in them."""

    files: int = 0
    into: int = 0
    rows: int = 0

    def __add__(self, other: "Packed") -> "Packed":
        return Packed(self.files + other.files, self.into + other.into, self.rows + other.rows)


def small_files(table: Table, *, target_bytes: int | None, files_min: int) -> list[list[FileScanTask]]:
    """The files worth packing, by partition, where there are at least files_min that would become fewer."""
    target = _target(table, target_bytes)
    partitions: dict[str, list[FileScanTask]] = {}
    for task in table.scan().plan_files():
        file = task.file
        is_ours = file.file_format == FileFormat.PARQUET and file.spec_id == table.metadata.default_spec_id
        if is_ours and not task.delete_files and file.file_size_in_bytes < _SMALL * target:
            partitions.setdefault(repr(file.partition), []).append(task)
    worth = []
    for _, tasks in sorted(partitions.items()):
        if len(tasks) >= max(2, files_min) and files_wanted(table, tasks, target_bytes) < len(tasks):
            worth.append(sorted(tasks, key=lambda task: task.file.file_path))
    return worth


def pack(table: Table, *, target_bytes: int | None, files_min: int, progress: PackProgress) -> Packed:
    """Pack the table's small files, commit by commit. Errors: UnavailableError; OutputError when the proof fails."""
    done = Packed()
    for _ in range(_PLANS_MAX):
        plan = small_files(table, target_bytes=target_bytes, files_min=files_min)
        total = done.files + sum(map(len, plan))
        progress(0, total)
        overtaken = False
        for unit in _units(plan):
            packed = _pack_unit(table, unit, target_bytes)
            overtaken = overtaken or packed is None
            done += packed or Packed()
            progress(len(unit) if packed else 0, total)
        if not overtaken:
            return done
        table.refresh()
    raise UnavailableError(
        "small files cannot be packed",
        detail=f"{'.'.join(table.name())}: others rewrite the same files; planned {_PLANS_MAX} times",
        hint="run maintain again, when fewer others write",
    )


def _units(plan: list[list[FileScanTask]]) -> Iterator[list[FileScanTask]]:
    """The plan in pieces for one commit each; a partition is only parted where it is too large for one."""
    unit: list[FileScanTask] = []
    size = partitions = 0
    for tasks in plan:
        partitions += 1
        for task in tasks:
            if len(unit) > 1 and size + task.file.file_size_in_bytes > _UNIT_BYTES_MAX:
                yield unit
                unit, size, partitions = [], 0, 1
            unit.append(task)
            size += task.file.file_size_in_bytes
        if partitions >= _UNIT_PARTITIONS_MAX:
            yield unit
            unit, size, partitions = [], 0, 0
    if unit:
        yield unit


def _pack_unit(table: Table, unit: list[FileScanTask], target_bytes: int | None) -> Packed | None:
    """Rewrite and replace these files; None when another writer replaced some of them first."""
    target = {**table.metadata.properties, _TARGET: str(_target(table, target_bytes))}
    staging = Staging(table.io, table.metadata.model_copy(update={"properties": target}), table.schema())
    try:
        old = Checksum()
        for rows in _rows(table, unit):
            old += checksum(rows)
            staging.add(rows)
        files = list(staging.finish())
        new = Checksum()
        for rows in staging.read_back():
            new += checksum(aligned(rows, staging.schema))
        recorded = sum(task.file.record_count for task in unit)
        if old != new or recorded != new.rows:
            raise OutputError(
                "packed files do not hold the same rows",
                detail=f"{'.'.join(table.name())}: {recorded} rows recorded, {old} read, {new} written",
                hint="nothing was changed; report this with the table's metadata",
            )
        if _replace(table, [task.file for task in unit], files):
            return Packed(len(unit), len(files), new.rows)
    except UnavailableError:
        raise  # the commit may have happened: the files must stay
    except (*STORAGE_ERRORS, pa.ArrowException) as error:
        _discard(staging)
        if isinstance(error, FileNotFoundError):
            return None  # expired and removed while it was read
        raise storage_failure("small files cannot be packed", ".".join(table.name()), error) from error
    except BaseException:
        _discard(staging)
        raise
    _discard(staging)
    return None


def _rows(table: Table, unit: list[FileScanTask]) -> Iterator[pa.Table]:
    """The rows of the files in the table's columns as they are now."""
    schema = table.schema()
    scan = ArrowScan(table.metadata, table.io, schema, AlwaysTrue())
    for task in unit:
        for batch in scan.to_record_batches([task]):
            yield aligned(pa.Table.from_batches([batch]), schema)


def _replace(table: Table, old: list[DataFile], new: list[DataFile]) -> bool:
    """Whether the new files stand for the old ones now. Errors: UnavailableError when that is not known."""
    commit_id = uuid.uuid4().hex
    spec, schema = table.metadata.default_spec_id, table.schema()

    def attempt() -> bool:
        table.refresh()
        if made_by(table, commit_id):
            return True
        if spec != table.metadata.default_spec_id or schema != table.schema() or not _unchanged(table, old):
            return False
        transaction = one_try(table)
        properties = {COMMIT_ID: commit_id, PACKED: str(len(old))}
        replace_files(transaction, old, new, properties)
        transaction.commit_transaction()
        table.refresh()
        return True

    return until_committed(
        attempt,
        gave_up=lambda error, tries: UnavailableError(
            "packed files cannot be committed",
            detail=f"{'.'.join(table.name())}, {tries}",
            hint="nothing is lost; run maintain again, when fewer others write",
        ),
    )


def _unchanged(table: Table, old: list[DataFile]) -> bool:
    """Whether the current snapshot has all of these files, and nothing that deletes rows of them."""
    now = {task.file.file_path: task for task in table.scan().plan_files()}
    return all(file.file_path in now and not now[file.file_path].delete_files for file in old)


def _discard(staging: Staging) -> None:
    # Files that would not go are no reason to fail: no snapshot names them.
    with contextlib.suppress(OutputError):
        staging.discard()


def files_wanted(table: Table, tasks: list[FileScanTask], target_bytes: int | None) -> int:
    """How many files these would become."""
    return -(-sum(task.file.file_size_in_bytes for task in tasks) // _target(table, target_bytes))


def _target(table: Table, target_bytes: int | None) -> int:
    return target_bytes or int(table.properties.get(_TARGET, _TARGET_BYTES_DEFAULT))
