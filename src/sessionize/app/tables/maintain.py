"""Maintenance of the project's tables: which there are, and each in turn."""

from collections.abc import Callable, Sequence
from pathlib import Path

from sessionize.connectors.iceberg import CatalogSettings, files_of_open_load, load_table, open_catalog, table_names
from sessionize.connectors.iceberg.maintenance import (
    MaintenanceProgress,
    MaintenanceSettings,
    TableMaintenance,
    maintain_table,
)

__all__ = ["MaintenanceProgress", "MaintenanceSettings", "TableMaintenance", "maintain"]


def maintain(
    home: Path,
    settings: MaintenanceSettings,
    *,
    database: str,
    tables: Sequence[str] = (),
    catalog: CatalogSettings | None = None,
    progress: MaintenanceProgress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> list[TableMaintenance]:
    """Pack, expire and clean up these tables, or all of the database.

    stop: asked from time to time whether to leave the rest for the next time. Errors: those of maintain_table.
    """
    opened = open_catalog(home, settings=catalog, create=False)
    names = list(tables) or table_names(opened, database)
    for name in tables:
        load_table(opened, database, name)  # a name that is wrong stops before anything is done
    return [
        maintain_table(
            opened,
            database,
            name,
            settings,
            progress=progress,
            stop=stop,
            apart=files_of_open_load(opened, database, name),
        )
        for name in names
    ]
