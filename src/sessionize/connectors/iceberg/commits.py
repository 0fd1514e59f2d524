"""One try to change a table, and what a snapshot holds.

pyiceberg repeats a commit that lost by itself, on a table nobody has looked at. Here each try is for the table that was
loaded and for no other: it fails when another snapshot came between, and whoever asked looks again.
"""

from pyiceberg.manifest import DataFile, DataFileContent
from pyiceberg.table import Table, Transaction

_RETRIES = "commit.retry.num-retries"


def one_try(table: Table) -> Transaction:
    """A transaction on the table as it was loaded, committed at most once. The table itself stays as it is."""
    metadata = table.metadata.model_copy(update={"properties": {**table.metadata.properties, _RETRIES: "0"}})
    return Table(table.name(), metadata, table.metadata_location, table.io, table.catalog, table.config).transaction()


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
