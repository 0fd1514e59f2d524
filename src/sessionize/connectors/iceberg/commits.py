"""One try to change a table, tries until one holds, and what a snapshot holds.

pyiceberg repeats a commit that lost by itself, on a table nobody has looked at. Here each try is for the table that was
loaded and for no other: it fails when another snapshot came between, and whoever asked looks again.
"""

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, ValidationException
from pyiceberg.manifest import DataFile, DataFileContent, ManifestEntry, ManifestEntryStatus, ManifestFile
from pyiceberg.table import Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _MergeAppendFiles, _OverwriteFiles, _SnapshotProducer

from sessionize.connectors.iceberg.errors import STORAGE_ERRORS
from sessionize.errors import SessionizeError, StateError
from sessionize.retry_pauses import cancelled, pause

COMMIT_ID = "sessionize.commit-id"  # in a snapshot's summary: what made it
# A try that lost against another writer, or whose answer got lost.
LOST = (CommitFailedException, ValidationException, *STORAGE_ERRORS)
_RETRIES = "commit.retry.num-retries"
_TRIES_MAX = 10
_WAIT_MIN_S = 0.05
_WAIT_MAX_S = 2.0

Result = TypeVar("Result")


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


def refreshed(table: Table) -> Table:
    """The table as it is now. Errors: StateError when another one stands in its place; those of the catalog."""
    try:
        return table.refresh()
    except (ValueError, NoSuchTableError) as error:
        if isinstance(error, ValueError) and "UUID" not in str(error):
            raise
        raise StateError(
            "a table was deleted and made anew meanwhile",
            detail=".".join(table.name()),
            hint="another run may have taken it while it held no rows: see that one pipeline alone writes it, and run "
            "this again",
        ) from error


def single_attempt(table: Table) -> Transaction:
    """A transaction on the table as it was loaded, committed at most once. The table itself stays as it is."""
    metadata = table.metadata.model_copy(update={"properties": {**table.metadata.properties, _RETRIES: "0"}})
    return _OneTry(Table(table.name(), metadata, table.metadata_location, table.io, table.catalog, table.config))


class _BySpec(_SnapshotProducer[Any]):
    """pyiceberg lists all new files by the table's own partition spec; a table may be divided by several at once."""

    def _manifests(self) -> list[ManifestFile]:
        every, own = self._added_data_files, self._transaction.table_metadata.default_spec_id
        self._added_data_files = [file for file in every if file.spec_id == own]
        try:
            manifests = super()._manifests()
        finally:
            self._added_data_files = every
        others = sorted({file.spec_id for file in every} - {own})
        return [*(self._listed(spec_id, [f for f in every if f.spec_id == spec_id]) for spec_id in others), *manifests]

    def _listed(self, spec_id: int, files: list[DataFile]) -> ManifestFile:
        with self.new_manifest_writer(self.spec(spec_id)) as writer:
            for file in files:
                entry = ManifestEntry.from_args(
                    status=ManifestEntryStatus.ADDED,
                    snapshot_id=self._snapshot_id,
                    sequence_number=None,
                    file_sequence_number=None,
                    data_file=file,
                )
                writer.add(entry)
        return writer.to_manifest_file()


class _Append(_BySpec, _MergeAppendFiles):
    pass


class _Overwrite(_BySpec, _OverwriteFiles):
    pass


def append_files(transaction: Transaction, files: Iterable[DataFile], properties: Mapping[str, str]) -> None:
    """Stage a snapshot that adds files, each of any partition spec of the table."""
    with _Append(Operation.APPEND, transaction, transaction._table.io, snapshot_properties=dict(properties)) as change:
        for file in files:
            change.append_data_file(file)


def replace_files(
    transaction: Transaction, old: Iterable[DataFile], new: Iterable[DataFile], properties: Mapping[str, str]
) -> None:
    """Stage a snapshot in which new files stand for old ones."""
    is_first = transaction.table_metadata.current_snapshot() is None
    kind = Operation.APPEND if is_first else Operation.OVERWRITE
    with _Overwrite(kind, transaction, transaction._table.io, snapshot_properties=dict(properties)) as change:
        for file in old:
            change.delete_data_file(file)
        for file in new:
            change.append_data_file(file)


def commit_with_retry(attempt: Callable[[], Result], *, gave_up: Callable[[Exception, str], SessionizeError]) -> Result:
    """The result of the first attempt that is not LOST, with a random pause before every further one.

    attempt: has to look at the table anew, and whether the one before went through after all. gave_up: makes the error
    to raise from the last failure and a text that has it with the number of tries. When the run ends meanwhile, no
    pause is made any more: what lost against other writers is tried at once, what the storage refused is not.
    """
    number = 0
    while True:
        number += 1
        try:
            return attempt()
        except LOST as error:
            lost = error
        paused = number < _TRIES_MAX and pause(random.uniform(0, min(_WAIT_MAX_S, _WAIT_MIN_S * 2**number)))
        if number == _TRIES_MAX or cancelled() or (not paused and isinstance(lost, STORAGE_ERRORS)):
            raise gave_up(lost, f"{number} {'try' if number == 1 else 'tries'}; the last one: {lost}") from lost


def made_by(table: Table, commit_id: str) -> bool:
    """Whether one of the table's snapshots is of the commit with this id."""
    summaries = (snapshot.summary for snapshot in table.metadata.snapshots)
    return any(summary is not None and summary[COMMIT_ID] == commit_id for summary in summaries)


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
