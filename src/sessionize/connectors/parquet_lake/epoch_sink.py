"""Tables of a stream as plain Parquet files: `event_date=YYYY-MM-DD/<writer>-<epoch>.parquet`, for events.

A table that is not divided by a date has no such folder. A file is written beside its place under a name that no reader
looks at, synced, and renamed, so nobody ever sees half of one. Its name says which epoch it holds: repeating an epoch
replaces the files by the same files. The writer's record comes last (records.py); an epoch is there when the record
says so. One writer's files are written by one process at a time, other writers' may be written beside it.
"""

import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sessionize.connectors.parquet_lake.records import EPOCHS_FOLDER, Records
from sessionize.durable import atomic_write, disk_errors, sync_folder
from sessionize.errors import ConfigError, OutputError
from sessionize.formats.properties import ARROWS_OWN, moved_to_properties
from sessionize.ports import EpochId, EpochOutput
from sessionize.session.columns import USER
from sessionize.session.output_tables import EVENTS, OUTPUT_TABLES, Destination, Destinations, TableSpec, utc_days

_WRITER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
_ROW_GROUP_ROWS = 1 << 16


# What is kept where nobody says otherwise, and in which folder of the lake: events, in the lake itself.
DESTINATIONS = {EVENTS.name: ""}


class ParquetLakeSink:
    """Writes the rows of each epoch to a folder (ports.EpochSink).

    folder: made when it is not there. destinations: output table -> its folder within the lake, "" for the lake itself;
    DESTINATIONS by default. specs: the tables that an output may have. user_name: what the rows call the user column.
    Errors: OutputError for a place that cannot be written; UnavailableError when the disk is full or fails; ConfigError
    for a writer's name that cannot be part of a file's name, and for a folder outside of the lake, or of two tables.
    """

    def __init__(
        self,
        folder: Path | str = "data/lake",
        *,
        destinations: Mapping[str, str] | None = None,
        specs: tuple[TableSpec, ...] = OUTPUT_TABLES,
        user_name: str = USER,
    ) -> None:
        self._folder = Path(folder)
        self._to = Destinations(DESTINATIONS if destinations is None else destinations, specs, user_name)
        _check_folders([each.to for each in self._to])
        with _storage(self._folder):
            self._records = Records(self._folder)
        self._looked_after: set[str] = set()  # writers of whom no file of an epoch that was cut off is left

    @property
    def known_tables(self) -> frozenset[str]:
        """The tables whose specs it was given."""
        return self._to.names

    def write_epoch(self, epoch: EpochId, output: EpochOutput) -> None:
        """One file for each date that a table has rows of, then the record.

        Errors: StateError when the epoch is there from another plan; those of the class.
        """
        _check_name(epoch.writer)
        given = self._to.rows(output.tables)
        with _storage(self._folder):
            last = self._records.last(epoch.writer)
            if epoch.is_known(last, where=str(self._folder)):
                return
            files = [self._write(at, epoch, its) for to, rows in given for at, its in _divided(to, rows)]
            self._remove_cut_off(epoch.writer, last.number, {each["file"] for each in files})
            count = sum(rows.num_rows for _, rows in given)
            self._records.put(epoch, watermark_ms=output.watermark_ms, rows=count, files=files)

    def last_epoch(self, writer: str) -> int:
        """The writer's last epoch. Errors: those of the class."""
        _check_name(writer)
        with _storage(self._folder):
            return self._records.last(writer).number

    def close(self) -> None:
        """Nothing stays open."""

    def _remove_cut_off(self, writer: str, done: int, written: set[str]) -> None:
        """An epoch that was cut off may have been planned anew, and have no rows of some dates any more."""
        if writer in self._looked_after:
            return
        name = re.compile(rf"\.?{writer}-([0-9]+)\.parquet(?:\.unfinished)?")
        for folder in (folder for to in self._to for folder in self._folders(to)):
            with os.scandir(folder) as entries:
                found = [(entry.name, match) for entry in entries if (match := name.fullmatch(entry.name))]
            for file, match in found:
                if int(match[1]) > done and (folder / file).relative_to(self._folder).as_posix() not in written:
                    (folder / file).unlink(missing_ok=True)
        self._looked_after.add(writer)

    def _folders(self, to: Destination) -> Iterator[Path]:
        """The folders that have files of a table."""
        own = self._folder / to.to
        if to.spec.partition_by:
            yield from own.glob(f"{to.spec.partition_by[0]}=*")
        elif own.exists():
            yield own

    def _write(self, place: str, epoch: EpochId, rows: pa.Table) -> dict[str, Any]:
        """The file's entry in the record. place: the file's folder."""
        file = PurePosixPath(place, f"{epoch.writer}-{epoch.number}.parquet")
        folder = self._folder / place
        if not folder.exists():
            folder.mkdir(parents=True, exist_ok=True)
            for made in PurePosixPath(place).parents:
                sync_folder(self._folder / made)
        with atomic_write(self._folder / file) as unfinished:
            pq.write_table(rows, unfinished, compression="zstd", row_group_size=_ROW_GROUP_ROWS)
        return {"file": str(file), "rows": rows.num_rows}


