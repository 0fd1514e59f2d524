"""What an input's name says: `iceberg:DATABASE.TABLE` and `delta:PATH` are tables, and so is a folder with a Delta log;
everything else are files.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sessionize.connectors.local_paths import check_local, is_address
from sessionize.connectors.remote_addresses import check_address, is_remote
from sessionize.errors import ConfigError

ICEBERG_PREFIX = "iceberg:"
DELTA_PREFIX = "delta:"
_DELTA_LOG = "_delta_log"


@dataclass(frozen=True, slots=True)
class TableName:
    """A table in the user's form. place: a folder, or DATABASE.TABLE."""

    text: str
    kind: Literal["iceberg", "delta"]
    place: str

    @property
    def database_and_table(self) -> tuple[str, str]:
        """Of an Iceberg table. Errors: ConfigError."""
        return database_and_table(self.text, "an Iceberg input")


def table_name(text: str) -> TableName | None:
    """None for a file, a folder of files, or a pattern."""
    if text.startswith(ICEBERG_PREFIX):
        return TableName(text, "iceberg", text.removeprefix(ICEBERG_PREFIX))
    if text.startswith(DELTA_PREFIX):
        return TableName(text, "delta", text.removeprefix(DELTA_PREFIX))
    if os.path.isdir(os.path.join(text, _DELTA_LOG)):
        return TableName(text, "delta", text)
    return None


def database_and_table(text: str, what: str) -> tuple[str, str]:
    """Those in iceberg:DATABASE.TABLE. what: the subject of the error. Errors: ConfigError."""
    database, _, table = text.removeprefix(ICEBERG_PREFIX).partition(".")
    if not database or not table:
        raise ConfigError(
            f"{what} needs a database and a table",
            detail=text,
            hint=f"for example {ICEBERG_PREFIX}sessions.user_sessions",
        )
    return database, table


def check_input(text: str, *, name: str) -> None:
    """Errors: ConfigError for an input that can never be read."""
    table = table_name(text)
    place = text if table is None else table.place
    if table is None or table.kind == "delta":
        if is_address(place):
            check_address(place, name=name)
        else:
            check_local(place, name=name)
    if table is None:
        return
    if table.kind == "iceberg":
        _ = table.database_and_table
    elif not table.place:
        raise ConfigError("a Delta table needs a folder", detail=text, hint="for example delta:lake/events")


def local_inputs(inputs: Sequence[str]) -> list[str]:
    """The inputs that are paths; of a Delta table its folder."""
    tables = {text: table_name(text) for text in inputs}
    places = [text if table is None else table.place for text, table in tables.items() if not _is_iceberg(table)]
    return [place for place in places if not is_remote(place)]


def _is_iceberg(table: TableName | None) -> bool:
    return table is not None and table.kind == "iceberg"
