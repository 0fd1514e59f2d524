"""Where a pipeline's tables are: the home, the catalog that [output.catalog] names, and the database in it.

Everything that opens tables asks here, so that a run and the commands that look at its tables find the same ones.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sessionize.app.config.pipeline import PipelineConfig, load_pipeline
from sessionize.app.extras import requires_extra
from sessionize.app.tables.homes import check_home, only_home
from sessionize.errors import ConfigError

if TYPE_CHECKING:
    from sessionize.connectors.iceberg import Catalog, CatalogSettings

DATABASE = "sessions"


@dataclass(frozen=True, slots=True)
class TablesPlace:
    """catalog: None for the file in the home."""

    home: Path
    database: str
    catalog: "CatalogSettings | None" = None


def catalog_settings_of(config: PipelineConfig) -> "CatalogSettings":
    """What [output.catalog] says. Errors: ConfigError."""
    with requires_extra("iceberg", "tables"):
        from sessionize.connectors.iceberg import CatalogSettings
    chosen = config.output.catalog
    return CatalogSettings(
        kind=chosen.kind, uri=chosen.uri, warehouse=chosen.warehouse, options=_with_secrets_named(chosen.settings)
    )


def open_catalog_of(config: PipelineConfig, *, home: Path | None = None, create: bool = True) -> "Catalog":
    """The catalog of the pipeline's tables. home: in place of the pipeline's. create: make a file that is missing.

    Errors: ConfigError, OutputError, UnavailableError, MissingExtraError.
    """
    settings = catalog_settings_of(config)
    from sessionize.connectors.iceberg import open_catalog

    return open_catalog(home or config.home, settings=settings, create=create)


def has_local_catalog(config: PipelineConfig) -> bool:
    """Whether the catalog is the file in the home, so that a home without one has no tables."""
    return config.output.catalog.kind == "sqlite"


def tables_place(pipeline: str | None, home: Path | None, database: str | None) -> TablesPlace:
    """Where to look: what is given, else what the pipeline (a preset or a file) says, else the only home that there is
    and the database in it.

    Errors: ConfigError, which lists what there is where more than one is meant.
    """
    if pipeline is None:
        found = home or only_home()
        check_home(found)
        return TablesPlace(found, database or _only_database(found))
    config = load_pipeline(pipeline)
    found = home or config.home
    if has_local_catalog(config):
        check_home(found)
    return TablesPlace(found, database or config.output.database, catalog_settings_of(config))


def _only_database(home: Path) -> str:
    """The usual one where it is there, else the only one."""
    with requires_extra("iceberg", "tables"):
        from sessionize.connectors.iceberg import database_names, open_catalog
    found = database_names(open_catalog(home, create=False))
    if DATABASE in found or not found:
        return DATABASE
    if len(found) > 1:
        raise ConfigError(
            "there is more than one database with tables",
            detail=f"in {home}: {', '.join(found)}",
            hint=f"say which: {' or '.join(f'--iceberg-database {name}' for name in found)}",
        )
    return found[0]


def _with_secrets_named(settings: Iterable[str]) -> dict[str, str]:
    """The catalog's way to say where a secret is: `name=env:VARIABLE` is `name-env` = VARIABLE there."""
    found = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        kind, colon, place = value.partition(":")
        if colon and kind in ("env", "file"):
            found[f"{name.strip()}-{kind}"] = place
        else:
            found[name.strip()] = value
    return found
