"""The project's tables: their columns, how they are partitioned, and how they come into being.

How they are divided into files: layouts.py; why: docs/adr/0008 and 0012. Columns that a table needs and the rows lack
(a date, a bucket) are derived here.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.sorting import NullOrder, SortField, SortOrder
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import NestedField
from sqlalchemy.exc import IntegrityError

from sessionize.connectors.iceberg.catalog import Catalog, check_name
from sessionize.connectors.iceberg.commits import commit_with_retry, single_attempt
from sessionize.connectors.iceberg.errors import STORAGE_ERRORS, storage_failure
from sessionize.connectors.iceberg.layouts import LAYOUT, LayoutName, Partitions, differs, divide, evolve, layout_of
from sessionize.connectors.iceberg.ownership import USER_COLUMN_PROPERTY, Owner, record_of, user_column_of
from sessionize.connectors.iceberg.table_folders import catalog_properties, new_location, predecessor_properties
from sessionize.connectors.iceberg.types import FieldIds, iceberg_type
from sessionize.errors import ConfigError, OutputError
from sessionize.session import output_tables as output
from sessionize.session.columns import BUCKET_COUNT, USER
from sessionize.session.output_tables import Derived, TableSpec

USER_SESSIONS = output.SESSIONS.name
EVENTS = output.EVENTS.name
LATE_EVENTS = output.LATE_EVENTS.name
REJECTED_EVENTS = output.REJECTED_EVENTS.name

# How many earlier metadata files are kept: each holds all snapshots, and nobody reads them.
BOUNDED_METADATA = {"write.metadata.previous-versions-max": "20"}
_PROPERTIES = {
    "format-version": "2",
    "write.format.default": "parquet",
    "write.parquet.compression-codec": "zstd",
    "write.target-file-size-bytes": "134217728",
    "write.distribution-mode": "hash",
    "read.split.target-size": "134217728",
    # Every commit adds a manifest and a metadata file; without these two, a long stream drowns in them.
    "commit.manifest-merge.enabled": "true",
    "write.metadata.delete-after-commit.enabled": "true",
    **BOUNDED_METADATA,
    "commit.retry.min-wait-ms": "25",
}
# Minima and maxima only of columns by which a reader can skip files. They cost as much as a third of a small file.
_MEASURED = "write.metadata.metrics.column."
# Row groups of one file cover narrow ranges of buckets, so that a reader can skip most of them.
_ROW_GROUPS = {"write.parquet.row-group-limit": "65536"}
# Reconciling writes whole files of revised rows anew, so none of them is large; a bucket of a date is small anyway.
_TARGET = "write.target-file-size-bytes"
_REVISED_TARGET = {_TARGET: str(16 << 20)}


@dataclass(frozen=True, slots=True)
class TableLayout:
    """What an Iceberg table is made of; of a table of the output, table_layout derives it.

    columns: Arrow schema; a field that is not nullable is required in every row. user_name: what the table
    calls the canonical column `user`, None for a table without users. partitions: how it is divided into files, None:
    not at all. sort_by: columns by which the rows of a file are sorted.
    """

    columns: pa.Schema
    user_name: str | None = None
    partitions: Partitions | None = None
    sort_by: tuple[str, ...] = ()
    derived: tuple[Derived, ...] = ()
    properties: dict[str, str] = field(default_factory=lambda: dict(_PROPERTIES))

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for name in self.columns.names:
            if name.lower() in seen:
                raise ConfigError(
                    "two columns of a table would have the same name",
                    detail=f"column {name!r}" + (" holds the user" if name == self.user_name else ""),
                    hint="rename the input's user column",
                )
            seen.add(name.lower())


def table_layout(
    spec: TableSpec, user_name: str = USER, *, layout: LayoutName | None = None, buckets: int = BUCKET_COUNT
) -> TableLayout:
    """An output table as an Iceberg table: all its columns, and statistics of those by which readers skip files.

    user_name: what the rows call the user column. layout, buckets: as in layouts.Partitions; a table that is not
    divided by buckets has date for date_bucket.
    """
    spec = spec.for_user(user_name)
    date, bucket = [*spec.partition_by, None, None][:2]
    return TableLayout(
        columns=spec.columns,
        user_name=spec.user_column,
        partitions=None if date is None else Partitions(date, bucket, layout, buckets),
        sort_by=spec.sort_by,
        derived=spec.derived,
        properties={
            **_PROPERTIES,
            **(_REVISED_TARGET if spec.revised and layout != "date_bucket" else {}),
            **({**_ROW_GROUPS, **_measured(spec)} if spec.bounds else {}),
        },
    )


def user_sessions(
    user_name: str = USER, *, layout: LayoutName | None = None, buckets: int = BUCKET_COUNT
) -> TableLayout:
    """The layout of SESSIONS."""
    return table_layout(output.SESSIONS, user_name, layout=layout, buckets=buckets)


def events(user_name: str = USER, *, layout: LayoutName | None = None) -> TableLayout:
    """The layout of EVENTS, and of LATE_EVENTS, which is the same."""
    return table_layout(output.EVENTS, user_name, layout=layout)


def rejected_events() -> TableLayout:
    """The layout of REJECTED_EVENTS."""
    return table_layout(output.REJECTED_EVENTS)


def open_table(
    catalog: Catalog,
    database: str,
    name: str,
    layout: TableLayout,
    *,
    owner: Owner | None = None,
    on_change: Callable[[str], None] = lambda change: None,
) -> Table:
    """The table `<database>.<name>`, made after `layout` when it is not there, or when it is of no use to anybody yet
    and does not fit: a run that failed leaves such tables. It is divided anew from now on when `layout` names other
    partitions than it has, which on_change is given in words.

    owner: who is going to write it; None asks nobody. Errors: ConfigError for an unusable name; StateError when the
    table is another owner's; OutputError when the table calls its user column otherwise, or when it can't be made.
    """
    check_name("database", database)
    check_name("table", name)
    try:
        table = _existing(catalog, database, name)
        kept: dict[str, str] = {}
        if table is not None and owner is not None and owner.is_unused(table) and not _fits(table, layout, owner):
            kept = {**record_of(table), **predecessor_properties(table)}
            with contextlib.suppress(NoSuchTableError):
                catalog.drop_table((database, name))
            table = None
        if table is None:
            _create(catalog, database, name, layout, {**kept, **_owned(name, layout, owner)})
            table = catalog.load_table((database, name))
    except STORAGE_ERRORS as error:
        raise storage_failure("a table cannot be made", f"{database}.{name}", error) from error
    _check(table, layout, owner)
    return _divided_anew(table, layout, on_change)


def check_tables(catalog: Catalog, database: str, wanted: Iterable[tuple[str, TableLayout]], *, owner: Owner) -> None:
    """Whether all of these tables (name, layout) may be opened by this owner; nothing is made or changed.

    Errors: those of open_table.
    """
    for name, layout in wanted:
        check_name("database", database)
        check_name("table", name)
        try:
            table = _existing(catalog, database, name)
        except STORAGE_ERRORS as error:
            raise storage_failure("a table cannot be read", f"{database}.{name}", error) from error
        if table is not None and not owner.is_unused(table):
            _check(table, layout, owner)


def _existing(catalog: Catalog, database: str, name: str) -> Table | None:
    try:
        return catalog.load_table((database, name))
    except (NoSuchTableError, NoSuchNamespaceError):
        return None


def _fits(table: Table, layout: TableLayout, owner: Owner) -> bool:
    return user_column_of(table) == layout.user_name and not owner.differences(table)


def _owned(name: str, layout: TableLayout, owner: Owner | None) -> dict[str, str]:
    return {} if owner is None else owner.properties(name, layout.user_name)


def _check(table: Table, layout: TableLayout, owner: Owner | None) -> None:
    if owner is not None:
        owner.check(table)
    user_name = table.properties.get(USER_COLUMN_PROPERTY, layout.user_name)
    if user_name != layout.user_name:
        raise OutputError(
            "a table has another user column than these rows",
            detail=f"{'.'.join(table.name())} was made with {user_name!r}, the rows have {layout.user_name!r}",
            hint="map the input's user field to the same name, or write to another table or another --home",
        )


def _divided_anew(table: Table, layout: TableLayout, on_change: Callable[[str], None]) -> Table:
    """The table in the layout that is asked for. Its files stay as they are; `maintain` packs them into new ones."""
    partitions = layout.partitions
    if partitions is None or not differs(table, partitions):
        return table
    new = {name: value for name, value in layout.properties.items() if name not in table.properties}
    properties = {**new, _TARGET: layout.properties[_TARGET], LAYOUT: partitions.layout}

    def attempt() -> Table:
        now = table.refresh()
        if not differs(now, partitions):
            return now
        transaction = single_attempt(now)
        evolve(transaction, partitions, layout.sort_by, properties)
        return transaction.commit_transaction()

    before = layout_of(table)
    changed = commit_with_retry(
        attempt,
        gave_up=lambda error, _: storage_failure("a table's layout cannot be changed", ".".join(table.name()), error),
    )
    on_change(
        f"the layout of {'.'.join(table.name())} is {partitions.layout} from now on, it was {before}; "
        "`sessionize maintain` brings the files that are there into it"
    )
    return changed


def _create(catalog: Catalog, database: str, name: str, layout: TableLayout, further: Mapping[str, str]) -> None:
    """Another process may do the same at the same moment; whoever is second finds it done."""
    ids = FieldIds()
    fields = [
        NestedField(ids.next(), column.name, iceberg_type(column.type, column.name, ids), required=not column.nullable)
        for column in layout.columns
    ]
    schema = Schema(*fields)
    order = [
        SortField(schema.find_field(column).field_id, IdentityTransform(), null_order=NullOrder.NULLS_LAST)
        for column in layout.sort_by
    ]
    properties = {**layout.properties, **catalog_properties(catalog), **further}
    if layout.partitions is not None:
        properties[LAYOUT] = layout.partitions.layout
    if layout.user_name is not None:
        properties[USER_COLUMN_PROPERTY] = layout.user_name
    with contextlib.suppress(NamespaceAlreadyExistsError, IntegrityError):
        catalog.create_namespace((database,))
    with contextlib.suppress(TableAlreadyExistsError, CommitFailedException):
        transaction = catalog.create_table_transaction(
            (database, name),
            schema,
            location=new_location(catalog, database, name),
            sort_order=SortOrder(*order) if order else SortOrder(order_id=0),
            properties=properties,
        )
        if layout.partitions is not None:
            divide(transaction, layout.partitions)
        transaction.commit_transaction()


def _measured(spec: TableSpec) -> dict[str, str]:
    """Bounds of columns by which readers skip files, of texts the first characters."""
    modes = {
        name: "truncate(16)" if pa.types.is_string(spec.columns.field(name).type) else "full" for name in spec.bounds
    }
    return {"write.metadata.metrics.default": "none", **{_MEASURED + name: mode for name, mode in modes.items()}}
