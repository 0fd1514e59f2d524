"""A followed file while it is read: in the same batches each time, from any of them on."""

from collections.abc import Generator
from datetime import UTC, datetime
from typing import cast

from sessionize.connectors.files.directory_scan import FileStat
from sessionize.connectors.files.file_log import Entry
from sessionize.connectors.files.source import FileSource
from sessionize.connectors.files.unreadable import nothing
from sessionize.errors import InputError
from sessionize.ports import EventBatch
from sessionize.session.columns import REJECTED_SCHEMA


class Reading:
    """A file that is being read, one batch ahead, so that the last one is known as such. offset: records handed out."""

    def __init__(self, entry: Entry, source: FileSource, offset: int) -> None:
        """offset: records to pass over. Errors: InputError when no batch begins there, or nothing can be read."""
        self.entry = entry
        self.offset = 0
        self._batches = cast(Generator[EventBatch, None, None], source.batches())
        self._nothing = EventBatch(nothing(source.event_columns), REJECTED_SCHEMA.empty_table(), 0)
        self._ended = False
        self._ahead = self._pulled()
        while self.offset < offset:
            step = self.next()
            if self.offset > offset or (step is not None and step[1]):
                raise cut_elsewhere(entry.place, offset)

    def next(self) -> tuple[EventBatch, bool] | None:
        """The next batch, empty for an empty file, and whether it is the last one; None when there was nothing but
        blank lines for the length of a batch.
        """
        pulled = None if self._ended else self._pulled()
        batch = self._ahead
        if not self._ended and (batch is None or pulled is None):
            self._ahead = batch or pulled
            return None
        self._ahead = pulled
        batch = batch or self._nothing
        self.offset += batch.consumed
        return batch, self._ended

    def _pulled(self) -> EventBatch | None:
        batch = next(self._batches, None)
        self._ended = batch is None
        return batch if batch is not None and batch.consumed else None

    def close(self) -> None:
        """Release the file."""
        self._batches.close()


def changed(path: str, entry: Entry, now: FileStat | None) -> InputError:
    """The error for a file that is not what it was when it was taken up; it can be read on when it is so again."""
    time = f"{entry.mtime_ns // 10**9}.{entry.mtime_ns % 10**9:09}"
    was = f"{entry.size_bytes:,} bytes of {_utc(entry.mtime_ns)}"
    if now is None:
        return InputError(
            "a file is gone that has not been read to its end",
            detail=f"file {path}: it had {was}",
            hint=f"put it back as it was (with its time: touch -d @{time}) and start again; files may be removed once "
            "they are finished",
        )
    return InputError(
        "a file changed after reading it had begun",
        detail=f"file {path}: it had {was}, and has {now.size_bytes:,} bytes of {_utc(now.mtime_ns)}",
        hint=f"put it back as it was (with its time: touch -d @{time}) and start again; what is new belongs into a "
        "file of another name, renamed into place when it is complete",
    )


def cut_elsewhere(place: str, offset: int) -> InputError:
    """The error for a file whose records come out otherwise, though size and time are the same."""
    return InputError(
        "a file changed after reading it had begun",
        detail=f"file {place}: it has no batch that begins at record {offset:,}, though its size and time are the same",
        hint="put it back as it was, and start again; or was the state made by another version of this program?",
    )


def not_in_the_book(file: str) -> InputError:
    """The error for a position without its file."""
    return InputError(
        "a file that was begun is not in the book of followed files",
        detail=f"file {file}",
        hint="the book and the checkpoints belong together; restore both",
    )


def _utc(time_ns: int) -> str:
    """A time for people, to the second."""
    return f"{datetime.fromtimestamp(time_ns // 10**9, UTC):%Y-%m-%d %H:%M:%S} UTC"
