"""The folder of a new table, and whether it contains another table's files.

Two catalogs may share a warehouse without knowing each other's tables: a file of one looks like an orphan to the
other. So each table gets its own folder, and orphans are not removed from a folder with another table's metadata.
"""

import gzip
import json
import uuid
from collections.abc import Iterable
from pathlib import Path

from pyarrow import fs
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from sessionize.connectors.iceberg.storage import split_location

METADATA = ".metadata.json"
# On a catalog that does not share its warehouse, and on its tables: the id in the home's catalog file.
CATALOG_ID = "sessionize.catalog"
# On a table: the uuids of the tables without rows that it replaced, separated by spaces.
EARLIER = "sessionize.earlier"


def new_location(catalog: Catalog, database: str, name: str) -> str | None:
    """The location of a new table's files; None if the catalog's server chooses it.

    `<warehouse>/<database>/<table>` if the warehouse belongs to this catalog alone and the folder is empty, otherwise
    with a unique suffix. Errors: those of the catalog, OSError.
    """
    if not isinstance(catalog, SqlCatalog):
        return None
    given = catalog.load_namespace_properties((database,)).get("location")
    warehouse = catalog.properties.get("warehouse")
    if given is not None:
        folder = given
    elif warehouse is not None:
        folder = f"{warehouse.rstrip('/')}/{database}"
    else:
        return None  # pyiceberg reports what is missing
    plain = f"{folder.rstrip('/')}/{name}"
    if given is None and CATALOG_ID in catalog.properties:
        scheme, _, path = split_location(plain, catalog.properties)
        if scheme == "file" and not any((Path(path) / "metadata").glob(f"*{METADATA}")):
            return plain
    return f"{plain}-{uuid.uuid4().hex[:12]}"


def catalog_properties(catalog: Catalog) -> dict[str, str]:
    """The properties of a new table about its catalog."""
    return {CATALOG_ID: catalog.properties[CATALOG_ID]} if CATALOG_ID in catalog.properties else {}


def predecessor_properties(table: Table) -> dict[str, str]:
    """The properties of the table that replaces this one, perhaps in the same folder."""
    earlier = table.properties.get(EARLIER, "").split()
    return {EARLIER: " ".join([*earlier, str(table.metadata.table_uuid)])}


def metadata_of_another(table: Table, system: fs.FileSystem, paths: Iterable[str]) -> str | None:
    """The first of these metadata files that belongs to another table, None if there is none.

    A table that the same catalog creates at the same time is not another table, and a file that is not metadata belongs
    to none. Errors: OSError.
    """
    ours = {str(table.metadata.table_uuid), *table.properties.get(EARLIER, "").split()}
    catalog = table.properties.get(CATALOG_ID)
    for path in paths:
        whose, theirs = _read(system, path)
        if whose is not None and whose not in ours and (catalog is None or theirs != catalog):
            return path
    return None


def _read(system: fs.FileSystem, path: str) -> tuple[str | None, str | None]:
    """The table's uuid and its catalog's id in a metadata file."""
    try:
        with system.open_input_stream(path, compression=None) as stream:
            data = stream.read()
    except FileNotFoundError:
        return None, None
    try:
        found = json.loads(gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data)
        return str(found["table-uuid"]).lower(), (found.get("properties") or {}).get(CATALOG_ID)
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, gzip.BadGzipFile):
        return None, None
