"""Finds the files of expired snapshots that no remaining snapshot names.

A snapshot expires only when no reader can need it, so these files are removed at once. A file that no snapshot ever
named may belong to an unfinished commit; orphans.py removes it later.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot


@dataclass(slots=True)
class NamedFiles:
    """Files by location: data files with their size in bytes, and those of the metadata."""

    data: dict[str, int] = field(default_factory=dict)
    metadata: set[str] = field(default_factory=set)


def files_named_by(table: Table, snapshots: Iterable[Snapshot]) -> NamedFiles:
    """The files that snapshots need: their manifest lists, manifests and data files."""
    found = NamedFiles()
    for snapshot in snapshots:
        found.metadata.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path not in found.metadata:
                found.metadata.add(manifest.manifest_path)
                found.data |= _data(table, manifest)
    return found


def unneeded_files(table: Table, expired: Iterable[Snapshot], needed: NamedFiles) -> NamedFiles:
    """The files of expired snapshots that are not among the needed ones."""
    found = NamedFiles()
    for snapshot in expired:
        found.metadata.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            path = manifest.manifest_path
            if path in needed.metadata or path in found.metadata:
                continue
            found.metadata.add(path)
            found.data |= {path: size for path, size in _data(table, manifest).items() if path not in needed.data}
    return found


def _data(table: Table, manifest: ManifestFile) -> Mapping[str, int]:
    entries = manifest.fetch_manifest_entry(table.io, discard_deleted=True)
    return {entry.data_file.file_path: entry.data_file.file_size_in_bytes for entry in entries}
