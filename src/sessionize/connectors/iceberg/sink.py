"""The sink: rows become data files as they come, and one snapshot makes all of them visible at once.

A commit that loses against another writer is tried again on the table as it is then. Each commit carries an
id in its snapshot, and the id is looked for before every new try, so an answer that got lost never doubles
rows. A try holds only for the snapshot that was looked at (commits.py), so what a guard saw is what is committed upon.
"""

import contextlib
import uuid
from collections.abc import Callable, Iterable, Mapping

import pyarrow as pa
from pyiceberg.schema import Schema
from pyiceberg.table import Table, Transaction

from sessionize.connectors.iceberg.catalog import DATABASE, Catalog
from sessionize.connectors.iceberg.commits import (
    COMMIT_ID,
    append_files,
    commit_with_retry,
    data_files,
    made_by,
    refreshed,
    replace_files,
    single_attempt,
)
from sessionize.connectors.iceberg.data_files import StagedFiles, remove_files
from sessionize.connectors.iceberg.errors import STORAGE_ERRORS, storage_failure
from sessionize.connectors.iceberg.layouts import partition_columns
from sessionize.connectors.iceberg.loads import LOAD, LoadMark
from sessionize.connectors.iceberg.ownership import Owner
from sessionize.connectors.iceberg.schema_evolution import (
    aligned,
    apply_changes,
    changes_needed,
    claims_to_properties,
    complete,
    misfits,
    misfits_to_properties,
    same_columns,
)
from sessionize.connectors.iceberg.staging import BUFFER_BYTES_MAX, Staging
from sessionize.connectors.iceberg.tables import TableLayout, open_table
from sessionize.errors import OutputError, StateError, UnavailableError
from sessionize.formats.sizes import in_pieces
from sessionize.session.columns import PROPERTIES


