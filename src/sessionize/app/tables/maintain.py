"""Maintenance of the project's tables, each in turn; and the check of their layout that `pruning` prints."""

from collections.abc import Callable, Sequence

from sessionize.app.tables.warehouse import Warehouse
from sessionize.connectors.iceberg import (
    BucketSpread,
    PruningRow,
    bucket_spread,
    files_of_open_load,
    load_table,
    pruning_report,
    table_names,
)
from sessionize.connectors.iceberg.maintenance import (
    MaintenanceProgress,
    MaintenanceSettings,
    TableMaintenance,
    maintain_table,
)
from sessionize.session.names import USER_SESSIONS

__all__ = ["MaintenanceProgress", "MaintenanceSettings", "TableMaintenance", "check_pruning", "maintain"]


def maintain(
    warehouse: Warehouse,
    settings: MaintenanceSettings,
    *,
    tables: Sequence[str] = (),
    progress: MaintenanceProgress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> list[TableMaintenance]:
    """Pack, expire and clean up these tables, or all of the database.

    stop: asked from time to time whether to leave the rest for the next time. Errors: those of maintain_table.
    """
    catalog, database = warehouse.open(), warehouse.database
    names = list(tables) or table_names(catalog, database)
    for name in tables:
        load_table(catalog, database, name)  # a name that is wrong stops before anything is done
    return [
        maintain_table(
            catalog,
            database,
            name,
            settings,
            progress=progress,
            stop=stop,
            exclude=files_of_open_load(catalog, database, name),
        )
        for name in names
    ]


def check_pruning(warehouse: Warehouse, table: str = USER_SESSIONS) -> tuple[list[PruningRow], BucketSpread]:
    """Files and rows planned for a filter on date, bucket and both; users per bucket. Errors: those of table."""
    found = warehouse.table(table)
    user_name = found.schema().fields[0].name
    return pruning_report(found), bucket_spread(found, user_name=user_name)
