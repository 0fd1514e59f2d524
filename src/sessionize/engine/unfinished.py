"""Work that takes two commits in two places: written down before the first, so that whoever comes next can finish it.

Each piece of work has a token and a folder of its own with its rows; the folder is there as a whole or not at all.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from sessionize.durable import sync_folder
from sessionize.errors import OutputError


class Unfinished:
    """The unfinished work in a folder. Errors: OutputError when the disk does not take it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, token: str, tables: Mapping[str, pa.Table]) -> None:
        """Write work down, durably."""
        hidden = self._folder / f".{token}"
        try:
            hidden.mkdir(parents=True, exist_ok=True)
            for name, table in tables.items():
                with open(hidden / f"{name}.arrow", "wb") as file:
                    with pa.ipc.new_file(file, table.schema) as writer:
                        writer.write_table(table)
                    file.flush()
                    os.fsync(file.fileno())
            sync_folder(hidden)
            hidden.rename(self._folder / token)
            sync_folder(self._folder)
            sync_folder(self._folder.parent)
        except OSError as error:
            shutil.rmtree(hidden, ignore_errors=True)
            raise OutputError(
                "work cannot be written down before it is done",
                detail=f"{self._folder}: {error}",
                hint="look at the disk",
            ) from error

    def tokens(self) -> list[str]:
        """What is unfinished; what was never written to its end is cleared away."""
        if not self._folder.is_dir():
            return []
        for leftover in self._folder.glob(".*"):
            shutil.rmtree(leftover, ignore_errors=True)
        return sorted(path.name for path in self._folder.iterdir())

    def read(self, token: str) -> dict[str, pa.Table]:
        """The tables of a piece of work, by name."""
        found = {}
        for path in (self._folder / token).glob("*.arrow"):
            with open(path, "rb") as file:
                found[path.stem] = pa.ipc.open_file(file).read_all()
        return found

    def drop(self, token: str) -> None:
        """The work is done, or was never begun."""
        hidden = self._folder / f".{token}"
        (self._folder / token).rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)
