"""Accepted events of a stream as plain Parquet files: `event_date=YYYY-MM-DD/<writer>-<epoch>.parquet`.

A file is written beside its place under a name that no reader looks at, synced, and renamed, so nobody ever sees half
of one. Its name says which epoch it holds: repeating an epoch replaces the files by the same files. The writer's record
comes last (records.py); an epoch is there when the record says so. One writer's files are written by one process at a
time, other writers' may be written beside it.
"""

import contextlib
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sessionize.connectors.lake.records import Records
from sessionize.durable import atomic_write, is_transient, sync_folder
from sessionize.errors import ConfigError, OutputError, StateError, UnavailableError
from sessionize.formats.properties import ARROWS_OWN, moved_to_properties
from sessionize.ports import EpochId, EpochRows
from sessionize.session.columns import EVENT_DATE, EVENT_TIME

_DAY_MS = 86_400_000
_WRITER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
_ROW_GROUP_ROWS = 1 << 16


class ParquetLakeSink:
    """Writes the events of each epoch to a folder (ports.EpochSink); sessions, late and rejected rows are not kept.

    folder: made when it is not there. Errors: OutputError for a place that cannot be written; UnavailableError when the
    disk is full or fails; ConfigError for a writer's name that cannot be part of a file's name.
    """

    def __init__(self, folder: Path | str = "data/lake") -> None:
        self._folder = Path(folder)
        with _storage(self._folder):
            self._records = Records(self._folder)
        self._looked_after: set[str] = set()  # writers of whom no file of an epoch that was cut off is left

    def write_epoch(self, epoch: EpochId, rows: EpochRows) -> None:
        """One file for each date that has events, then the record.

        Errors: StateError when the epoch is there from another plan; those of the class.
        """
        _check_name(epoch.writer)
        with _storage(self._folder):
            last = self._records.last(epoch.writer)
            if epoch.number <= last.number:
                self._check_plan(epoch, last)
                return
            files = [self._write(f"{EVENT_DATE}={day}", epoch, its) for day, its in _by_date(rows.events)]
            self._remove_cut_off(epoch.writer, last.number, {each["file"] for each in files})
            self._records.put(epoch, watermark_ms=rows.watermark_ms, rows=rows.events.num_rows, files=files)

    def last_epoch(self, writer: str) -> int:
        """The writer's last epoch. Errors: those of the class."""
        _check_name(writer)
        with _storage(self._folder):
            return self._records.last(writer).number

    def close(self) -> None:
        """Nothing stays open."""

    def _check_plan(self, epoch: EpochId, last: EpochId) -> None:
        if epoch.number == last.number and epoch.plan != last.plan:
            raise StateError(
                "the lake has this epoch from another plan",
                detail=f"{self._folder}, epoch {epoch.number} of {epoch.writer}: {last.plan}, now it is {epoch.plan}",
                hint="two engines run under one name, or the state was removed and the lake was not; "
                "give this one another name, or its state back",
            )

    def _remove_cut_off(self, writer: str, done: int, written: set[str]) -> None:
        """An epoch that was cut off may have been planned anew, and have no events of some dates any more."""
        if writer in self._looked_after:
            return
        name = re.compile(rf"\.?{writer}-([0-9]+)\.parquet(?:\.unfinished)?")
        for folder in self._folder.glob(f"{EVENT_DATE}=*"):
            with os.scandir(folder) as entries:
                found = [(entry.name, match) for entry in entries if (match := name.fullmatch(entry.name))]
            for file, match in found:
                if int(match[1]) > done and f"{folder.name}/{file}" not in written:
                    (folder / file).unlink(missing_ok=True)
        self._looked_after.add(writer)

    def _write(self, partition: str, epoch: EpochId, rows: pa.Table) -> dict[str, Any]:
        """The file's entry in the marker."""
        name = f"{epoch.writer}-{epoch.number}.parquet"
        folder = self._folder / partition
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            sync_folder(self._folder)
        with atomic_write(folder / name) as unfinished:
            pq.write_table(rows, unfinished, compression="zstd", row_group_size=_ROW_GROUP_ROWS)
        return {"file": f"{partition}/{name}", "rows": rows.num_rows}


def _check_name(writer: str) -> None:
    if not _WRITER.fullmatch(writer):
        raise ConfigError(
            "a writer's name cannot name files",
            detail=repr(writer),
            hint="letters, digits, _ and -, at most 100 of them",
        )


def _by_date(events: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """The events of each UTC date in the order they came. Errors: OutputError for a date without a name."""
    if not events.num_rows:
        return
    # Readers take the date from the folder.
    if taken := [name for name in (EVENT_DATE, *ARROWS_OWN) if name in events.column_names]:
        events = moved_to_properties(events, taken)
    days = np.floor_divide(events.column(EVENT_TIME).to_numpy(), _DAY_MS)
    if days[0] != days[-1] or np.any(days != days[0]):
        order = np.argsort(days, kind="stable")
        if np.any(days[1:] < days[:-1]):
            events, days = events.take(pa.array(order)), days[order]
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
        yield day, _plain(events.slice(start, end - start))


def _plain(rows: pa.Table) -> pa.Table:
    """Dictionaries as their values: every file of the lake has the same types."""
    fields = [f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in rows.schema]
    columns = [pc.cast(column, f.type) for column, f in zip(rows.columns, fields, strict=True)]
    return pa.table(columns, schema=pa.schema(fields))


@contextlib.contextmanager
def _storage(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_transient(error):
            raise UnavailableError(
                "the lake cannot be written now",
                detail=f"{folder}: {error.strerror}",
                hint="make room or mend the disk: the epoch is written then",
            ) from error
        raise OutputError(
            "the lake cannot be written", detail=f"{folder}: {error.strerror or error}", hint="look at the permissions"
        ) from error
