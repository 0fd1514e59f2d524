"""Records which files were loaded into the tables of a database: the table `loads`, and each table's part of a load.

The rows of `loads` are committed before those of the load itself, and each table's commit adds the load's id to a table
property, in the same transaction as the rows. So a load is complete exactly if the sessions table, which is committed
last, has its id. An interrupted load leaves rows in other tables: the commits of the next load of the same files
remove them when they add theirs. An interrupted load looks like one that is running elsewhere. So the next load
replaces it first: it adds its id to a property of the sessions table, which every commit of a load checks.
docs/adr/0013.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyiceberg.manifest import DataFile, DataFileContent
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata

from sessionize.connectors.iceberg.catalog import Catalog, load_table, table_names
from sessionize.connectors.iceberg.commits import append_files, commit_with_retry, refreshed, single_attempt
from sessionize.connectors.iceberg.dataset import is_plain, readable
from sessionize.connectors.iceberg.errors import storage_failure
from sessionize.connectors.iceberg.ownership import LOADED, NOTE, REPLACED_LOADS
from sessionize.connectors.iceberg.tables import TableLayout
from sessionize.errors import StateError

LOADS = "loads"
# Table property: the last load, its snapshot and its number of files. The snapshot itself expires soon.
LAST = "sessionize.last-load"
# Table property: the last load that replaced all rows.
REPLACED_BY = "sessionize.replaced-by"
# In a snapshot's summary: its load.
LOAD = "sessionize.load"

_INSTANT = pa.timestamp("us", "UTC")
LOADS_SCHEMA = pa.schema(
    [
        pa.field("load_id", pa.string(), nullable=False),
        pa.field("loaded_at", _INSTANT, nullable=False),
        pa.field("pipeline", pa.string(), nullable=False),
        pa.field("table_name", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64()),
        pa.field("modified_at", _INSTANT),
        pa.field("fingerprint", pa.string()),
        pa.field("records", pa.int64()),
        pa.field("rows_written", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFile:
    """A file of an earlier load. is_in: whether its load is complete; otherwise it was interrupted or is running."""

    load_id: str
    loaded_at: dt.datetime
    path: str
    size_bytes: int | None
    fingerprint: str
    records: int | None
    rows_written: int | None
    is_in: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLoad:
    """An incomplete load that has rows in a table.

    files: the paths of its data files there, None if they can no longer be identified. sources: the paths of the files
    that it read. all_rejected: all its records were rejected, so no other table has rows of it; otherwise it was
    interrupted or is running.
    """

    id: str
    files: frozenset[str] | None
    sources: frozenset[str]
    all_rejected: bool


@dataclass(slots=True, kw_only=True)
class LoadMark:
    """The identity of a load in its commits.

    id: the load's. last: the name of the table that is committed last and completes the load. instead_of: earlier,
    interrupted loads of the same files. replaces: the load replaces all rows, so no earlier rows stay.
    """

    id: str
    last: str
    instead_of: frozenset[str] = frozenset()
    replaces: bool = False

    def concerns(self, table: Table) -> bool:
        """Whether to commit even without new rows."""
        return table.name()[-1] == self.last or not self.instead_of <= replaced_loads(table).keys()

    def check(self, table: Table) -> None:
        """Errors: StateError if another load of the same files has replaced this one."""
        if self.id in replaced_loads(table):
            raise StateError(
                "another load of the same files has replaced this one",
                detail=f"table {'.'.join(table.name())}, load {self.id}: the other one started in the meantime",
                hint="the other load removes this one's rows; when it is done, run the files again: files that it "
                "has loaded are refused",
            )

    def properties(self, table: Table, staged: TableMetadata, files: int) -> Mapping[str, str]:
        """The table properties about loads in this commit. staged: the metadata with it; files: its number of files."""
        before = () if self.replaces else (each for each in loads_in(table) if each not in self.instead_of)
        found = {LOADED: " ".join([*before, self.id]), LAST: f"{self.id} {staged.current_snapshot_id} {files}"}
        if self.replaces:
            found[REPLACED_BY] = self.id
        if self.instead_of:
            found[REPLACED_LOADS] = _joined(replaced_loads(table), self.instead_of)
        return found

    def old_files(self, table: Table) -> list[DataFile]:
        """The files of interrupted loads in the table.

        Errors: StateError if they can no longer be identified.
        """
        wanted = self.instead_of & loads_in(table).keys()
        return [file for load in sorted(wanted) for file in _files_of(table, load)]


def loads_layout() -> TableLayout:
    """One row for each file of a load."""
    return TableLayout(columns=LOADS_SCHEMA)


def loads_in(table: Table) -> dict[str, None]:
    """The ids of the loads in a table, in order."""
    return dict.fromkeys(table.properties.get(LOADED, "").split())


def replaced_loads(table: Table) -> dict[str, None]:
    """The ids of replaced loads that the table records."""
    return dict.fromkeys(table.properties.get(REPLACED_LOADS, "").split())


def known_files(catalog: Catalog, database: str, table: str) -> list[KnownFile]:
    """The recognisable files of all loads into a table, the newest load first."""
    names = table_names(catalog, database)
    if LOADS not in names:
        return []
    there = loads_in(load_table(catalog, database, table)) if table in names else {}
    rows = _rows(load_table(catalog, database, LOADS))
    mine = rows.filter((pc.field("table_name") == table) & pc.field("fingerprint").is_valid())
    return [
        KnownFile(
            load_id=row["load_id"],
            loaded_at=row["loaded_at"],
            path=row["path"],
            size_bytes=row["size_bytes"],
            fingerprint=row["fingerprint"],
            records=row["records"],
            rows_written=row["rows_written"],
            is_in=row["load_id"] in there,
        )
        for row in mine.sort_by([("loaded_at", "descending")]).to_pylist()
    ]


def partly_replaced(catalog: Catalog, database: str, others: Iterable[str], known: Iterable[KnownFile]) -> list[str]:
    """The other tables with rows of an interrupted load that replaces all tables.

    known: known_files of the sessions table, which then has neither this load nor a later one.
    """
    known = list(known)
    newest = max((each.loaded_at for each in known if each.is_in), default=None)
    not_in = {each.load_id for each in known if not each.is_in and (newest is None or each.loaded_at > newest)}
    there = set(others) & set(table_names(catalog, database)) if not_in else ()
    return sorted(name for name in there if load_table(catalog, database, name).properties.get(REPLACED_BY) in not_in)


def record_loads(table: Table, ids: Set[str]) -> None:
    """Record these loads in the sessions table, if their rows are added in another way.

    Errors: StateError if another load replaces one of them; those of a commit.
    """

    def wanted(now: Table) -> Mapping[str, str]:
        replaced = ids & replaced_loads(now).keys()
        if replaced:
            raise StateError(
                "the files are being loaded again",
                detail=f"table {'.'.join(now.name())}, load {', '.join(sorted(replaced))}",
                hint="wait until that run is done, then run this again",
            )
        there = loads_in(now)
        return {} if ids <= there.keys() else {LOADED: _joined(there, ids)}

    _note(table, wanted)


def replace_loads(table: Table, ids: Set[str], *, by: LoadMark) -> bool:
    """Record in the sessions table that these loads are replaced; False if one of them is complete by now.

    It is a snapshot without rows, so that it conflicts with the last commit of a load. Errors: StateError if this load
    itself was replaced; those of a commit.
    """
    came_in = False

    def wanted(now: Table) -> Mapping[str, str]:
        nonlocal came_in
        by.check(now)
        came_in = bool(ids & loads_in(now).keys())
        there = replaced_loads(now)
        return {} if came_in or ids <= there.keys() else {REPLACED_LOADS: _joined(there, ids)}

    _note(table, wanted)
    return not came_in


def _note(table: Table, wanted: Callable[[Table], Mapping[str, str]]) -> None:
    """Set properties in a snapshot without rows: commits of properties alone conflict with no other commit."""

    def attempt() -> None:
        now = refreshed(table)
        properties = wanted(now)
        if properties:
            transaction = single_attempt(now)
            append_files(transaction, (), {NOTE: "loads"})
            transaction.set_properties(dict(properties))
            transaction.commit_transaction()

    name = ".".join(table.name())
    commit_with_retry(attempt, gave_up=lambda error, _: storage_failure("a table cannot be changed", name, error))


def _joined(there: Iterable[str], more: Set[str]) -> str:
    return " ".join([*there, *sorted(more - set(there))])


def open_loads(catalog: Catalog, database: str, table: Table, *, last: str) -> list[OpenLoad]:
    """The incomplete loads of files with rows in a table of rejected records. last: the sessions table.

    Loads of pipes are left out, because no later load can replace them.
    """
    plain = is_plain(table)
    sources: dict[str, list[KnownFile]] = {}
    for known in known_files(catalog, database, last):
        if not known.is_in and known.load_id in loads_in(table):
            sources.setdefault(known.load_id, []).append(known)
    found = []
    for load, files in sources.items():
        try:
            left = _files_of(table, load) if plain else None
        except StateError:
            left = None
        records, written = files[0].records, files[0].rows_written
        # a record that is neither rejected nor in a session may be in the events table
        whole = left is None or records is None or sum(file.record_count for file in left) == records
        found.append(
            OpenLoad(
                id=load,
                files=None if left is None else frozenset(file.file_path for file in left),
                sources=frozenset(file.path for file in files),
                all_rejected=written == 0 and whole,
            )
        )
    return found


def files_of_open_load(catalog: Catalog, database: str, name: str) -> frozenset[str]:
    """The paths of a table's files from running or interrupted loads. While they can be identified, the next load of
    the same files can remove them.
    """
    names = table_names(catalog, database)
    table = load_table(catalog, database, name)
    last = table.properties.get(LAST, "").partition(" ")[0]
    if not last or LOADS not in names:
        return frozenset()
    rows = _rows(load_table(catalog, database, LOADS))
    into = rows.filter(pc.field("load_id") == last)["table_name"].to_pylist()
    if not into or into[0] == name or (into[0] in names and last in loads_in(load_table(catalog, database, into[0]))):
        return frozenset()
    try:
        return frozenset(file.file_path for file in _files_of(table, last))
    except StateError:
        return frozenset()


def loads_with_state(catalog: Catalog, database: str) -> pa.Table:
    """The table `loads` with another column, is_in: whether the load is complete in its table."""
    rows = _rows(load_table(catalog, database, LOADS))
    there = {
        name: loads_in(load_table(catalog, database, name))
        for name in set(rows["table_name"].to_pylist()) & set(table_names(catalog, database))
    }
    pairs = zip(rows["load_id"].to_pylist(), rows["table_name"].to_pylist(), strict=True)
    return rows.append_column("is_in", pa.array([load in there.get(name, {}) for load, name in pairs], pa.bool_()))


def load_rows(
    *,
    load_id: str,
    loaded_at: dt.datetime,
    pipeline: str,
    table: str,
    files: Iterable[Mapping[str, object]],
    records: int | None,
    rows_written: int,
) -> pa.Table:
    """The rows of a load. files: path, size_bytes, modified_at and fingerprint of each."""
    same = {"load_id": load_id, "loaded_at": loaded_at, "pipeline": pipeline, "table_name": table}
    counts = {"records": records, "rows_written": rows_written}
    return pa.Table.from_pylist([{**same, **file, **counts} for file in files], schema=LOADS_SCHEMA)


def _rows(loads: Table) -> pa.Table:
    data = readable(loads).data
    return data.to_table() if isinstance(data, ds.Dataset) else data


def _files_of(table: Table, load: str) -> list[DataFile]:
    """The data files of a load's commit, which must all still exist."""
    known, current = _load_snapshot(table, load), table.current_snapshot()
    files = [
        entry.data_file
        for manifest in ([] if current is None or known is None else current.manifests(table.io))
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
        if known is not None and entry.snapshot_id == known[0] and entry.data_file.content == DataFileContent.DATA
    ]
    if known is None or len(files) != known[1]:
        raise StateError(
            "an earlier load of these files was interrupted, and its rows can no longer be identified",
            detail=f"table {'.'.join(table.name())}, load {load}: its files were rewritten later",
            hint="replace all rows of the tables with the whole input, or load it into other tables",
        )
    return files


def _load_snapshot(table: Table, load: str) -> tuple[int, int] | None:
    """The snapshot of a load and its number of files; None if no longer recorded."""
    last, _, numbers = table.properties.get(LAST, "").partition(" ")
    if last == load:
        snapshot_id, _, files = numbers.partition(" ")
        return int(snapshot_id), int(files)
    for snapshot in table.metadata.snapshots:
        if snapshot.summary is not None and snapshot.summary[LOAD] == load:
            return snapshot.snapshot_id, int(snapshot.summary["added-data-files"] or 0)
    return None
