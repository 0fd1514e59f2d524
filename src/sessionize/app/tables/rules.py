"""The rules that lie with the tables: what a run notes there and checks, and what every other command goes by.

A run whose rules or name the tables do not have is refused (connectors/iceberg/ownership.py). Whoever computes sessions
again takes the rules from the tables, and says so where the pipeline has others. docs/adr/0013.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from sessionize.app.config.pipeline import PipelineConfig
from sessionize.app.config.presets import preset_names
from sessionize.app.tables.warehouse import Warehouse
from sessionize.app.warn import Warn
from sessionize.errors import ConfigError
from sessionize.session.names import BATCH, LABEL
from sessionize.session.spec import SessionSpec, describe_differences, kind_of_difference

if TYPE_CHECKING:
    from sessionize.connectors.iceberg import Owner


def owner_of(config: PipelineConfig) -> "Owner":
    """The pipeline as the tables know it."""
    from sessionize.connectors.iceberg import Owner

    stream = config.input.is_stream
    return Owner(
        spec=config.spec(),
        sessions=config.output.table,
        elsewhere="a pipeline drains with the old rules (--once), then starts in a new --home"
        if stream
        else "give another --home or --iceberg-database",
        replacing=None if stream else "--set output.mode=overwrite",
        overwrite=config.output.mode == "overwrite",
    )


def by_the_tables(config: PipelineConfig, *, warn: Warn, home: Path | None = None) -> PipelineConfig:
    """The pipeline by the rules of its tables; warn gets a text where it has others, or where the tables have no
    record.

    home: in place of the pipeline's. Without tables it stays as it is: whoever needs them says so. Errors: ConfigError
    for a pipeline that did not write these tables; StateError for a record that cannot be read; those of the catalog.
    """
    if config.output.kind != "iceberg":
        return config
    warehouse = Warehouse.of(config, home=home)
    spec, recorded = stored_spec(warehouse, config.output.table, pipeline=config.name)
    if spec is None:
        if not recorded:
            warn(
                f"the tables in database {warehouse.database} do not record their rules (an earlier version "
                f"wrote them); using those of the pipeline: {config.spec().describe()}"
            )
        return config
    differences = spec.differences(config.spec())
    if differences:
        kind, found = kind_of_difference(differences), describe_differences(differences)
        warn(f"the tables were made with {kind}; using those of the tables: {found}")
    return config.as_made(spec)


def pipeline_of_home(home: Path) -> str | None:
    """The preset that made the tables of a home; None where they do not say. Errors: ConfigError for several pipelines,
    for one that is a file of the user's own, and for tables of a command that takes no pipeline.
    """
    catalog = Warehouse(home).open()
    from sessionize.connectors import iceberg

    found: dict[str, str] = {}
    for database in iceberg.database_names(catalog):
        for table in iceberg.table_names(catalog, database):
            name = iceberg.pipeline_of(iceberg.load_table(catalog, database, table))
            if name is not None:
                found.setdefault(name, f"{database}.{table}")
    pipelines = {name: table for name, table in found.items() if name not in (BATCH, LABEL)}
    found = pipelines or found
    if not found:
        return None
    name, table = next(iter(found.items()))
    if len(pipelines) > 1:
        raise ConfigError(
            "the tables of this home were made by several pipelines",
            detail=", ".join(f"{table} by {name}" for name, table in found.items()),
            hint="choose one, by its preset or file",
        )
    if not pipelines:
        raise ConfigError(
            f"a table that `{name}` made has no events beside it to work with",
            detail=f"{table} in {home}",
            hint="load the files with a pipeline: it keeps events and rejected records",
        )
    if name not in dict(preset_names()):
        raise ConfigError(
            "the tables were made by a pipeline file, which is required here",
            detail=f"{table} in {home}: {name}",
            hint=f"name its file, for example {name}.toml",
        )
    return name


def stored_spec(warehouse: Warehouse, table: str, *, pipeline: str | None = None) -> tuple[SessionSpec | None, bool]:
    """How the sessions of a table are made, and whether its tables carry a record at all.

    None also for tables that no row has come into: what a run that failed has noted there binds nobody. pipeline: the
    name that the tables have to have. Errors: ConfigError when they have another one; StateError.
    """
    catalog, database = warehouse.open(), warehouse.database
    from sessionize.connectors import iceberg
    from sessionize.session.output_tables import warehouse_names

    names = set(iceberg.table_names(catalog, database))
    tables = {n: iceberg.load_table(catalog, database, n) for n in warehouse_names(table) if n in names}
    used = {name: each for name, each in tables.items() if each.metadata.snapshots}
    for each in used.values() if pipeline is not None else ():
        theirs = iceberg.pipeline_of(each)
        if theirs not in (None, pipeline):
            raise ConfigError(
                "the tables were not made by this pipeline",
                detail=f"{'.'.join(each.name())}: name: {theirs} there, {pipeline} here",
                hint="name the pipeline that made them, or the --home of this one",
            )
    recorded = not used or any(iceberg.pipeline_of(each) is not None for each in used.values())
    if table not in tables or not used.keys() - {iceberg.REJECTED_EVENTS}:
        return None, recorded
    return iceberg.spec_of(tables[table]), recorded
