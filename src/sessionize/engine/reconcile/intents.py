"""Write-ahead intents: work that commits in two places is recorded before the first, so the next run can finish it.

Each piece of work has a token and its own folder with its rows; the folder exists as a whole or not at all.
"""

import os
import shutil
import zlib
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pyarrow as pa

from sessionize.durable import disk_errors, sync_folder
from sessionize.errors import StateError


class IntentLog:
    """The unfinished work in a folder.

    A table is in a file of its name and checksum. Errors of all methods: UnavailableError when the disk is full or
    fails, OutputError when it refuses for a reason that stays.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, token: str, tables: Mapping[str, pa.Table]) -> None:
        """Record work durably."""
        hidden = self._folder / f".{token}"
        with self._mapped_errors():
            try:
                self._write(hidden, tables)
                hidden.rename(self._folder / token)
            except OSError:
                shutil.rmtree(hidden, ignore_errors=True)
                raise
            sync_folder(self._folder)
            sync_folder(self._folder.parent)

    def tokens(self) -> list[str]:
        """The tokens of unfinished work; a folder that was not written to its end is removed."""
        with self._mapped_errors():
            if not self._folder.is_dir():
                return []
            for leftover in self._folder.glob(".*"):
                shutil.rmtree(leftover, ignore_errors=True)
            return sorted(path.name for path in self._folder.iterdir())

    def read(self, token: str, names: Collection[str]) -> dict[str, pa.Table]:
        """The tables of a piece of work by name, at least those of `names`. Errors: StateError when it is damaged."""
        found = {}
        with self._mapped_errors():
            for path in sorted((self._folder / token).glob("*.arrow")):
                name, _, checksum = path.stem.partition(".")
                data = path.read_bytes()
                if checksum and checksum != _checksum(data):  # an earlier version wrote none
                    raise self._damaged(token, f"{path.name}: the checksum does not match")
                try:
                    found[name] = pa.ipc.open_file(data).read_all()
                except pa.ArrowInvalid as error:
                    raise self._damaged(token, f"{path.name}: {error}") from None
        if missing := sorted(set(names) - found.keys()):
            raise self._damaged(token, f"missing: {', '.join(missing)}")
        return found

    def _damaged(self, token: str, why: str) -> StateError:
        return StateError(
            "unfinished work that has to be finished first is damaged",
            detail=f"{self._folder / token}: {why}",
            hint="restore the folder from a backup; or remove it and run again, but then the database beside the "
            "tables lacks this correction, and has to be filled again from them",
        )

    def drop(self, token: str) -> None:
        """Remove the work: it is done, or was never begun."""
        hidden = self._folder / f".{token}"
        with self._mapped_errors():
            (self._folder / token).rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)

    @staticmethod
    def _write(folder: Path, tables: Mapping[str, pa.Table]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            buffer = pa.BufferOutputStream()
            with pa.ipc.new_file(buffer, table.schema) as writer:
                writer.write_table(table)
            data = buffer.getvalue()
            with open(folder / f"{name}.{_checksum(data)}.arrow", "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        sync_folder(folder)

    def _mapped_errors(self) -> AbstractContextManager[None]:
        return disk_errors(
            "unfinished work cannot be recorded or read",
            self._folder,
            hint="free disk space, repair the disk, or check the folder's permissions: nothing was lost",
        )


def _checksum(data: bytes | pa.Buffer) -> str:
    return f"{zlib.crc32(data):08x}"
