"""Finished files of a followed folder: known by their names, and by what they are when they appear under another one.

Log rotation renames a finished file and puts a new one in its place. A file with the inode of a finished one that
begins with what was read of it is that one; another file under a known name is new, unless it begins like that too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from sessionize.connectors.files.directory_scan import FileStat, changed_after
from sessionize.connectors.files.file_log import Entry
from sessionize.connectors.files.fingerprint import print_of
from sessionize.connectors.files.notices import LOG, Counted
from sessionize.errors import InputError


class Finished:
    """places: the finished files by their names, also those that they were given later. grown: names under which there
    is now a file that holds more than what was read of it.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.places: dict[str, Entry] = {}
        self.grown: frozenset[str] = frozenset()
        self._by_inode: dict[int, Entry] = {}
        self._before: dict[str, Entry] = {}  # whose name another file may have now
        self._renamed = Counted()
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        """One more is finished."""
        self.places[entry.place] = entry
        self._before.pop(entry.place, None)
        if entry.inode is not None:
            self._by_inode[entry.inode] = entry

    def doubt(self, there: Mapping[str, FileStat]) -> None:
        """Take these for new files until has() says otherwise."""
        for place in there.keys() & self.places.keys():
            self._before[place] = self.places.pop(place)

    def has(self, entry: Entry, path: str) -> bool:
        """Whether a file that has settled, and is about to be taken up, is a finished one. path: where it lies.

        Errors: UnavailableError.
        """
        known = (self._by_inode.get(entry.inode or 0), self._before.get(entry.place))
        try:
            same = next((each for each in known if each is not None and _begins_like(path, entry, each)), None)
            if same is None:
                return False
            now = replace(entry, fingerprint=print_of(path))
        except InputError:  # taking it up says what is the matter
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


def _begins_like(path: str, entry: Entry, finished: Entry) -> bool:
    if not 0 < finished.size_bytes <= entry.size_bytes or finished.fingerprint is None:
        return False
    return print_of(path, size_bytes=finished.size_bytes) == finished.fingerprint


def _known(before: str, now: str, count: int) -> str:
    files = "1 file that was read has" if count == 1 else f"{count:,} files that were read have"
    return f"{files} another name now and {'is' if count == 1 else 'are'} not read again: {now} was {before}"
