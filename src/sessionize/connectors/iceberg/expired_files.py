"""What expired snapshots leave behind: files that they name and that no snapshot which is left does.

A snapshot expires only when nobody can need it any more, so these files go at once. Files that no snapshot ever named
may belong to a commit that is on its way; they are left to orphans.py, which waits.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot


@dataclass(slots=True)
class Named:
    """Files by location: data files with their size in bytes, and those of the metadata."""

    data: dict[str, int] = field(default_factory=dict)
    metadata: set[str] = field(default_factory=set)


def named_by(table: Table, snapshots: Iterable[Snapshot]) -> Named:
    """The files that snapshots need: their manifest lists, manifests and data files."""
    found = Named()
    for snapshot in snapshots:
        found.metadata.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path not in found.metadata:
                found.metadata.add(manifest.manifest_path)
                found.data |= _data(table, manifest)
    return found


def left_behind(table: Table, expired: Iterable[Snapshot], needed: Named) -> Named:
    """The files that expired snapshots needed and that are not among the needed ones."""
    found = Named()
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
