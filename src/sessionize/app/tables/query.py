"""SQL over the project's tables: DuckDB reads Arrow datasets that the catalog vouches for, and nothing else.

DuckDB gets no access to files, network, extensions or settings at all; a SELECT that hides a COPY finds every
door shut. Partitions are pruned by the dataset, so a filter on date or bucket opens only the files it needs.
"""

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from sessionize.connectors.iceberg import (
    LOADS,
    USER_SESSIONS,
    Catalog,
    database_names,
    load_table,
    loads_with_state,
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
_MAIN = "main"  # the schema that DuckDB looks in
_COLUMNS_SHOWN_MAX = 40
_FILES_GONE = "were they moved or removed?"


def run_query(catalog: Catalog, sql: str, *, database: str, parameters: Sequence[object] = ()) -> pa.Table:
    """Warehouse.query, over the tables of a catalog."""
    there = Tables.of({name: table_names(catalog, name) for name in database_names(catalog)}, database)
    with (
        tempfile.TemporaryDirectory(prefix="sessionize-query-") as spill,
        _closed_database(spill) as connection,
    ):
        _check_statement(connection, sql)
        columns: dict[str, tuple[str, ...]] = {}
        for schema, name in _wanted(connection, sql, there):
            data, names = _data_of(catalog, schema, name)
            columns[there.shown(schema, name)] = names
            _add_view(connection, schema, name, data, names)
            for known_as in (name, *there.aliases(schema, name)):
                if known_as != name:
                    connection.execute(_view(schema, known_as, schema, name))
                if there.shown(schema, name) == name and schema != _MAIN:
                    connection.execute(_view(_MAIN, known_as, schema, name))
        connection.execute("SET lock_configuration = true")
        return _result(connection, sql, parameters, there, columns)


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of a home.

    all: (database, name) of each. alone: name -> database, for those that are known by the name alone.
    """

    all: tuple[tuple[str, str], ...]
    alone: dict[str, str]

    @classmethod
    def of(cls, names: Mapping[str, Sequence[str]], preferred: str) -> "Tables":
        """names: of the tables by database. preferred: whose tables are meant where several have one of a name."""
        found = tuple((database, name) for database, its in names.items() for name in its)
        count = Counter(name.lower() for _, name in found)
        alone = {name: database for database, name in found if count[name.lower()] == 1 or database == preferred}
        return cls(found, alone)

    def shown(self, database: str, name: str) -> str:
        """What a table is called: its name where that is enough."""
        return name if self.alone.get(name) == database else f"{database}.{name}"

    def aliases(self, database: str, name: str) -> list[str]:
        """What else a table is called, where no other one has the name."""
        return [alias for alias, of in _ALIASES.items() if of == name and (database, alias) not in self.all]


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
            detail=f"this is a {statements[0].type.name} statement",
            hint="use SELECT, SHOW TABLES or DESCRIBE",
        )


def _wanted(connection: duckdb.DuckDBPyConnection, sql: str, there: Tables) -> Iterable[tuple[str, str]]:
    """The tables that the query names, or all when it names none that is known (SHOW TABLES, a typo)."""
    try:
        named = {name.lower() for name in connection.get_table_names(sql)}
    except duckdb.Error:
        return there.all
    named |= {table for alias, table in _ALIASES.items() if alias in named}
    return [(database, name) for database, name in there.all if name.lower() in named] or there.all


def _data_of(catalog: Catalog, database: str, name: str) -> tuple[object, tuple[str, ...]]:
    """A table's rows for DuckDB and its columns' names; a load says whether it is in, which its own rows cannot."""
    if name == LOADS:
        rows = loads_with_state(catalog, database)
        return rows, tuple(rows.column_names)
    table = readable(load_table(catalog, database, name))
    return table.data, table.names


def _add_view(
    connection: duckdb.DuckDBPyConnection, schema: str, name: str, data: object, columns: tuple[str, ...]
) -> None:
    relation = connection.from_arrow(data)
    renamed = ", ".join(
        f"{quoted(there)} AS {quoted(here)}" for there, here in zip(relation.columns, columns, strict=True)
    )
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
    connection.execute(f"USE {quoted(schema)}")
    relation.project(renamed).create_view(name)
    connection.execute(f"USE {_MAIN}")


def _view(schema: str, name: str, of_schema: str, of: str) -> str:
    return f"CREATE VIEW {quoted(schema)}.{quoted(name)} AS FROM {quoted(of_schema)}.{quoted(of)}"


def _result(
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    parameters: Sequence[object],
    there: Tables,
    columns: dict[str, tuple[str, ...]],
) -> pa.Table:
    try:
        return connection.sql(sql, params=list(parameters) or None).to_arrow_table()
    except duckdb.PermissionException as error:
        raise ConfigError(
            "a query can only read the project's tables", detail=_first_line(error), hint=_known_tables(there)
        ) from error
    except duckdb.BinderException as error:
        raise ConfigError("the query cannot be run", detail=str(error), hint=_known_columns(columns)) from error
    except (duckdb.ParserException, duckdb.CatalogException) as error:
        raise ConfigError("the query cannot be run", detail=str(error), hint=_known_tables(there)) from error
    except duckdb.IOException as error:
        raise InputError("a table's files cannot be read", detail=str(error), hint=_FILES_GONE) from error
    except duckdb.Error as error:
        # Files are opened by Arrow; DuckDB reports its errors as invalid input of its own.
        if "Arrow source failed" in str(error):
            raise InputError("a table's files cannot be read", detail=str(error), hint=_FILES_GONE) from error
        raise ConfigError("the query failed", detail=str(error)) from error


def _known_tables(there: Tables) -> str:
    names = [there.shown(database, name) for database, name in there.all]
    return f"tables: {', '.join(names)}" if names else "there are no tables yet; run a pipeline first"


def _known_columns(columns: dict[str, tuple[str, ...]]) -> str:
    shown = (f"{name} has {', '.join(its[:_COLUMNS_SHOWN_MAX])}" for name, its in columns.items())
    return "; ".join(shown) or "the query names no table"


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]


def quoted(name: str) -> str:
    """A name as SQL takes it, whatever is in it."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
