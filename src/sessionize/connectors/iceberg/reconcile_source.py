"""What reconciling has to know of the tables: how far they are final, what came late since, and a few users' rows.

Everything is narrowed by metadata first (which snapshot brought a file, partitions, column bounds), so that looking
again costs what is new.
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
from sessionize.connectors.iceberg.storage import place_of
from sessionize.errors import InputError, SessionizeError
from sessionize.session.columns import (
    END_REASON,
    EVENT_TIME,
    EVENT_TYPE,
    SESSION_END,
    USER,
    USER_HASH_BUCKET,
)

# Below every time that an event can have, with room for a gap.
NOTHING_FINAL = -(1 << 62)
RECONCILED_TO = "sessionize.reconciled-to"
SEQUENCE = "sequence"
# What late_after gives.
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
    """More rows than were allowed; nothing is wrong with them."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows to read: users, their buckets, and the UTC dates of events or session starts (None: all)."""

    users: pa.Array
    buckets: frozenset[int]
    dates: frozenset[dt.date] | None


def horizon_of(sessions: Table, others: Sequence[Table], *, closed: Set[str] = frozenset()) -> int | None:
    """The time below which the sessions of every writer are final; None where no epochs were ever written.

    Of several writers the one that is furthest behind counts. others: the tables that an epoch commits before the
    sessions: a writer they know and the sessions do not has no final session yet. closed: writers that hold no
    open session, which count no more. The watermarks stand in table properties, because snapshots expire.
    """
    marks = {writer: mark for writer, mark in _watermarks(sessions).items() if writer not in closed}
    behind = {writer for table in others for writer in _watermarks(table)} - marks.keys() - closed
    return NOTHING_FINAL if behind else min(marks.values(), default=None)


def _watermarks(table: Table) -> dict[str, int]:
    """By writer: up to where its rows in the table are final; NOTHING_FINAL for one without a watermark so far."""
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


def reconciled_to(sessions: Table, late: Table) -> int:
    """The sequence number of late_events up to which everything is in the sessions; 0 for nothing yet."""
    name, _, number = sessions.properties.get(RECONCILED_TO, "").partition("/")
    return int(number) if name == str(late.metadata.table_uuid) and number.isdigit() else 0


def bookmark(late: Table, sequence: int) -> dict[str, str]:
    """The table property that says so. A late_events table made anew starts from the beginning."""
    return {RECONCILED_TO: f"{late.metadata.table_uuid}/{sequence}"}


def late_after(late: Table, sequence: int, *, user_name: str) -> pa.Table:
    """Late events of snapshots after the sequence number: user, event_time_ms, event_type, bucket, and `sequence`.

    A file that was rewritten since counts as new, which costs a second look and nothing else.
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
    # the column's bounds rule out nearly all files, because hardly any other reason sorts before this one
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
    """The rows of these users on these dates, with the columns as the table calls them; only: some of them.

    date: the name of the date column (event_date or session_date). Errors: TooManyRowsError beyond rows_max; InputError
    when files are gone or damaged; UnavailableError or OutputError when the storage fails.
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
    """The data files that came after a sequence number, by path: which number they came with."""
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
    """Columns {name here: name in the table} of some files; None when the table can't be read file by file."""
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
    """A data file's path as its file system calls it."""
    return place_of(location, table.io.properties)[2]


def _unreadable(table: Table, error: Exception) -> SessionizeError:
    what, where = "a table's files cannot be read", ".".join(table.name())
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        return storage_failure(what, where, error)
    return InputError(
        what,
        detail=f"{where}: {error}",
        hint="were they moved, or removed by a clean-up in the meantime? try again",
    )
