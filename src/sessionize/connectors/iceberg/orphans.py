"""Files in a table's folder that no snapshot ever named: of writers that were killed, and of commits that lost.

The folder is listed before the table is read, so what was committed meanwhile counts as needed. Files of one writer
belong together: none of them goes before the youngest of them is old enough, so a long write is never disturbed.
"""

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pyarrow import fs
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table

from sessionize.connectors.iceberg.errors import STORAGE_ERRORS, storage_failure
from sessionize.connectors.iceberg.expired_files import Named
from sessionize.connectors.iceberg.neighbours import METADATA, stranger_among
from sessionize.connectors.iceberg.storage import place_of
from sessionize.errors import OutputError

# Whatever else lies there is not Iceberg's.
_KINDS = (".parquet", ".orc", ".avro", METADATA, ".puffin", ".stats")
# Staging names its files <number>-<writer>.parquet.
_STAGED = re.compile(r"\d+-([0-9a-f]{32})\.parquet")


@dataclass(frozen=True, slots=True)
class Orphan:
    """path: as the table's file system calls it."""

    path: str
    size_bytes: int


def there(table: Table) -> list[fs.FileInfo]:
    """The files in the table's folder. Errors: OutputError, UnavailableError."""
    try:
        system, root = _place(table, table.location())
        found = system.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
    except STORAGE_ERRORS as error:
        raise storage_failure("a table's files cannot be listed", table.location(), error) from error
    return [info for info in found if info.type == fs.FileType.File and info.base_name.endswith(_KINDS)]


def orphans(
    table: Table, listed: list[fs.FileInfo], needed: Named, freed: Named, *, older_than_s: float, now_s: float
) -> list[Orphan]:
    """What can go of the files that were listed before the table was read. needed: what its snapshots name. freed: what
    goes anyway. now_s: the present, in seconds since 1970.
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
    """A metadata file of another table in the table's folder, None when there is none or nothing was found to remove.

    Whatever has been found may belong to that table then. Errors: OutputError, UnavailableError.
    """
    if not found:
        return None
    system, _ = _place(table, table.location())
    known = {_place(table, location)[1] for location in _of_the_table(table)}
    paths = [info.path for info in listed if info.path.endswith(METADATA) and info.path not in known]
    try:
        return stranger_among(table, system, paths)
    except STORAGE_ERRORS as error:
        raise storage_failure("a table's files cannot be read", table.location(), error) from error


def sizes(table: Table, listed: list[fs.FileInfo], named: Named) -> dict[str, int]:
    """By path: the sizes of those of the named files that are there."""
    wanted = {_place(table, location)[1] for location in itertools.chain(named.data, named.metadata)}
    return {info.path: info.size for info in listed if info.path in wanted}


def remove(table: Table, paths: Iterable[str]) -> None:
    """Remove these files; what is gone already is fine. Errors: OutputError, UnavailableError."""
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
    """The locations of the files that the table's metadata leads to beside its snapshots."""
    metadata = table.metadata
    yield table.metadata_location
    yield from (entry.metadata_file for entry in metadata.metadata_log)
    yield from (statistics.statistics_path for statistics in metadata.statistics)
    yield from (statistics.statistics_path for statistics in metadata.partition_statistics)


def _place(table: Table, location: str) -> tuple[fs.FileSystem, str]:
    """The file system of a location, and what it calls the place."""
    if not isinstance(table.io, PyArrowFileIO):
        raise OutputError("a table's files cannot be listed", detail=f"{location}: {type(table.io).__name__}")
    scheme, netloc, path = place_of(location, table.io.properties)
    return table.io.fs_by_scheme(scheme, netloc), path
