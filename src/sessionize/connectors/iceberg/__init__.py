"""Iceberg tables: catalogs, sinks that commit once, upkeep, a check of the layout."""

from sessionize.connectors.iceberg.belonging import Owner, pipeline_of, spec_of, user_column_of
from sessionize.connectors.iceberg.catalog import (
    CATALOG_NAME,
    DATABASE,
    Catalog,
    SqlCatalog,
    database_names,
    load_table,
    open_catalog,
    table_names,
)
from sessionize.connectors.iceberg.epochs import EpochRecord, EpochTables, IcebergEpochSink, epoch_records
from sessionize.connectors.iceberg.loads import (
    LOADS,
    KnownFile,
    LoadMark,
    known_files,
    load_rows,
    loads_in,
    loads_layout,
    loads_with_state,
    note_loads,
)
from sessionize.connectors.iceberg.maintenance import TableUpkeep, UpkeepSettings, maintain_table
from sessionize.connectors.iceberg.pruning import (
    BucketSpread,
    PruningRow,
    bucket_spread,
    planned,
    printed_rows,
    pruning_report,
)
from sessionize.connectors.iceberg.reading import readable
from sessionize.connectors.iceberg.settings import CatalogSettings
from sessionize.connectors.iceberg.sink import IcebergSink
from sessionize.connectors.iceberg.tables import (
    EVENTS,
    LATE_EVENTS,
    REJECTED_EVENTS,
    USER_SESSIONS,
    TableLayout,
    check_tables,
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
    "LOADS",
    "REJECTED_EVENTS",
    "USER_SESSIONS",
    "BucketSpread",
    "Catalog",
    "CatalogSettings",
    "EpochRecord",
    "EpochTables",
    "IcebergEpochSink",
    "IcebergSink",
    "KnownFile",
    "LoadMark",
    "Owner",
    "PruningRow",
    "SqlCatalog",
    "TableLayout",
    "TableUpkeep",
    "UpkeepSettings",
    "bucket_spread",
    "check_tables",
    "database_names",
    "epoch_records",
    "events",
    "known_files",
    "load_rows",
    "load_table",
    "loads_in",
    "loads_layout",
    "loads_with_state",
    "maintain_table",
    "note_loads",
    "open_catalog",
    "open_table",
    "pipeline_of",
    "planned",
    "printed_rows",
    "pruning_report",
    "readable",
    "rejected_events",
    "spec_of",
    "table_names",
    "user_column_of",
    "user_sessions",
]