class IcebergSink:
    """Writes rows to one Iceberg table (ports.Sink). Makes the table when it is not there.

    overwrite: the commit replaces everything the table has at that moment. owner: who writes, which every commit notes
    and checks anew. load: the load that the rows belong to. buffer_bytes_max: rows that may wait in memory, as Arrow
    bytes. on_change: as in open_table. Not for several threads at once. Errors: those of open_table.
    """

    def __init__(
        self,
        catalog: Catalog,
        layout: TableLayout,
        *,
        table: str,
        database: str = DATABASE,
        overwrite: bool = False,
        owner: Owner | None = None,
        load: LoadMark | None = None,
        buffer_bytes_max: int = BUFFER_BYTES_MAX,
        on_change: Callable[[str], None] = lambda change: None,
    ) -> None:
        self._layout = layout
        self._own = frozenset(layout.columns.names)
        self._keeps_fields = PROPERTIES in self._own
        self._overwrite = overwrite
        self._owner = owner
        self._load = load
        self._buffer_bytes_max = buffer_bytes_max
        self._table = open_table(catalog, database, table, layout, owner=owner, on_change=on_change)
        self._name = f"{database}.{table}"
        # The columns of all rows of this commit; what the table has to learn follows from them.
        self._written: dict[str, pa.DataType] = {}
        self._staging: Staging | None = None
        # Files that the next commit names, and whether they stay when it does not.
        self._taken: list[tuple[StagedFiles, bool]] = []
        self._is_fresh = False
        self._broken = False
        # The same for every try to commit the same rows: a try that went through unseen is recognised.
        self._commit_id = uuid.uuid4().hex
        self._tried = False

    @property
    def table(self) -> Table:
        """The table as this sink saw it last."""
        return self._table

    def write(self, rows: pa.Table) -> None:
        """Stage rows; dictionary columns are decoded, new columns are remembered for the table.

        Errors: OutputError when rows do not fit the table or the disk does not take them; then only abort is
        left.
        """
        if rows.num_rows == 0:
            return
        self._check_whole()
        # Whatever interrupts a write leaves it half done, and half a write must never be committed.
        self._broken = True
        try:
            self._stage(rows)
        except (*STORAGE_ERRORS, pa.ArrowException) as error:
            raise storage_failure("rows cannot be written", self._table.location(), error) from error
        self._broken = False

    def refresh(self) -> Table:
        """The table as it is now; what is written next is staged for it. Errors: OutputError, UnavailableError."""
        try:
            self._table = refreshed(self._table)
        except STORAGE_ERRORS as error:
            raise storage_failure("a table cannot be read", self._name, error) from error
        self._is_fresh = True
        return self._table

    def finish(self) -> None:
        """Write the rest of the staged rows to their files, which a commit then only has to name. Errors: as write."""
        self._check_whole()
        if self._staging is None:
            return
        self._broken = True
        try:
            self._staging.finish()
        except (OSError, pa.ArrowException) as error:
            raise storage_failure("rows cannot be written", self._table.location(), error) from error
        self._broken = False

    def hand_over(self) -> StagedFiles | None:
        """Finish what was written and give it away, to be taken here or elsewhere; None when nothing was written.

        Errors: as write.
        """
        self.finish()
        staging, self._staging = self._staging, None
        if staging is None:
            return None
        columns, self._written, self._is_fresh = pa.schema(list(self._written.items())), {}, False
        return StagedFiles(tuple(staging.finish()), columns, staging.schema, staging.metadata.default_spec_id)

    def take(self, staged: StagedFiles, *, keep: bool) -> None:
        """Let the next commit make these files visible too, whoever wrote them.

        keep: when the commit fails or is not wanted, they stay, for somebody who tries again; else they are removed.
        """
        self._taken.append((staged, keep))

    def commit(
        self,
        *,
        snapshot_properties: Mapping[str, str] | None = None,
        table_properties: Mapping[str, str] | None = None,
        unless: Callable[[Table], bool] | None = None,
    ) -> None:
        """Make everything written visible in one snapshot; nothing happens when nothing was written.

        snapshot_properties are kept in the snapshot's summary, table_properties set with it. unless: asked before
        every try about the table the try is for; when true, the rows are dropped instead. Errors: OutputError,
        UnavailableError; then commit may be called again, or abort: both look first whether the snapshot is there
        after all.
        """
        written = self.hand_over()
        if written is not None:
            self.take(written, keep=False)
        if not self._taken and not self._overwrite and not (self._load and self._load.concerns(self._table)):
            return
        of_load = {} if self._load is None else {LOAD: self._load.id}
        properties = {**(snapshot_properties or {}), **of_load, COMMIT_ID: self._commit_id}
        if self._commit_taken(properties, table_properties or {}, unless):
            self._forget()
        else:
            self.abort()

    def note(
        self,
        table_properties: Mapping[str, str] | Callable[[Table], Mapping[str, str]],
        *,
        unless: Callable[[Table], bool],
    ) -> None:
        """Set properties of the table; no rows, no snapshot.

        table_properties: or what gives them for the very table that a try is for; none of them, and nothing is done,
        and whose the table is is left to its first rows. unless: as in commit. Errors: UnavailableError.
        """

        def attempt() -> None:
            self._table = refreshed(self._table)
            if unless(self._table):
                return
            if self._owner is not None:
                self._owner.check(self._table)
            if callable(table_properties):
                wanted = table_properties(self._table)
                if not wanted:
                    return
            else:
                wanted = {**self._owned(), **table_properties}
            transaction = single_attempt(self._table)
            transaction.set_properties(dict(wanted))
            self._table = transaction.commit_transaction()

        commit_with_retry(
            attempt, gave_up=lambda error, _: storage_failure("a table cannot be changed", self._name, error)
        )

    def abort(self) -> None:
        """Remove what was written since the last commit, and was not taken to be kept.

        Errors: OutputError for files that would not go.
        """
        staging, taken = self._staging, self._taken
        if self._tried and self._may_have_landed():
            taken = []
        self._forget()
        if staging is not None:
            staging.discard()
        remove_files(self._table.io, [f.file_path for staged, keep in taken if not keep for f in staged.files])

    def _check_whole(self) -> None:
        if self._broken:
            raise OutputError(
                "an incomplete write cannot be continued or committed",
                detail=f"table {self._name}",
                hint="abort, and write again",
            )

    def _forget(self) -> None:
        self._staging = None
        self._taken = []
        self._is_fresh = False
        self._written = {}
        self._broken = False
        self._commit_id = uuid.uuid4().hex
        self._tried = False

    def _stage(self, rows: pa.Table) -> None:
        if self._staging is None and not self._is_fresh:
            self._table = refreshed(self._table)
        for part in in_pieces(rows, bytes_max=self._buffer_bytes_max):
            part = complete(claims_to_properties(part, self._layout) if self._keeps_fields else part, self._layout)
            if self._keeps_fields:
                schema = self._table.schema() if self._staging is None else self._staging.schema
                part = misfits_to_properties(part, schema, self._own)
            staging = self._staging_for(part.schema)
            staging.add(aligned(part, staging.schema))

    def _staging_for(self, rows: pa.Schema) -> Staging:
        if self._staging is None:
            self._staging = self._new_staging(self._table, self._table.schema())
        news = changes_needed(self._staging.schema, rows, self._fixed_columns(self._table))
        for column in rows:
            if column.name in news or column.name not in self._written:
                self._written[column.name] = column.type
        if news:
            brought = pa.schema(list(self._written.items()))
            self._staging.change_schema(self._evolve(single_attempt(self._table), [brought]))
        return self._staging

    def _new_staging(self, table: Table, schema: Schema) -> Staging:
        return Staging(table.io, table.metadata, schema, self._buffer_bytes_max)

    def _evolve(self, transaction: Transaction, brought: Iterable[pa.Schema]) -> Schema:
        """The schema of the table once it knows these columns, staged in the transaction.

        Files that were staged side by side may contradict each other, in fields that have a place in `properties`: the
        first one's type is taken. Errors: OutputError for what contradicts the table.
        """
        table = schema = transaction.table_metadata.schema()
        for columns in brought:
            if self._keeps_fields:
                changes_needed(table, columns, self._fixed_columns(self._table))
                aside = misfits(columns, schema, self._own)
                columns = pa.schema([column for column in columns if column.name not in aside])
            schema = apply_changes(transaction, changes_needed(schema, columns, self._fixed_columns(self._table)))
        return schema

    @staticmethod
    def _fixed_columns(table: Table) -> frozenset[str]:
        return partition_columns(table.metadata)

    def _commit_taken(
        self,
        properties: dict[str, str],
        table_properties: Mapping[str, str],
        unless: Callable[[Table], bool] | None,
    ) -> bool:
        """Whether the files are in the table now; False when `unless` forbade it."""

        def attempt() -> bool:
            self._table = refreshed(self._table)
            if made_by(self._table, self._commit_id):
                return True
            if unless is not None and unless(self._table):
                return False
            if self._owner is not None:
                self._owner.check(self._table)
            if self._load is not None:
                self._load.check(self._table)
            self._rewrite_outdated()
            self._tried = True
            self._try_commit(properties, table_properties)
            return True

        return commit_with_retry(attempt, gave_up=self._gave_up)

    def _gave_up(self, error: Exception, tries: str) -> OutputError | UnavailableError:
        if isinstance(error, STORAGE_ERRORS):
            return storage_failure("a commit did not succeed", self._name, error)
        return UnavailableError(
            "a commit did not succeed",
            detail=f"table {self._name}, {tries}",
            hint="other writers were faster; the rows are still staged, commit again or abort",
        )

    def _may_have_landed(self) -> bool:
        """Whether a snapshot may name the staged files: they must stay when that can't be found out."""
        try:
            self._table = refreshed(self._table)
        except STORAGE_ERRORS:
            return True
        except StateError:
            return False  # nothing names files of a table that is gone
        return made_by(self._table, self._commit_id)

    def _try_commit(self, properties: dict[str, str], table_properties: Mapping[str, str]) -> None:
        transaction = single_attempt(self._table)
        self._evolve(transaction, self._brought())
        files = [file for staged, _ in self._taken for file in staged.files]
        load = self._load
        old = data_files(self._table) if self._overwrite else [] if load is None else load.old_files(self._table)
        if self._overwrite or old:
            replace_files(transaction, old, files, properties)
        else:
            append_files(transaction, files, properties)
        # last: every change before the snapshot makes working that out dearer
        of_load = {} if load is None else load.properties(self._table, transaction.table_metadata, len(files))
        if own := {**self._owned(), **of_load, **table_properties}:
            transaction.set_properties(own)
        self._table = transaction.commit_transaction()

    def _owned(self) -> Mapping[str, str]:
        return {} if self._owner is None else self._owner.missing(self._table)

    def _brought(self) -> list[pa.Schema]:
        return [staged.columns for staged, _ in self._taken]

    def _rewrite_outdated(self) -> None:
        """Files carry field ids and partitions of the table as it was. When another writer changed either in
        a way that disagrees, or files were staged side by side, the rows are staged once more for the table as it is.
        """
        now = self._evolve(single_attempt(self._table), self._brought())
        for at, (staged, keep) in enumerate(self._taken):
            if same_columns(staged.schema, now) and staged.spec_id == self._table.metadata.default_spec_id:
                continue
            self._taken[at] = (self._rewritten(staged, now), False)
            if not keep:
                # A file that would not go is no reason to fail: no snapshot names it.
                with contextlib.suppress(OutputError):
                    remove_files(self._table.io, [file.file_path for file in staged.files])

    def _rewritten(self, staged: StagedFiles, now: Schema) -> StagedFiles:
        fresh = self._new_staging(self._table, now)
        try:
            for rows in staged.read(self._table.io):
                rows = complete(rows, self._layout)
                fresh.add(aligned(misfits_to_properties(rows, now, self._own) if self._keeps_fields else rows, now))
            files = fresh.finish()
        except BaseException:
            fresh.discard()
            raise
        return StagedFiles(tuple(files), staged.columns, now, fresh.metadata.default_spec_id)
