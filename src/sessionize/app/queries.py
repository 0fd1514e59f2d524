"""SQL over the project's tables: DuckDB reads Arrow datasets that the catalog vouches for, and nothing else.

DuckDB gets no access to files, network, extensions or settings at all; a SELECT that hides a COPY finds every
door shut. Partitions are pruned by the dataset, so a filter on date or bucket opens only the files it needs.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from sessionize.connectors.iceberg import (
    DATABASE,
    USER_SESSIONS,
    CatalogSettings,
    load_table,
    open_catalog,
    readable,
    table_names,
)
from sessionize.errors import ConfigError, InputError, MissingExtraError

try:
    import duckdb
except ModuleNotFoundError as missing:
    raise MissingExtraError("duckdb", "query", "a query") from missing

# Names that mean another table when no table has the name itself.
_ALIASES = {"user_sessions_partitioned": USER_SESSIONS}
_COLUMNS_SHOWN_MAX = 40
_FILES_GONE = "were they moved or removed?"


def run_query(home: Path, sql: str, *, database: str = DATABASE, catalog: CatalogSettings | None = None) -> pa.Table:
    """The result of one SELECT (also FROM, VALUES, WITH, SHOW, DESCRIBE, SUMMARIZE) over the tables of
    `database`.

    Tables are known by their name and by `<database>.<name>`, as they are at this moment. catalog: the one that they
    are in; None: the file in the home. Errors: ConfigError for a home without tables or SQL that cannot be run;
    InputError for files that can't be read.
    """
    opened = open_catalog(home, settings=catalog, create=False)
    names = table_names(opened, database)
    with (
        tempfile.TemporaryDirectory(prefix="sessionize-query-") as spill,
        _closed_database(spill) as connection,
    ):
        _check_statement(connection, sql)
        schema = _quoted(database)
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        connection.execute(f"USE {schema}")
        columns: dict[str, tuple[str, ...]] = {}
        for name in _wanted(connection, sql, names):
            table = readable(load_table(opened, database, name))
            columns[name] = table.names
            _add_view(connection, name, table.data, table.names)
        for alias, name in _ALIASES.items():
            if name in columns and alias not in names:
                connection.execute(f"CREATE VIEW {_quoted(alias)} AS FROM {_quoted(name)}")
        connection.execute("SET lock_configuration = true")
        return _result(connection, sql, names, columns)


def _closed_database(spill: str) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(
        config={
            "enable_external_access": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",
            "temp_directory": spill,
        }
    )


def _check_statement(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    try:
        sql.encode()
        statements = connection.extract_statements(sql)
    except (duckdb.Error, UnicodeError) as error:
        raise ConfigError("the query cannot be read", detail=str(error), hint="it is DuckDB SQL") from error
    if len(statements) != 1:
        raise ConfigError(
            "a query is one statement",
            detail=f"there are {len(statements)}" if statements else "there is none",
            hint="run them one by one" if statements else "for example: SELECT count(*) FROM user_sessions",
        )
    if statements[0].type != duckdb.StatementType.SELECT:
        raise ConfigError(
            "a query can only read",
            detail=f"this is a statement of the kind {statements[0].type.name}",
            hint="use SELECT, or SHOW TABLES and DESCRIBE to look around",
        )


def _wanted(connection: duckdb.DuckDBPyConnection, sql: str, names: list[str]) -> Iterable[str]:
    """The tables that the query names, or all when it names none that is known (SHOW TABLES, a typo)."""
    try:
        named = {name.lower() for name in connection.get_table_names(sql)}
    except duckdb.Error:
        return names
    named |= {table for alias, table in _ALIASES.items() if alias in named}
    return [name for name in names if name.lower() in named] or names


def _add_view(connection: duckdb.DuckDBPyConnection, name: str, data: object, columns: tuple[str, ...]) -> None:
    relation = connection.from_arrow(data)
    renamed = ", ".join(
        f"{_quoted(there)} AS {_quoted(here)}" for there, here in zip(relation.columns, columns, strict=True)
    )
    relation.project(renamed).create_view(name)


def _result(
    connection: duckdb.DuckDBPyConnection, sql: str, names: list[str], columns: dict[str, tuple[str, ...]]
) -> pa.Table:
    try:
        return connection.sql(sql).to_arrow_table()
    except duckdb.PermissionException as error:
        raise ConfigError(
            "a query can only read the project's tables", detail=_first_line(error), hint=_known_tables(names)
        ) from error
    except duckdb.BinderException as error:
        raise ConfigError("the query cannot be run", detail=str(error), hint=_known_columns(columns)) from error
    except (duckdb.ParserException, duckdb.CatalogException) as error:
        raise ConfigError("the query cannot be run", detail=str(error), hint=_known_tables(names)) from error
    except duckdb.IOException as error:
        raise InputError("a table's files cannot be read", detail=str(error), hint=_FILES_GONE) from error
    except duckdb.Error as error:
        # Files are opened by Arrow; DuckDB reports its errors as invalid input of its own.
        if "Arrow source failed" in str(error):
            raise InputError("a table's files cannot be read", detail=str(error), hint=_FILES_GONE) from error
        raise ConfigError("the query failed", detail=str(error)) from error


def _known_tables(names: list[str]) -> str:
    return f"tables: {', '.join(names)}" if names else "there are no tables yet; run a pipeline first"


def _known_columns(columns: dict[str, tuple[str, ...]]) -> str:
    shown = (f"{name} has {', '.join(its[:_COLUMNS_SHOWN_MAX])}" for name, its in columns.items())
    return "; ".join(shown) or _known_tables([])


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
