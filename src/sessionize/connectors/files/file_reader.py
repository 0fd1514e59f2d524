"""Reads a followed file in the same batches every time, starting at any of them."""

from collections.abc import Generator
from datetime import UTC, datetime
from typing import cast

from sessionize.connectors.files.directory_scan import FileStat
from sessionize.connectors.files.file_log import FileEntry
from sessionize.connectors.files.source import FileSource
from sessionize.errors import InputError
from sessionize.ports import EventBatch
from sessionize.session.columns import REJECTED_SCHEMA


class FileReader:
    """Reads a file one batch ahead, so that the last batch is known. offset: the records returned so far."""

    def __init__(self, entry: FileEntry, source: FileSource, offset: int) -> None:
        """offset: records to skip. Errors: InputError if no batch begins there or the file cannot be read."""
        self.entry = entry
        self.offset = 0
        self._batches = cast(Generator[EventBatch, None, None], source.batches())
        self._nothing = EventBatch(source.empty_events(), REJECTED_SCHEMA.empty_table(), 0)
        self._ended = False
        self._ahead = self._pull()
        while self.offset < offset:
            step = self.next()
            if self.offset > offset or (step is not None and step[1]):
                raise batch_mismatch(entry.place, offset)

    def next(self) -> tuple[EventBatch, bool] | None:
        """The next batch, empty for an empty file, and whether it is the last; None after as many blank lines as fill
        a batch.
        """
        pulled = None if self._ended else self._pull()
        batch = self._ahead
        if not self._ended and (batch is None or pulled is None):
            self._ahead = batch or pulled
            return None
        self._ahead = pulled
        batch = batch or self._nothing
        self.offset += batch.consumed
        return batch, self._ended

    def _pull(self) -> EventBatch | None:
        batch = next(self._batches, None)
        self._ended = batch is None
        return batch if batch is not None and batch.consumed else None

    def close(self) -> None:
        """Close the file."""
        self._batches.close()


def changed(path: str, entry: FileEntry, now: FileStat | None) -> InputError:
    """The error for a file that changed after reading started; restored, it can be read further."""
    time = f"{entry.mtime_ns // 10**9}.{entry.mtime_ns % 10**9:09}"
    was = f"{entry.size_bytes:,} bytes of {_utc(entry.mtime_ns)}"
    if now is None:
        return InputError(
            "a file was removed before it was read to its end",
            detail=f"file {path}: it had {was}",
            hint=f"restore it (with its time: touch -d @{time}) and start again; files may be removed once "
            "they are finished",
        )
    return InputError(
        "a file changed after reading had started",
        detail=f"file {path}: it had {was}, and has {now.size_bytes:,} bytes of {_utc(now.mtime_ns)}",
        hint=f"restore it (with its time: touch -d @{time}) and start again; new records belong into a "
        "file of another name, renamed into place when it is complete",
    )


def batch_mismatch(place: str, offset: int) -> InputError:
    """The error for a file whose records differ although its size and time are the same."""
    return InputError(
        "a file changed after reading had started",
        detail=f"file {place}: it has no batch that begins at record {offset:,}, though its size and time are the same",
        hint="restore it and start again; or another version of this program wrote the state",
    )


def missing_from_log(file: str) -> InputError:
    """The error for a position whose file is not in the log."""
    return InputError(
        "a started file is not in the log of followed files",
        detail=f"file {file}",
        hint="the log and the checkpoints belong together; restore both",
    )


def _utc(time_ns: int) -> str:
    """A time for people, to the second."""
    return f"{datetime.fromtimestamp(time_ns // 10**9, UTC):%Y-%m-%d %H:%M:%S} UTC"
