"""Where a new table puts its files, and whether another table's files lie among them.

Two catalogs may share a warehouse, and neither knows the other's tables: a file of one looks like an orphan to the
other. So a table gets a folder that no other table has, and orphans stay where a folder holds another table's metadata.
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

from sessionize.connectors.iceberg.storage import place_of

METADATA = ".metadata.json"
# On a catalog whose warehouse is its own, and on its tables: the id in the home's catalog file.
CATALOG_ID = "sessionize.catalog"
# On a table: uuids of tables without rows in whose place it came, with spaces between.
EARLIER = "sessionize.earlier"


def new_location(catalog: Catalog, database: str, name: str) -> str | None:
    """Where a table that is about to be made puts its files; None where the catalog's server chooses.

    `<warehouse>/<database>/<table>` where the warehouse belongs to this catalog alone and nothing lies there, otherwise
    with a suffix that nobody else has. Errors: those of the catalog, OSError.
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
        return None  # pyiceberg says what is missing
    plain = f"{folder.rstrip('/')}/{name}"
    if given is None and CATALOG_ID in catalog.properties:
        scheme, _, path = place_of(plain, catalog.properties)
        if scheme == "file" and not any((Path(path) / "metadata").glob(f"*{METADATA}")):
            return plain
    return f"{plain}-{uuid.uuid4().hex[:12]}"


def noted(catalog: Catalog) -> dict[str, str]:
    """What a new table says about its catalog."""
    return {CATALOG_ID: catalog.properties[CATALOG_ID]} if CATALOG_ID in catalog.properties else {}


def noted_earlier(table: Table) -> dict[str, str]:
    """What the table says that is made in the place of this one, perhaps in the same folder."""
    earlier = table.properties.get(EARLIER, "").split()
    return {EARLIER: " ".join([*earlier, str(table.metadata.table_uuid)])}


def stranger_among(table: Table, system: fs.FileSystem, paths: Iterable[str]) -> str | None:
    """The first of these metadata files that is another table's, None when there is none.

    A table that the same catalog was about to make at the same moment is no other table, and a file that cannot be read
    as metadata is nobody's. Errors: OSError.
    """
    ours = {str(table.metadata.table_uuid), *table.properties.get(EARLIER, "").split()}
    catalog = table.properties.get(CATALOG_ID)
    for path in paths:
        whose, theirs = _read(system, path)
        if whose is not None and whose not in ours and (catalog is None or theirs != catalog):
            return path
    return None


def _read(system: fs.FileSystem, path: str) -> tuple[str | None, str | None]:
    """The table's uuid and the id of its catalog, as a metadata file has them."""
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
