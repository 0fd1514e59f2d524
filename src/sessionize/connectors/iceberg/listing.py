"""Lists the data files of a table one by one with little memory: a stream's tables have very many.

pyiceberg needs about 20 kB of memory for each planned file; this module keeps less than 2 kB.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFile, DataFileContent, ManifestContent, ManifestFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.types import DateType, IntegerType, NestedField, PrimitiveType

from sessionize.session.columns import SESSION_DATE, USER_HASH_BUCKET

_MEASURED: tuple[tuple[str, type[PrimitiveType]], ...] = ((USER_HASH_BUCKET, IntegerType), (SESSION_DATE, DateType))


@dataclass(frozen=True, slots=True)
class ListedFile:
    """file: without its statistics. buckets: its lowest and highest bucket of users, None if unknown. dates: the first
    and the last date of its sessions, in days since 1970-01-01, None if unknown.
    """

    file: DataFile
    buckets: tuple[int, int] | None
    dates: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class TableSize:
    """The files, rows and bytes of a table."""

    files: int = 0
    rows: int = 0
    size_bytes: int = 0


def manifests_of(table: Table, snapshot: Snapshot | None) -> list[ManifestFile]:
    """The manifests of a snapshot; [] without a snapshot."""
    return [] if snapshot is None else snapshot.manifests(table.io)


def listed_files(table: Table) -> Iterator[ListedFile]:
    """The data files of the current snapshot."""
    bucket, date = (_find(table.schema(), name, kind) for name, kind in _MEASURED)
    for manifest in manifests_of(table, table.current_snapshot()):
        if manifest.content != ManifestContent.DATA:
            continue
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
            if entry.data_file.content == DataFileContent.DATA:
                file = entry.data_file
                yield ListedFile(_slim(file), _range(file, bucket), _range(file, date))


def table_size(table: Table) -> TableSize:
    """The counts of the current snapshot, from its manifests."""
    files = rows = size = 0
    for listed in listed_files(table):
        files, rows, size = files + 1, rows + listed.file.record_count, size + listed.file.file_size_in_bytes
    return TableSize(files, rows, size)


def paths_with_deletes(table: Table) -> frozenset[str]:
    """Files whose rows another engine deleted without rewriting them."""
    manifests = manifests_of(table, table.current_snapshot())
    if all(manifest.content == ManifestContent.DATA for manifest in manifests):
        return frozenset()
    return frozenset(task.file.file_path for task in table.scan().plan_files() if task.delete_files)


def _slim(file: DataFile) -> DataFile:
    slim = DataFile.from_args(
        content=file.content,
        file_path=file.file_path,
        file_format=file.file_format,
        partition=file.partition,
        record_count=file.record_count,
        file_size_in_bytes=file.file_size_in_bytes,
    )
    slim.spec_id = file.spec_id
    return slim


def _find(schema: Schema, name: str, kind: type[PrimitiveType]) -> NestedField | None:
    found = schema.find_field(name) if name in schema.column_names else None
    return found if found is not None and isinstance(found.field_type, kind) else None


def _range(file: DataFile, column: NestedField | None) -> tuple[int, int] | None:
    """The lowest and highest number in a column of the file."""
    if column is None:
        return None
    low, high = ((bounds or {}).get(column.field_id) for bounds in (file.lower_bounds, file.upper_bounds))
    if low is None or high is None:
        return None
    kind = column.field_type
    values: tuple[int, int] = from_bytes(kind, low), from_bytes(kind, high)  # type: ignore[arg-type, assignment]
    return values
