"""The warehouse: a home, the catalog that its tables are registered in, and the database that is meant.

A run and every command that looks at its tables make one here, so that they find the same tables. A warehouse is a
value: nothing is opened before it is asked for something, and every answer is of that moment.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sessionize.app.extras import requires_extra
from sessionize.app.tables.home_folders import check_home, only_home
from sessionize.errors import ConfigError
from sessionize.session.names import DATABASE, USER_SESSIONS

if TYPE_CHECKING:
    import pyarrow as pa

    from sessionize.app.config.pipeline import PipelineConfig
    from sessionize.app.config.server_sections import CatalogSection
    from sessionize.connectors.iceberg import Catalog, CatalogSettings
    from sessionize.connectors.iceberg.reconcile_source import IcebergTable


@dataclass(frozen=True, slots=True)
class Warehouse:
    """Where tables are.

    database: whose tables are meant where a name stands alone. settings: of the catalog; None for the file in the home.
    """

    home: Path
    database: str = DATABASE
    settings: "CatalogSettings | None" = None

    @classmethod
    def of(cls, config: "PipelineConfig", *, home: Path | None = None) -> Self:
        """That of a pipeline. home: in place of the pipeline's. Errors: ConfigError, MissingExtraError."""
        return cls(home or config.home, config.output.database, _settings_of(config.output.catalog))

    @classmethod
    def of_input(cls, config: "PipelineConfig") -> Self:
        """Where a pipeline's input tables are: in the catalog of [input.catalog], or in that of the output.

        Errors: ConfigError, MissingExtraError.
        """
        return cls(config.home, config.output.database, _settings_of(config.input.catalog or config.output.catalog))

    @property
    def is_local(self) -> bool:
        """Whether the catalog is the file in the home, so that a home without one has no tables."""
        return self.settings is None or self.settings.kind == "sqlite"

    def open(self, *, create: bool = False) -> "Catalog":
        """The catalog. create: make a file that is missing.

        Errors: ConfigError, also for a home without tables; OutputError, UnavailableError, MissingExtraError.
        """
        with requires_extra("iceberg", "tables"):
            from sessionize.connectors.iceberg import open_catalog

        return open_catalog(self.home, settings=self.settings, create=create)

    def tables(self) -> list[str]:
        """The names of the database's tables, sorted. Errors: those of open."""
        catalog = self.open()
        from sessionize.connectors.iceberg import table_names

        return table_names(catalog, self.database)

    def table(self, name: str) -> "IcebergTable":
        """A table of the database as it is now. Errors: those of open; ConfigError when there is none of that name."""
        catalog = self.open()
        from sessionize.connectors.iceberg import load_table

        return load_table(catalog, self.database, name)

    def query(self, sql: str, parameters: Sequence[object] = ()) -> "pa.Table":
        """The result of one SELECT (also FROM, VALUES, WITH, SHOW, DESCRIBE, SUMMARIZE) over all tables of the catalog.

        Every table is known by `<database>.<name>`, as it is at this moment; by its name alone where `database` has it,
        or else where one database alone has a table of that name. parameters: the values of each ? in it.
        Errors: those of open; ConfigError for SQL that cannot be run, InputError for files that can't be read,
        MissingExtraError without DuckDB.
        """
        from sessionize.app.tables.query import run_query

        return run_query(self.open(), sql, database=self.database, parameters=parameters)

    def largest_sessions(self, table: str = USER_SESSIONS, *, limit: int = 8) -> "pa.Table":
        """What people want to see of a session first: session_id, start, minutes, events, end_reason.

        The sessions with the most events, at most `limit` of them; readable, and narrow enough for eighty columns.
        Errors: those of query.
        """
        name = table.replace('"', '""')
        return self.query(
            "SELECT session_id, strftime(make_timestamp(session_start_time_ms * 1000), '%m-%d %H:%M:%S') AS start, "
            "round(session_duration_seconds / 60, 1) AS minutes, event_count AS events, end_reason "
            f'FROM "{name}" ORDER BY event_count DESC, session_id LIMIT {limit}'
        )


def find_warehouse(pipeline: str | None, home: Path | None, database: str | None) -> Warehouse:
    """Where to look: what is given, else what the pipeline (a preset or a file) says, else the only home that there is
    and the database in it.

    Errors: ConfigError, which lists what there is where more than one is meant.
    """
    from sessionize.connectors.local_paths import check_local

    if home is not None:
        check_local(home, name="--home")
    if pipeline is None:
        found = home or only_home()
        check_home(found)
        return Warehouse(found, database or _only_database(found))
    from sessionize.app.config.pipeline import load_pipeline

    config = load_pipeline(pipeline)
    found = home or config.home
    if config.output.catalog.kind == "sqlite":
        check_home(found)
    return Warehouse(found, database or config.output.database, _settings_of(config.output.catalog))


def _only_database(home: Path) -> str:
    """The usual one where it is there, else the only one."""
    catalog = Warehouse(home).open()
    from sessionize.connectors.iceberg import database_names

    found = database_names(catalog)
    if DATABASE in found or not found:
        return DATABASE
    if len(found) > 1:
        raise ConfigError(
            "several databases have tables",
            detail=f"in {home}: {', '.join(found)}",
            hint=f"say which: {' or '.join(f'--iceberg-database {name}' for name in found)}",
        )
    return found[0]


def _settings_of(chosen: "CatalogSection") -> "CatalogSettings":
    """What [output.catalog] or [input.catalog] says. Errors: ConfigError."""
    with requires_extra("iceberg", "tables"):
        from sessionize.connectors.iceberg import CatalogSettings
    return CatalogSettings(
        kind=chosen.kind, uri=chosen.uri, warehouse=chosen.warehouse, options=_with_secrets_named(chosen.settings)
    )


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


def query_tables(sql: str, pipeline: str | None, home: Path | None, database: str | None) -> "pa.Table":
    """Warehouse.query over the tables that find_warehouse finds. What is not installed is an error before that."""
    from sessionize.app.tables import query  # noqa: F401 - what is not installed is said first

    return find_warehouse(pipeline, home, database).query(sql)
