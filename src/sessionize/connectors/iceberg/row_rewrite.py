"""Replaces rows of a table in one snapshot, beside writers that append.

Files with a removed row are rewritten without it (copy on write), a piece at a time; only files that can have one by
their partition and bounds are read. The cost is bounded by the size of a file, which is small for sessions, and by its
buckets, few after compaction (docs/adr/0012).

A commit that loses is retried on the current table: the written files are reused if the files they replace still
exist, and recreated otherwise. The snapshot has the token, and a known token is never written twice.
"""

import contextlib
import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.conversions import from_bytes
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, In, Reference
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema, index_by_name
from pyiceberg.table import FileScanTask, Table
from pyiceberg.types import IcebergType, LongType

from sessionize.connectors.iceberg.commits import (
    COMMIT_ID,
    LOST,
    commit_with_retry,
    made_by,
    replace_files,
    single_attempt,
)
from sessionize.connectors.iceberg.errors import STORAGE_ERRORS, storage_failure
from sessionize.connectors.iceberg.layouts import partition_columns
from sessionize.connectors.iceberg.schema_evolution import aligned, apply_changes, changes_needed, complete
from sessionize.connectors.iceberg.staging import Staging
from sessionize.connectors.iceberg.tables import TableLayout
from sessionize.errors import OutputError, UnavailableError
from sessionize.session.columns import SESSION_DATE, SESSION_ID, SESSION_START, USER_HASH_BUCKET
from sessionize.session.ids import user_hash_buckets
from sessionize.session.time import EPOCH_DATE, MS_PER_DAY

_ALL_ROWS = AlwaysTrue()
# Table property: the token of the last replacement, which outlives its snapshot.
REPLACED = "sessionize.replaced"


@dataclass(slots=True)
class _Rewrite:
    """The removed files and the new ones that replace them. seen: every file that was read."""

    old: list[DataFile] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    new: list[DataFile] = field(default_factory=list)
    staging: Staging | None = None

    def discard(self) -> None:
        """Remove the new files. A file that cannot be removed is no error: no snapshot names it."""
        if self.staging is not None:
            with contextlib.suppress(OutputError):
                self.staging.discard()


