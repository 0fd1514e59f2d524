"""A followed file while it is read: in the same batches each time, from any of them on."""

from sessionize.connectors.files.follow_book import Entry
from sessionize.connectors.files.source import FileSource
from sessionize.connectors.files.unreadable import nothing
from sessionize.errors import InputError
from sessionize.ports import EventBatch
from sessionize.session.columns import REJECTED_SCHEMA


class Reading:
    """A file that is being read, one batch ahead, so that the last one is known as such."""

    def __init__(self, entry: Entry, source: FileSource, offset: int) -> None:
        self.entry = entry
        self.offset = 0
        self._batches = source.batches()
        self._nothing = EventBatch(nothing(source.event_columns), REJECTED_SCHEMA.empty_table(), 0)
        self._ahead = next(self._batches, None)
        while self.offset < offset:
            if self._ahead is None or self.offset + self._ahead.consumed > offset:
                raise changed(entry.place, f"it has no batch that begins at record {offset:,}")
            self.next()

    def next(self) -> tuple[EventBatch, bool]:
        """The next batch, empty for an empty file, and whether it is the last one."""
        batch = self._ahead or self._nothing
        self._ahead = next(self._batches, None)
        self.offset += batch.consumed
        return batch, self._ahead is None

    def close(self) -> None:
        """Release the file."""
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()


def changed(place: str, how: str) -> InputError:
    """The error for a file that is not what it was."""
    return InputError(
        "a file changed after reading it had begun",
        detail=f"file {place}: {how}",
        hint="write files under another name and rename them when they are complete; names have to be new",
    )
