"""Where homes are: one for each pipeline, below ./sessionize-data, unless somebody says otherwise.

A home holds catalog, tables and state. A pipeline's is called after it; `batch -o iceberg:DATABASE.TABLE` has one
called after the database. Earlier versions kept everything in ./sessionize-data itself, where it is still found.
"""

import re
from pathlib import Path

from sessionize.errors import ConfigError

DATA = Path("sessionize-data")
_CATALOG = "catalog.db"


def home_of_pipeline(name: str, writer: str | None = None) -> Path:
    """The home of a pipeline that names none. writer: under which name it records its epochs, if not its own.

    A stream that an earlier version began in ./sessionize-data goes on there.
    """
    return DATA if _began_before(name, writer) else DATA / name


def home_of_table(database: str, table: str) -> Path:
    """The home of a table that `batch` or `label` writes; ./sessionize-data where an earlier version made it there.

    Errors: those of a catalog that cannot be read.
    """
    if (DATA / _CATALOG).is_file():
        from sessionize.connectors.iceberg import open_catalog, table_names

        if table in table_names(open_catalog(DATA, create=False), database):
            return DATA
    return DATA / database


def only_home() -> Path:
    """The home that is meant where nobody has named one. Errors: ConfigError unless there is exactly one."""
    found = homes_in(DATA)
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError(
            "there are no tables yet",
            detail=f"neither {DATA} nor a folder in it has a {_CATALOG}",
            hint="run a pipeline first, or name the home of the tables: --home DIR",
        )
    raise ConfigError(
        "several homes have tables",
        detail=", ".join(str(home) for home in found),
        hint=f"say which: {_options(found)}",
    )


def check_home(home: Path) -> None:
    """Errors: ConfigError for a folder that is no home but has homes in it; they are listed."""
    if (home / _CATALOG).exists() or not (found := homes_in(home)):
        return
    raise ConfigError(
        "no tables in this folder, but in folders below it",
        detail=f"{home} has no {_CATALOG}",
        hint=f"say which: {_options(found)}",
    )


def homes_in(folder: Path) -> list[Path]:
    """The folder itself and those directly in it, as far as they hold a catalog, in the order of their names."""
    try:
        below = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []
    return [home for home in (folder, *below) if (home / _CATALOG).is_file()]


def _options(homes: list[Path]) -> str:
    return " or ".join(f"--home {home}" for home in homes)


def _began_before(name: str, writer: str | None) -> bool:
    """Whether ./sessionize-data has the state of one of the pipeline's processes (streaming.writer_name)."""
    try:
        known = [path.name for path in (DATA / "state").iterdir()]
    except OSError:
        return False
    ours = re.compile(rf"{re.escape(name)}(-\d+|-p[0-9_-]+)?")
    return any(ours.fullmatch(each) or each == writer for each in known)
