"""Finished files of a followed folder, recognised by name, and by inode and content after a rename.

Log rotation renames a finished file and creates a new one under its name. A file with the inode of a finished one
that begins with the content read from it is that one. Another file under a known name is new, unless it begins with
that content too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from sessionize.connectors.files.directory_scan import FileStat, changed_after
from sessionize.connectors.files.file_log import FileEntry
from sessionize.connectors.files.fingerprint import fingerprint_of
from sessionize.connectors.files.notices import LOG, Counted
from sessionize.errors import InputError


class FinishedFiles:
    """places: the finished files by name, later names included. grown: the names of finished files that now hold more
    than was read.
    """

    def __init__(self, entries: Iterable[FileEntry] = ()) -> None:
        self.places: dict[str, FileEntry] = {}
        self.grown: frozenset[str] = frozenset()
        self._by_inode: dict[int, FileEntry] = {}
        self._before: dict[str, FileEntry] = {}  # finished files whose name may now belong to another file
        self._renamed = Counted()
        for entry in entries:
            self.add(entry)

    def add(self, entry: FileEntry) -> None:
        """Add a finished file."""
        self.places[entry.place] = entry
        self._before.pop(entry.place, None)
        if entry.inode is not None:
            self._by_inode[entry.inode] = entry

    def recheck(self, there: Mapping[str, FileStat]) -> None:
        """Treat these as new files until has() recognises them."""
        for place in there.keys() & self.places.keys():
            self._before[place] = self.places.pop(place)

    def has(self, entry: FileEntry, path: str) -> bool:
        """Whether a settled file that is about to be started is a finished one. path: its absolute path.

        Errors: UnavailableError.
        """
        known = (self._by_inode.get(entry.inode or 0), self._before.get(entry.place))
        try:
            same = next((each for each in known if each is not None and _begins_like(path, entry, each)), None)
            if same is None:
                return False
            now = replace(entry, fingerprint=fingerprint_of(path))
        except InputError:  # opening it reports the cause
            return False
        if entry.size_bytes > same.size_bytes:
            seen = FileStat(entry.size_bytes, entry.mtime_ns, entry.inode or 0, 0.0)
            LOG.warning("%s", changed_after(entry.place, same, seen))
            self.grown |= {entry.place}
        elif same.place != entry.place and (count := self._renamed.add()) is not None:
            LOG.warning("%s", _known(same.place, entry.place, count))
        self._before.pop(entry.place, None)
        self.places[entry.place] = now
        return True


def _begins_like(path: str, entry: FileEntry, finished: FileEntry) -> bool:
    if not 0 < finished.size_bytes <= entry.size_bytes or finished.fingerprint is None:
        return False
    return fingerprint_of(path, size_bytes=finished.size_bytes) == finished.fingerprint


def _known(before: str, now: str, count: int) -> str:
    files = "1 file that was read has" if count == 1 else f"{count:,} files that were read have"
    return f"{files} a new name and {'is' if count == 1 else 'are'} not read again: {now} was {before}"
