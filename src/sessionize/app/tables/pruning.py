"""The check of the table layout: what a filter has to read, and how the users are spread over the buckets."""

from pathlib import Path
from typing import Any

from sessionize.connectors.iceberg import (
    CatalogSettings,
    PruningRow,
    bucket_spread,
    load_table,
    open_catalog,
    pruning_report,
)


def check_pruning(
    home: Path, *, database: str, table: str, catalog: CatalogSettings | None = None
) -> tuple[list[PruningRow], Any]:
    """Files and rows planned for a filter on date, bucket and both; users per bucket. Errors: InputError."""
    found = load_table(open_catalog(home, settings=catalog, create=False), database, table)
    user_name = found.schema().fields[0].name
    return pruning_report(found), bucket_spread(found, user_name=user_name)
