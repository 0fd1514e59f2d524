"""The tables as the source of reconciling: the final horizon, new late events, and the rows of some users.

Every read is narrowed by metadata first (a file's snapshot, partitions, column bounds), so that a repeated read costs
only what is new.
"""

import datetime as dt
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFileContent
from pyiceberg.table import Table
from pyiceberg.types import LongType

from sessionize.connectors.iceberg.dataset import readable
from sessionize.connectors.iceberg.errors import storage_failure
from sessionize.connectors.iceberg.ownership import EPOCH, WATERMARK
from sessionize.connectors.iceberg.storage import split_location
from sessionize.errors import InputError, SessionizeError
from sessionize.session.columns import (
    END_REASON,
    EVENT_TIME,
    EVENT_TYPE,
    SESSION_END,
    USER,
    USER_HASH_BUCKET,
)

# Below every valid event time, by more than a gap.
NOTHING_FINAL = -(1 << 62)
RECONCILED_TO = "sessionize.reconciled-to"
SEQUENCE = "sequence"
# The columns of late_after.
LATE = pa.schema(
    [
        (USER, pa.string()),
        (EVENT_TIME, pa.int64()),
        (EVENT_TYPE, pa.string()),
        (USER_HASH_BUCKET, pa.int32()),
        (SEQUENCE, pa.int64()),
    ]
)

IcebergTable = Table


class TooManyRowsError(Exception):
    """More rows than allowed; the rows are valid."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The rows to read: users, their buckets, and the UTC dates of events or session starts (None: all)."""

    users: pa.Array
    buckets: frozenset[int]
    dates: frozenset[dt.date] | None


def horizon_of(sessions: Table, others: Sequence[Table], *, closed: Set[str] = frozenset()) -> int | None:
    """The time below which the sessions of every writer are final; None if no epoch was ever written.

    It is the minimum over the writers. others: the tables that an epoch commits before the sessions: a writer in these
    but not in the sessions has no final session yet. closed: writers without open sessions, which do not count. The
    watermarks are table properties, because snapshots expire.
    """
    marks = {writer: mark for writer, mark in _watermarks(sessions).items() if writer not in closed}
    behind = {writer for table in others for writer in _watermarks(table)} - marks.keys() - closed
    return NOTHING_FINAL if behind else min(marks.values(), default=None)


def _watermarks(table: Table) -> dict[str, int]:
    """The watermark of each writer's rows in the table; NOTHING_FINAL for a writer without one."""
    epochs = [name.removeprefix(f"{EPOCH}.") for name in table.properties if name.startswith(f"{EPOCH}.")]
    return {writer: int(table.properties.get(f"{WATERMARK}.{writer}", NOTHING_FINAL)) for writer in epochs}


def latest_time_of(table: Table, column: str = EVENT_TIME) -> int | None:
    """The largest value of an int64 column, from the files' bounds; None for a table without rows."""
    found = table.schema().find_field(column)
    highest: list[Any] = []
    for task in table.scan().plan_files():
        bound = (task.file.upper_bounds or {}).get(found.field_id)
        if bound is None and task.file.record_count:
            return _read_largest(table, column)
        if bound is not None:
            highest.append(from_bytes(LongType(), bound))
    return max(highest, default=None)


def floor_of_largest(table: Table, column: str, rows: int) -> int | None:
    """A value of an int64 column that at least so many rows reach or exceed, from the files' bounds; None where these
    do not say, or the table has fewer rows.
    """
    field_id = table.schema().find_field(column).field_id
    files = [task.file for task in table.scan().plan_files()]
    bounds = [((file.lower_bounds or {}).get(field_id), file.record_count) for file in files]
    known = sorted(((from_bytes(LongType(), low), count) for low, count in bounds if low is not None), reverse=True)
    for low, count in known:
        rows -= count
        if rows <= 0:
            return int(low)
    return None


def reconciled_to(sessions: Table, late: Table) -> int:
    """The sequence number of late_events up to which all events are in the sessions; 0 for none."""
    name, _, number = sessions.properties.get(RECONCILED_TO, "").partition("/")
    return int(number) if name == str(late.metadata.table_uuid) and number.isdigit() else 0


def position_property(late: Table, sequence: int) -> dict[str, str]:
    """The table property with this number. A recreated late_events table starts from the beginning."""
    return {RECONCILED_TO: f"{late.metadata.table_uuid}/{sequence}"}


def late_after(late: Table, sequence: int, *, user_name: str) -> pa.Table:
    """Late events of snapshots after the sequence number: user, event_time_ms, event_type, bucket, and `sequence`.

    A file that was rewritten later counts as new, which only costs reading it again.
    """
    columns = {USER: user_name, EVENT_TIME: EVENT_TIME, EVENT_TYPE: EVENT_TYPE, USER_HASH_BUCKET: USER_HASH_BUCKET}
    came = _sequences(late, sequence)
    rows = _of_files(late, frozenset(came), columns, with_file=True)
    if rows is None:
        everything = _read(late, columns, None)
        snapshot = late.current_snapshot()
        last = 0 if snapshot is None else snapshot.sequence_number or 0
        return everything.append_column(SEQUENCE, pa.array([last] * everything.num_rows, pa.int64()))
    names = rows["file"].combine_chunks().dictionary_encode()
    numbers = pa.array([came[name] for name in names.dictionary.to_pylist()], pa.int64())
    return rows.drop_columns(["file"]).append_column(SEQUENCE, numbers.take(names.indices))