def _check_folders(folders: Sequence[str]) -> None:
    paths = [PurePosixPath(folder) for folder in folders]  # "", "." and "x", "./x/" are the same folders
    for folder, path in zip(folders, paths, strict=True):
        if path.is_absolute() or ".." in path.parts or path.parts[:1] == (EPOCHS_FOLDER,) or paths.count(path) > 1:
            raise ConfigError(
                "a table cannot have this folder of the lake",
                detail=repr(folder),
                hint="name a folder of its own within the lake",
            )


def _check_name(writer: str) -> None:
    if not _WRITER.fullmatch(writer):
        raise ConfigError(
            "a writer's name cannot name files",
            detail=repr(writer),
            hint="letters, digits, _ and -, at most 100 of them",
        )


def _divided(to: Destination, rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """The folder of each UTC date, and its rows in the order they came; or that of the table, and all of them.

    Errors: OutputError for a date without a name.
    """
    if not to.spec.partition_by:
        yield to.to, _plain(rows)
        return
    date = to.spec.partition_by[0]
    days = _days(to.spec, date, rows)
    # Readers take the date from the folder.
    if taken := [name for name in (date, *ARROWS_OWN) if name in rows.column_names]:
        rows = moved_to_properties(rows, taken) if to.spec.keeps_fields else rows.drop_columns(taken)
    if days[0] != days[-1] or np.any(days != days[0]):
        order = np.argsort(days, kind="stable")
        if np.any(days[1:] < days[:-1]):
            rows, days = rows.take(pa.array(order)), days[order]
    starts = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]
    for start, end in itertools.pairwise(starts):
        try:
            day = pa.scalar(int(days[start]), pa.int32()).cast(pa.date32()).as_py().isoformat()
        except (OverflowError, ValueError, pa.ArrowInvalid) as error:
            raise OutputError(
                "a date cannot name a folder",
                detail=f"day {int(days[start])} since 1970-01-01",
                hint="only the years 1 to 9999 have folders; such times should be rejected while decoding",
            ) from error
        yield str(PurePosixPath(to.to, f"{date}={day}")), _plain(rows.slice(start, end - start))


def _days(spec: TableSpec, date: str, rows: pa.Table) -> npt.NDArray[np.int64]:
    """The days since 1970-01-01 of the rows: of their date, or of the time it is derived from."""
    source = next((each.source for each in spec.derived if each.name == date), None)
    if source is not None and (date not in rows.column_names or date not in spec.schema.names):
        return utc_days(rows[source])
    days: npt.NDArray[np.int64] = rows[date].cast(pa.date32()).cast(pa.int32()).fill_null(0).to_numpy().astype(np.int64)
    return days


def _plain(rows: pa.Table) -> pa.Table:
    """Dictionaries as their values: every file of the lake has the same types."""
    fields = [f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in rows.schema]
    columns = [pc.cast(column, f.type) for column, f in zip(rows.columns, fields, strict=True)]
    return pa.table(columns, schema=pa.schema(fields))


def _storage(folder: Path) -> AbstractContextManager[None]:
    return disk_errors(
        "the lake cannot be written",
        folder,
        hint="make room or mend the disk: the epoch is written then",
        permanent_hint="look at the permissions",
    )
