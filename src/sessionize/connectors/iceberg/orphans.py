"""Files in a table's folder that no snapshot ever named: from killed writers and lost commits.

The folder is listed before the table is read, so files committed in between count as needed. The files of one writer
are removed only when its youngest file is old enough, so a long write is never disturbed.
"""

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pyarrow import fs
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table

from sessionize.connectors.iceberg.errors import STORAGE_ERRORS, storage_failure
from sessionize.connectors.iceberg.expired_files import NamedFiles
from sessionize.connectors.iceberg.storage import split_location
from sessionize.connectors.iceberg.table_folders import METADATA, metadata_of_another
from sessionize.errors import OutputError

# All other files there are not Iceberg's.
_KINDS = (".parquet", ".orc", ".avro", METADATA, ".puffin", ".stats")
# Staging names its files <number>-<writer>.parquet.
_STAGED = re.compile(r"\d+-([0-9a-f]{32})\.parquet")


@dataclass(frozen=True, slots=True)
class Orphan:
    """path: in the table's file system."""

    path: str
    size_bytes: int


def list_files(table: Table) -> list[fs.FileInfo]:
    """The files in the table's folder. Errors: OutputError, UnavailableError."""
    try:
        system, root = _place(table, table.location())
        found = system.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
    except STORAGE_ERRORS as error:
        raise storage_failure("a table's files cannot be listed", table.location(), error) from error
    return [info for info in found if info.type == fs.FileType.File and info.base_name.endswith(_KINDS)]


def orphans(
    table: Table, listed: list[fs.FileInfo], needed: NamedFiles, freed: NamedFiles, *, older_than_s: float, now_s: float
) -> list[Orphan]:
    """The removable ones of the files that were listed before the table was read. needed: the files of its snapshots.
    freed: files that are removed anyway. now_s: the time now, in seconds since 1970.
    """
    youngest: dict[str, float] = {}
    for info in listed:
        group = _group(info)
        youngest[group] = max(youngest.get(group, 0.0), info.mtime_ns / 1e9)
    locations = (_of_the_table(table), needed.data, needed.metadata, freed.data, freed.metadata)
    known = {_place(table, location)[1] for location in itertools.chain(*locations)}
    return [
        Orphan(info.path, info.size)
        for info in listed
        if info.path not in known and youngest[_group(info)] < now_s - older_than_s
    ]


def another_tables(table: Table, listed: list[fs.FileInfo], found: list[Orphan]) -> str | None:
    """A metadata file of another table in the table's folder, None if there is none or nothing to remove.

    The orphans may then belong to that table. Errors: OutputError, UnavailableError.
    """
    if not found:
        return None
    system, _ = _place(table, table.location())
    known = {_place(table, location)[1] for location in _of_the_table(table)}
    paths = [info.path for info in listed if info.path.endswith(METADATA) and info.path not in known]
    try:
        return metadata_of_another(table, system, paths)
    except STORAGE_ERRORS as error:
        raise storage_failure("a table's files cannot be read", table.location(), error) from error


def sizes(table: Table, listed: list[fs.FileInfo], named: NamedFiles) -> dict[str, int]:
    """The sizes of the existing ones of the named files, by path."""
    wanted = {_place(table, location)[1] for location in itertools.chain(named.data, named.metadata)}
    return {info.path: info.size for info in listed if info.path in wanted}


def remove(table: Table, paths: Iterable[str]) -> None:
    """Remove these files; missing ones are ignored. Errors: OutputError, UnavailableError."""
    system, _ = _place(table, table.location())
    for path in paths:
        try:
            system.delete_file(path)
        except FileNotFoundError:
            continue
        except STORAGE_ERRORS as error:
            raise storage_failure("a file cannot be removed", path, error) from error


def _group(info: fs.FileInfo) -> str:
    staged = _STAGED.fullmatch(info.base_name)
    return staged.group(1) if staged is not None else str(info.path)


def _of_the_table(table: Table) -> Iterator[str]:
    """The locations of the files that the table's metadata refers to outside of snapshots."""
    metadata = table.metadata
    yield table.metadata_location
    yield from (entry.metadata_file for entry in metadata.metadata_log)
    yield from (statistics.statistics_path for statistics in metadata.statistics)
    yield from (statistics.statistics_path for statistics in metadata.partition_statistics)


def _place(table: Table, location: str) -> tuple[fs.FileSystem, str]:
    """The file system of a location, and its path there."""
    if not isinstance(table.io, PyArrowFileIO):
        raise OutputError("a table's files cannot be listed", detail=f"{location}: {type(table.io).__name__}")
    scheme, netloc, path = split_location(location, table.io.properties)
    return table.io.fs_by_scheme(scheme, netloc), path
