"""One try to change a table, and what a snapshot holds.

pyiceberg repeats a commit that lost by itself, on a table nobody has looked at. Here each try is for the table that was
loaded and for no other: it fails when another snapshot came between, and whoever asked looks again.
"""

from pyiceberg.manifest import DataFile, DataFileContent
from pyiceberg.table import Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import TableUpdate, update_table_metadata

_RETRIES = "commit.retry.num-retries"


class _LightTransaction(Transaction):
    """A transaction that works out the table's metadata once for each change to it.

    pyiceberg does so, with a deep copy of all snapshots, each of the twenty times that a commit looks at it: a
    millisecond for each snapshot of the table, of which a day of epochs leaves thousands.
    """

    def __init__(self, table: Table) -> None:
        super().__init__(table)
        self._known_for: tuple[TableUpdate, ...] = ()
        self._known: TableMetadata = table.metadata

    @property
    def table_metadata(self) -> TableMetadata:
        """The metadata with the updates so far; nobody changes it in place."""
        if not self._updates:
            return self._table.metadata
        if self._known_for is not self._updates:
            self._known_for, self._known = self._updates, update_table_metadata(self._table.metadata, self._updates)
        return self._known


def one_try(table: Table) -> Transaction:
    """A transaction on the table as it was loaded, committed at most once. The table itself stays as it is."""
    metadata = table.metadata.model_copy(update={"properties": {**table.metadata.properties, _RETRIES: "0"}})
    base = Table(table.name(), metadata, table.metadata_location, table.io, table.catalog, table.config)
    return _LightTransaction(base)


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