def drained_before(sessions: Table, end_ms: int, *, user_name: str) -> pa.Table:
    """Sessions that ended by `end_of_input` and before this time: user, event_time_ms of their end, and the bucket."""
    columns = {USER: user_name, EVENT_TIME: SESSION_END, USER_HASH_BUCKET: USER_HASH_BUCKET, "reason": END_REASON}
    if not {SESSION_END, END_REASON} <= set(sessions.schema().column_names):
        none = pa.schema([(USER, pa.string()), (EVENT_TIME, pa.int64()), (USER_HASH_BUCKET, pa.int32())])
        return none.empty_table()
    # the column's bounds exclude nearly all files, because hardly any other reason sorts before this one
    tasks = sessions.scan(row_filter=f"{END_REASON} = 'end_of_input'").plan_files()
    keep = (ds.field(END_REASON) == "end_of_input") & (ds.field(SESSION_END) < end_ms)
    rows = _of_files(sessions, frozenset(_local(sessions, t.file.file_path) for t in tasks), columns, keep=keep)
    rows = _read(sessions, columns, keep) if rows is None else rows
    return rows.drop_columns(["reason"])


def rows_of(
    table: Table,
    wanted: Wanted,
    *,
    user_name: str,
    date: str,
    only: frozenset[str] | None = None,
    rows_max: int | None = None,
) -> pa.Table:
    """The rows of these users on these dates, with the table's column names; only: some of the columns.

    date: the name of the date column (event_date or session_date). Errors: TooManyRowsError beyond rows_max; InputError
    if files are missing or damaged; UnavailableError or OutputError if the storage fails.
    """
    seen = readable(table)
    data = _dataset(seen.data)
    in_file = dict(zip(seen.names, data.schema.names, strict=True))
    user = in_file[user_name]
    keep = ds.field(user).isin(wanted.users.cast(data.schema.field(user).type))
    keep &= ds.field(USER_HASH_BUCKET).isin(sorted(wanted.buckets))
    if wanted.dates is not None:
        keep = ds.field(date).isin(pa.array(sorted(wanted.dates), pa.date32())) & keep
    columns = {here: ds.field(there) for here, there in in_file.items() if only is None or here in only}
    scanner = data.scanner(columns=columns, filter=keep)
    return pa.Table.from_batches(list(_counted(table, scanner, rows_max)), scanner.projected_schema)


def _counted(table: Table, scanner: ds.Scanner, rows_max: int | None) -> Iterator[pa.RecordBatch]:
    count = 0
    try:
        for batch in scanner.to_batches():
            count += batch.num_rows
            if rows_max is not None and count > rows_max:
                raise TooManyRowsError
            yield batch
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(table, error) from error


def _sequences(table: Table, after: int) -> dict[str, int]:
    """The data files after a sequence number, by path, with their numbers."""
    snapshot = table.current_snapshot()
    found: dict[str, int] = {}
    for manifest in snapshot.manifests(table.io) if snapshot is not None else ():
        if (manifest.sequence_number or 0) <= after:
            continue
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
            number = entry.sequence_number or 0
            if number > after and entry.data_file.content == DataFileContent.DATA:
                found[_local(table, entry.data_file.file_path)] = number
    return found


def _of_files(
    table: Table, paths: Set[str], columns: dict[str, str], *, keep: Any = None, with_file: bool = False
) -> pa.Table | None:
    """Columns {name here: name in the table} of some files; None if the table can't be read file by file."""
    seen = readable(table)
    if not isinstance(seen.data, ds.FileSystemDataset):
        return None
    fragments = [fragment for fragment in seen.data.get_fragments() if fragment.path in paths]
    data = ds.FileSystemDataset(fragments, seen.data.schema, seen.data.format, seen.data.filesystem)
    names = dict(zip(seen.names, data.schema.names, strict=True))
    wanted = {here: names[there] for here, there in columns.items()}
    if with_file:
        wanted["file"] = "__filename"
    try:
        return data.to_table(columns=list(wanted.values()), filter=keep).rename_columns(list(wanted))
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(table, error) from error


def _read(table: Table, columns: dict[str, str], keep: Any) -> pa.Table:
    seen = readable(table)
    data = _dataset(seen.data)
    names = dict(zip(seen.names, data.schema.names, strict=True))
    return data.to_table(columns={here: ds.field(names[there]) for here, there in columns.items()}, filter=keep)


def _read_largest(table: Table, column: str) -> int | None:
    largest: int | None = pc.max(_read(table, {column: column}, None)[column]).as_py()
    return largest


def _dataset(data: ds.Dataset | pa.Table) -> ds.Dataset:
    return ds.dataset(data) if isinstance(data, pa.Table) else data


def _local(table: Table, location: str) -> str:
    """A data file's path in its file system."""
    return split_location(location, table.io.properties)[2]


def _unreadable(table: Table, error: Exception) -> SessionizeError:
    what, where = "a table's files cannot be read", ".".join(table.name())
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        return storage_failure(what, where, error)
    return InputError(
        what,
        detail=f"{where}: {error}",
        hint="they may have been moved, or removed by maintenance in the meantime; try again",
    )
