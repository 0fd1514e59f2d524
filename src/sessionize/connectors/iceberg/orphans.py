"""Files in a table's folder that no snapshot needs: of writers that were killed, and of snapshots that expired.

The folder is listed before the table is read, so what was committed meanwhile counts as needed. Files of one writer
belong together: none of them goes before the youngest of them is old enough, so a long write is never disturbed.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pyarrow import fs
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table

from sessionize.connectors.iceberg.failures import STORAGE_ERRORS, storage_failure
from sessionize.connectors.iceberg.storage import place_of
from sessionize.errors import OutputError

# Whatever else lies there is not Iceberg's.
_KINDS = (".parquet", ".orc", ".avro", ".metadata.json", ".puffin", ".stats")
# Staging names its files <number>-<writer>.parquet.
_STAGED = re.compile(r"\d+-([0-9a-f]{32})\.parquet")


@dataclass(frozen=True, slots=True)
class Orphan:
    """path: as the table's file system calls it."""

    path: str
    size_bytes: int


def orphans(table: Table, *, older_than_s: float, now_s: float) -> list[Orphan]:
    """What can go. now_s: the present, in seconds since 1970. Errors: OutputError, UnavailableError."""
    try:
        system, root = _place(table, table.location())
        there = system.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
        there = [info for info in there if info.type == fs.FileType.File and info.base_name.endswith(_KINDS)]
        youngest: dict[str, float] = {}
        for info in there:
            group = _group(info)
            youngest[group] = max(youngest.get(group, 0.0), info.mtime_ns / 1e9)
        table.refresh()
        needed = {_place(table, location)[1] for location in _needed(table)}
    except STORAGE_ERRORS as error:
        raise storage_failure("a table's files cannot be listed", table.location(), error) from error
    return [
        Orphan(info.path, info.size)
        for info in there
        if info.path not in needed and youngest[_group(info)] < now_s - older_than_s
    ]


def remove(table: Table, found: list[Orphan]) -> None:
    """Remove these files; what is gone already is fine. Errors: OutputError, UnavailableError."""
    system, _ = _place(table, table.location())
    for orphan in found:
        try:
            system.delete_file(orphan.path)
        except FileNotFoundError:
            continue
        except STORAGE_ERRORS as error:
            raise storage_failure("a file cannot be removed", orphan.path, error) from error


def _group(info: fs.FileInfo) -> str:
    staged = _STAGED.fullmatch(info.base_name)
    return staged.group(1) if staged is not None else str(info.path)


def _needed(table: Table) -> Iterator[str]:
    """The locations of all files that the table's metadata leads to."""
    metadata = table.metadata
    yield table.metadata_location
    yield from (entry.metadata_file for entry in metadata.metadata_log)
    yield from (statistics.statistics_path for statistics in metadata.statistics)
    yield from (statistics.statistics_path for statistics in metadata.partition_statistics)
    seen = set()
    for snapshot in metadata.snapshots:
        yield snapshot.manifest_list
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path in seen:
                continue
            seen.add(manifest.manifest_path)
            yield manifest.manifest_path
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
                yield entry.data_file.file_path


def _place(table: Table, location: str) -> tuple[fs.FileSystem, str]:
    """The file system of a location, and what it calls the place."""
    if not isinstance(table.io, PyArrowFileIO):
        raise OutputError("a table's files cannot be listed", detail=f"{location}: {type(table.io).__name__}")
    scheme, netloc, path = place_of(location, table.io.properties)
    return table.io.fs_by_scheme(scheme, netloc), path
