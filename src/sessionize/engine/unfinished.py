"""Work that takes two commits in two places: written down before the first, so that whoever comes next can finish it.

Each piece of work has a token and a folder of its own with its rows; the folder is there as a whole or not at all.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from sessionize.durable import may_pass, sync_folder
from sessionize.errors import OutputError, UnavailableError


class Unfinished:
    """The unfinished work in a folder.

    Errors of all methods: UnavailableError when the disk is full or fails, OutputError when it refuses for a reason
    that stays.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, token: str, tables: Mapping[str, pa.Table]) -> None:
        """Write work down, durably."""
        hidden = self._folder / f".{token}"
        with self._refusals_told():
            try:
                self._write(hidden, tables)
                hidden.rename(self._folder / token)
            except OSError:
                shutil.rmtree(hidden, ignore_errors=True)
                raise
            sync_folder(self._folder)
            sync_folder(self._folder.parent)

    def tokens(self) -> list[str]:
        """What is unfinished; what was never written to its end is cleared away."""
        with self._refusals_told():
            if not self._folder.is_dir():
                return []
            for leftover in self._folder.glob(".*"):
                shutil.rmtree(leftover, ignore_errors=True)
            return sorted(path.name for path in self._folder.iterdir())

    def read(self, token: str) -> dict[str, pa.Table]:
        """The tables of a piece of work, by name."""
        found = {}
        with self._refusals_told():
            for path in (self._folder / token).glob("*.arrow"):
                with open(path, "rb") as file:
                    found[path.stem] = pa.ipc.open_file(file).read_all()
        return found

    def drop(self, token: str) -> None:
        """The work is done, or was never begun."""
        hidden = self._folder / f".{token}"
        with self._refusals_told():
            (self._folder / token).rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)

    @staticmethod
    def _write(folder: Path, tables: Mapping[str, pa.Table]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            with open(folder / f"{name}.arrow", "wb") as file:
                with pa.ipc.new_file(file, table.schema) as writer:
                    writer.write_table(table)
                file.flush()
                os.fsync(file.fileno())
        sync_folder(folder)

    @contextmanager
    def _refusals_told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise (UnavailableError if may_pass(error) else OutputError)(
                "what is unfinished cannot be written down or read",
                detail=f"{self._folder}: {error}",
                hint="make room, mend the disk, or see to the folder's rights: nothing was lost",
            ) from error
