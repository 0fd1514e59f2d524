"""Accepted events of a stream as plain Parquet files: `event_date=YYYY-MM-DD/<writer>-<epoch>.parquet`.

A file is written beside its place under a name that no reader looks at, synced, and renamed, so nobody ever sees half
of one. Its name says which epoch it holds: repeating an epoch replaces the files by the same files. The epoch's marker
in `_epochs` comes last and lists the files; an epoch is there when its marker is. One writer's files are written by
one process at a time, other writers' may be written beside it.
"""

import contextlib
import itertools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sessionize.durable import may_pass, replacing, sync_folder
from sessionize.errors import ConfigError, OutputError, StateError, UnavailableError
from sessionize.ports import EpochId, EpochRows
from sessionize.session.columns import EVENT_TIME

EPOCHS_FOLDER = "_epochs"
EVENT_DATE = "event_date"

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
            (self._folder / EPOCHS_FOLDER).mkdir(parents=True, exist_ok=True)

    def write_epoch(self, epoch: EpochId, rows: EpochRows) -> None:
        """One file for each date that has events, then the marker.

        Errors: StateError when the epoch is there from another plan; those of the class.
        """
        _check_name(epoch.writer)
        marker = self._folder / EPOCHS_FOLDER / f"{epoch.writer}-{epoch.number}.json"
        with _storage(self._folder):
            if self._is_there(epoch, marker):
                return
            files = [self._write(f"{EVENT_DATE}={day}", epoch, its) for day, its in _by_date(rows.events)]
            content = {
                "writer": epoch.writer,
                "epoch": epoch.number,
                "plan": epoch.plan,
                "watermark_ms": rows.watermark_ms,
                "rows": rows.events.num_rows,
                "files": files,
            }
            _put(marker, (json.dumps(content, indent=1) + "\n").encode())

    def last_epoch(self, writer: str) -> int:
        """The highest number among the writer's markers. Errors: those of the class."""
        _check_name(writer)
        # another writer's name may begin with this one's: what is between its end and the suffix has to be a number
        marker = re.compile(rf"{writer}-([0-9]+)\.json")
        with _storage(self._folder), os.scandir(self._folder / EPOCHS_FOLDER) as markers:
            found = [marker.fullmatch(entry.name) for entry in markers]
        return max((int(match[1]) for match in found if match), default=0)

    def close(self) -> None:
        """Nothing stays open."""

    def _is_there(self, epoch: EpochId, marker: Path) -> bool:
        try:
            known = json.loads(marker.read_bytes())
        except FileNotFoundError:
            return False
        except ValueError as error:
            raise StateError("an epoch's marker cannot be read", detail=f"{marker}: {error}") from error
        if known.get("plan") != epoch.plan:
            raise StateError(
                "the lake has this epoch from another plan",
                detail=f"{marker}: {known.get('plan')}, now it is {epoch.plan}",
                hint="two engines run under one name, or the state was removed and the lake was not; "
                "give this one another name, or its state back",
            )
        return True

    def _write(self, partition: str, epoch: EpochId, rows: pa.Table) -> dict[str, Any]:
        """The file's entry in the marker."""
        name = f"{epoch.writer}-{epoch.number}.parquet"
        folder = self._folder / partition
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            sync_folder(self._folder)
        with replacing(folder / name) as unfinished:
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


def _put(path: Path, content: bytes) -> None:
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)


@contextlib.contextmanager
def _storage(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if may_pass(error):
            raise UnavailableError(
                "the lake cannot be written now",
                detail=f"{folder}: {error.strerror}",
                hint="make room or mend the disk: the epoch is written then",
            ) from error
        raise OutputError(
            "the lake cannot be written", detail=f"{folder}: {error.strerror or error}", hint="look at the permissions"
        ) from error
