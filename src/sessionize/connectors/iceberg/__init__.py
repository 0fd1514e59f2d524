"""Iceberg tables on the local disk: a catalog in SQLite, a sink that commits once, a check of the layout."""

from sessionize.connectors.iceberg.catalog import (
    CATALOG_NAME,
    DATABASE,
    SqlCatalog,
    load_table,
    open_catalog,
    table_names,
)
from sessionize.connectors.iceberg.pruning import (
    BucketSpread,
    PruningRow,
    bucket_spread,
    planned,
    printed_rows,
    pruning_report,
)
from sessionize.connectors.iceberg.reading import readable
from sessionize.connectors.iceberg.sink import IcebergSink
from sessionize.connectors.iceberg.tables import (
    EVENTS,
    LATE_EVENTS,
    REJECTED_EVENTS,
    USER_SESSIONS,
    TableLayout,
    events,
    open_table,
    rejected_events,
    user_sessions,
)

__all__ = [
    "CATALOG_NAME",
    "DATABASE",
    "EVENTS",
    "LATE_EVENTS",
    "REJECTED_EVENTS",
    "USER_SESSIONS",
    "BucketSpread",
    "IcebergSink",
    "PruningRow",
    "SqlCatalog",
    "TableLayout",
    "bucket_spread",
    "events",
    "load_table",
    "open_catalog",
    "open_table",
    "planned",
    "printed_rows",
    "pruning_report",
    "readable",
    "rejected_events",
    "table_names",
    "user_sessions",
]