class RowReplacer:
    """Replaces rows of one table by key. Implements ports.Replacer for sessions.

    table: its rows are identified by the columns of `key`. layout: the layout of its rows. Partitions by session_date
    and user_hash_bucket narrow the search. missing_ok: rows to remove may already be missing. leave: paths of files
    that are not changed. Not thread-safe. Errors of its methods: UnavailableError if a retry may succeed, OutputError
    if not.
    """

    def __init__(
        self,
        table: Table,
        layout: TableLayout,
        *,
        key: tuple[str, ...] | None = None,
        missing_ok: bool = False,
        leave: frozenset[str] = frozenset(),
    ) -> None:
        self._missing_ok = missing_ok
        self._leave = leave
        self._table = table
        self._layout = layout
        self._key = key or (str(layout.user_name), SESSION_ID)
        self._name = ".".join(table.name())
        self._rewrite: _Rewrite | None = None

    @property
    def table(self) -> Table:
        """The table as last read."""
        return self._table

    def was_committed(self, token: str) -> bool:
        """Whether the table has the replacement with this token."""
        return self._table.properties.get(REPLACED) == token or made_by(self._table, token)

    def replace(
        self,
        removed: pa.Table,
        added: pa.Table,
        *,
        token: str,
        start_ms: pa.Array | None = None,
        snapshot_properties: Mapping[str, str] | None = None,
        check: Callable[[Table], None] | None = None,
    ) -> None:
        """Remove every row with a key of `removed` and add `added`, in one commit; no change if the token is known.

        start_ms: session_start_time_ms of each removed row, so that only files of these times are read. check: called
        with the table of each attempt; its errors end the call, with nothing changed.
        Errors: OutputError if a row to remove is missing, UnavailableError if other writers were always faster; then
        nothing has changed.
        """
        properties = {**(snapshot_properties or {}), COMMIT_ID: token}
        self._rewrite = None

        def attempt() -> None:
            self._table = self._table.refresh()
            if self.was_committed(token):
                return
            look = check or (lambda table: None)
            look(self._table)
            rewrite = self._ready(removed, added, start_ms)
            look(self._table)  # again, because planning takes long and reads the table as it is then
            self._commit(rewrite, added, properties)

        try:
            commit_with_retry(attempt, gave_up=self._gave_up)
        except BaseException:
            if self._is_absent(token):
                self._forget()
            raise

    def set_properties(self, properties: Mapping[str, str]) -> None:
        """Set table properties."""

        def attempt() -> None:
            self._table = self._table.refresh()
            transaction = single_attempt(self._table)
            transaction.set_properties(dict(properties))
            self._table = transaction.commit_transaction()

        commit_with_retry(attempt, gave_up=self._gave_up)

    def _gave_up(self, error: Exception, tries: str) -> OutputError | UnavailableError:
        if isinstance(error, STORAGE_ERRORS):
            return storage_failure("a commit did not succeed", self._name, error)
        return UnavailableError(
            "a commit did not succeed",
            detail=f"table {self._name}, {tries}",
            hint="other writers were faster; nothing was changed, run it again",
        )

    def _is_absent(self, token: str) -> bool:
        """Whether certainly no snapshot names the new files."""
        try:
            self._table = self._table.refresh()
        except LOST:
            return False
        return not self.was_committed(token)

    def _ready(self, removed: pa.Table, added: pa.Table, start_ms: pa.Array | None) -> _Rewrite:
        """The rewrite for the current table; planning takes long, so the table is checked once more."""
        for _ in range(2):
            rewrite = self._rewrite
            if rewrite is not None and self._holds(rewrite, removed, added, start_ms):
                return rewrite
            self._forget()
            made = self._rewrite = self._planned(removed, added, start_ms)
            self._table = self._table.refresh()
        return made

    def _forget(self) -> None:
        if self._rewrite is not None:
            self._rewrite.discard()
        self._rewrite = None

    def _holds(self, rewrite: _Rewrite, removed: pa.Table, added: pa.Table, start_ms: pa.Array | None) -> bool:
        """Whether its old files all exist, its new ones fit the table, and no new file is affected."""
        staging = rewrite.staging
        if staging is not None:
            ids = index_by_name(self._evolved(added))
            same_ids = all(ids.get(name) == number for name, number in index_by_name(staging.schema).items())
            if not same_ids or staging.metadata.default_spec_id != self._table.metadata.default_spec_id:
                return False
        tasks = self._candidates(removed, start_ms)
        if not {file.file_path for file in rewrite.old} <= {task.file.file_path for task in tasks}:
            return False
        keys = self._keys(removed)
        for task in tasks:
            if task.file.file_path not in rewrite.seen and self._matches(task, keys, removed):
                return False
            rewrite.seen.add(task.file.file_path)
        return True

    def _planned(self, removed: pa.Table, added: pa.Table, start_ms: pa.Array | None) -> _Rewrite:
        rewrite = _Rewrite()
        schema = self._evolved(added)
        keys = self._keys(removed)
        found: list[pa.Array] = []
        staging = rewrite.staging = Staging(self._table.io, self._table.metadata, schema)
        try:
            self._stage(staging, added, schema)
            for task in self._candidates(removed, start_ms):
                rewrite.seen.add(task.file.file_path)
                if not self._matches(task, keys, removed):
                    continue
                rewrite.old.append(task.file)
                for rows in self._scan(task, self._table.schema()):
                    its = self._keys(rows)
                    hit = pc.is_in(its, value_set=keys)
                    found.append(its.filter(hit))
                    self._stage(staging, rows.filter(pc.invert(hit)), schema)
            rewrite.new = staging.finish()
            self._check_found(keys, found)
        except BaseException:
            rewrite.discard()
            raise
        return rewrite

    def _stage(self, staging: Staging, rows: pa.Table, schema: Schema) -> None:
        if rows.num_rows:
            staging.add(aligned(complete(rows, self._layout), schema))

    def _check_found(self, keys: pa.Array, found: list[pa.Array]) -> None:
        if self._missing_ok:
            return
        there = pa.concat_arrays([pa.array([], pa.binary()), *found])
        missing = pc.invert(pc.is_in(keys, value_set=there))
        count = pc.sum(missing).as_py() or 0
        if count:
            raise OutputError(
                "the rows to replace are no longer in the table",
                detail=f"table {self._name}: {count} of {len(keys)}, for example {keys.filter(missing)[0]}",
                hint="another process replaced them; nothing was changed, run it again",
            )

    def _candidates(self, removed: pa.Table, start_ms: pa.Array | None) -> list[FileScanTask]:
        """Files that can have a removed row by partition and bounds, ordered by bucket."""
        if not removed.num_rows:
            return []
        keep = self._of_buckets(removed)
        if SESSION_DATE in self._table.schema().column_names and start_ms is not None:
            days = np.unique(np.floor_divide(start_ms.to_numpy(), MS_PER_DAY)).tolist()
            keep = And(keep, _one_of(SESSION_DATE, {EPOCH_DATE + dt.timedelta(days=day) for day in days}))
        tasks = [
            task for task in self._table.scan(row_filter=keep).plan_files() if task.file.file_path not in self._leave
        ]
        return sorted((task for task in tasks if self._spans(task.file, start_ms)), key=self._first_bucket)

    def _of_buckets(self, removed: pa.Table) -> BooleanExpression:
        """The filter for the removed keys' rows: the buckets of their users."""
        name = self._layout.user_name
        if USER_HASH_BUCKET not in self._table.schema().column_names or name not in removed.column_names:
            return AlwaysTrue()
        users = pc.unique(removed[name].cast(pa.string()))
        return _one_of(USER_HASH_BUCKET, set(pc.unique(user_hash_buckets(users)).to_pylist()))

    def _first_bucket(self, task: FileScanTask) -> tuple[bytes, str]:
        """The sort key of a file: rows written in the order of buckets give files with few buckets."""
        schema, bounds = self._table.schema(), task.file.lower_bounds or {}
        known = USER_HASH_BUCKET in schema.column_names
        low = bounds.get(schema.find_field(USER_HASH_BUCKET).field_id, b"") if known else b""
        return low, task.file.file_path

    def _spans(self, file: DataFile, start_ms: pa.Array | None) -> bool:
        """Whether one of the starts may be within the file's bounds."""
        if start_ms is None:
            return True
        start = self._table.schema().find_field(SESSION_START)
        low, high = ((bounds or {}).get(start.field_id) for bounds in (file.lower_bounds, file.upper_bounds))
        if low is None or high is None or not isinstance(start.field_type, LongType):
            return True
        starts = start_ms.to_numpy()
        inside = (starts >= from_bytes(start.field_type, low)) & (starts <= from_bytes(start.field_type, high))
        return bool(inside.any())

    def _matches(self, task: FileScanTask, keys: pa.Array, removed: pa.Table) -> bool:
        """Whether a file has one of the keys; only row groups of their buckets are read."""
        columns = self._table.schema().select(*self._key)
        parts = self._scan(task, columns, self._of_buckets(removed))
        return any(pc.any(pc.is_in(self._keys(rows), value_set=keys)).as_py() for rows in parts)

    def _scan(self, task: FileScanTask, columns: Schema, keep: BooleanExpression = _ALL_ROWS) -> Iterator[pa.Table]:
        """The rows of a file, a piece at a time."""
        scan = ArrowScan(self._table.metadata, self._table.io, columns, keep)
        for batch in scan.to_record_batches([task]):
            if batch.num_rows:
                yield pa.Table.from_batches([batch])

    def _keys(self, rows: pa.Table) -> pa.Array:
        """The key columns as one value, each with its length in front, so that different keys stay different."""
        parts: list[pa.Array] = []
        for name in self._key:
            column = rows[name].combine_chunks()
            text = column if _is_binary(column.type) else column.cast(pa.string())
            value = text.cast(pa.binary())
            parts += [pc.binary_length(value).cast(pa.string()).cast(pa.binary()), value]
        return pc.binary_join_element_wise(*parts, b":", null_handling="replace", null_replacement=b"-")

    def _evolved(self, added: pa.Table) -> Schema:
        return apply_changes(self._table.transaction(), self._changes(added))

    def _changes(self, added: pa.Table) -> dict[str, IcebergType]:
        schema = self._table.schema()
        return changes_needed(schema, complete(added, self._layout).schema, partition_columns(self._table.metadata))

    def _commit(self, rewrite: _Rewrite, added: pa.Table, properties: Mapping[str, str]) -> None:
        transaction = single_attempt(self._table)
        apply_changes(transaction, self._changes(added))
        transaction.set_properties({REPLACED: properties[COMMIT_ID]})
        replace_files(transaction, rewrite.old, rewrite.new, properties)
        self._table = transaction.commit_transaction()


def _one_of(column: str, values: set[Any]) -> BooleanExpression:
    return In(Reference(column), values)  # type: ignore[call-arg, arg-type]


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
