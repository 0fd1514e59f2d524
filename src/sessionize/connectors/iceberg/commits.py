"""One try to change a table, and what a snapshot holds.

pyiceberg repeats a commit that lost by itself, on a table nobody has looked at. Here each try is for the table that was
loaded and for no other: it fails when another snapshot came between, and whoever asked looks again.
"""

from typing import Any

from pyiceberg.manifest import DataFile, DataFileContent
from pyiceberg.table import Table, Transaction
from pyiceberg.table.metadata import TableMetadata

_RETRIES = "commit.retry.num-retries"


class _OneTry(Transaction):
    """pyiceberg copies all of the metadata, with every snapshot in it, each time that it looks at it: some twenty times
    for a commit. Here it is copied when it has changed.
    """

    _known: tuple[Any, Any, TableMetadata] | None = None

    @property
    def table_metadata(self) -> TableMetadata:
        """The table's metadata with what has been staged so far; nobody changes it in place."""
        if not self._updates:
            return self._table.metadata
        known = self._known
        if known is None or known[0] is not self._table.metadata or known[1] is not self._updates:
            self._known = known = (self._table.metadata, self._updates, super().table_metadata)
        return known[2]


def one_try(table: Table) -> Transaction:
    """A transaction on the table as it was loaded, committed at most once. The table itself stays as it is."""
    metadata = table.metadata.model_copy(update={"properties": {**table.metadata.properties, _RETRIES: "0"}})
    return _OneTry(Table(table.name(), metadata, table.metadata_location, table.io, table.catalog, table.config))


def data_files(table: Table) -> list[DataFile]:
    """The data files of the current snapshot."""
    snapshot = table.current_snapshot()
    if snapshot is None:
        return []
    return [
        entry.data_file
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
        if entry.data_file.content == DataFileContent.DATA
    ]
