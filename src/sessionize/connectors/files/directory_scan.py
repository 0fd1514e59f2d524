"""What a followed directory looks like: which files are there, and for how long they have looked as they do now.

A look lists names, and asks for size and time only of files that are not finished; finished ones are looked at now and
then, to tell of those that changed afterwards.
"""

import glob
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sessionize.connectors.files.file_log import Entry
from sessionize.connectors.files.notices import LINKED_FOLDER, LOG, NO_FILE, OTHER_ENDING, Counted, passed_over
from sessionize.connectors.files.source_paths import format_of
from sessionize.errors import InputError, UnavailableError

_TEMPORARY = (".tmp", ".temp", ".part", ".partial", ".crdownload", ".swp", "~")
_RECHECK_EVERY_S = 1.0
_RECHECK_SHARE = 50  # looking at what is finished takes at most one part in so many of the time


@dataclass(frozen=True, slots=True)
class FileStat:
    """A file at a look, and since when (time.monotonic) it looks like that; changed: it once looked different."""

    size_bytes: int
    mtime_ns: int
    inode: int
    since_s: float
    changed: bool = False

    def is_as(self, other: "Entry | FileStat") -> bool:
        """Whether nobody has written to it."""
        return (self.size_bytes, self.mtime_ns) == (other.size_bytes, other.mtime_ns)

    def may_be_other(self, finished: Entry) -> bool:
        """Whether it is another file than the finished one of its name, or nothing was in that one."""
        return (finished.inode is not None and self.inode != finished.inode) or (
            finished.size_bytes == 0 and self.size_bytes > 0
        )

    def has_settled(self, for_s: float) -> bool:
        """Whether it is old enough, or was watched for long enough: clocks of file servers may differ from ours, and
        a file that changed under our eyes may well carry an old time.
        """
        old = not self.changed and time.time() - self.mtime_ns / 1e9 >= for_s
        return old or time.monotonic() - self.since_s >= for_s


class Folder:
    """Files below directories, or that fit patterns; a place is a path relative to their common root.

    A file is there once: a link to one that is followed anyway is passed over.
    """

    def __init__(
        self, paths: Sequence[str | os.PathLike[str]], *, exclude: Sequence[str | os.PathLike[str]] = ()
    ) -> None:
        """exclude: folders whose files are no input, wherever they lie.

        Errors: InputError for a directory that does not exist, or lies in one of those.
        """
        self._apart = [os.path.realpath(folder) for folder in exclude]
        patterns = [os.path.abspath(path) for path in paths]
        self._patterns = {pattern: _fixed_part(pattern) for pattern in patterns}
        for folder in self._patterns.values():
            if not os.path.isdir(folder):
                raise InputError(
                    "a directory to follow does not exist",
                    detail=f"directory {folder}",
                    hint="make it, or check its name",
                )
            if self._is_apart(os.path.realpath(folder)):
                raise InputError(
                    "a directory to follow is one that this pipeline writes to",
                    detail=f"directory {folder}",
                    hint="what it writes would come in again: follow another one, or write elsewhere",
                )
        self.root = os.path.commonpath(list(self._patterns.values()))
        self._real_root = os.path.realpath(self.root)
        self._below_root = len(os.path.join(self.root, ""))
        self._looks: dict[str, FileStat] = {}
        self._links_out: set[str] = set()
        self._unlisted: set[str] = set()  # folders below that could not be listed at the last look
        self._linked: list[str] = []  # links to folders, at the last look
        self._odd = {why: _Odd(why) for why in (OTHER_ENDING, NO_FILE, LINKED_FOLDER)}
        self._rechecked_s = -float("inf")
        self._recheck_took_s = 0.0
        self.replaced: frozenset[str] = frozenset()

    def path(self, place: str) -> str:
        """Where it is."""
        return os.path.normpath(os.path.join(self.root, place))

    def follows(self, path: str) -> bool:
        """Whether it lies in one of the folders, or below the fixed part of one of the patterns."""
        return any(_is_below(path, folder) for folder in self._patterns.values())

    def look(self, finished: Mapping[str, Entry]) -> dict[str, FileStat]:
        """The files that are data and not finished, as they are now, and now and then those that may be other files
        than the finished ones of their names. Errors: UnavailableError.
        """
        began_s = time.monotonic()
        due_s = max(_RECHECK_EVERY_S, _RECHECK_SHARE * self._recheck_took_s)
        rechecks = bool(finished) and began_s - self._rechecked_s >= due_s
        looks: dict[str, FileStat] = {}
        replaced: dict[str, FileStat] = {}
        for place in self._places({} if rechecks else finished):
            seen, before = self.seen(place), self._looks.get(place)
            if seen is None:
                continue
            if place in finished and (seen.is_as(finished[place]) or not seen.may_be_other(finished[place])):
                if not seen.is_as(finished[place]):
                    replaced[place] = seen
            elif before is None:
                looks[place] = seen
            else:
                looks[place] = before if before.is_as(seen) else replace(seen, changed=True)
        self._looks = looks
        if rechecks:
            for place in replaced.keys() - self.replaced:
                LOG.warning("%s", changed_after(place, finished[place], replaced[place]))
            self.replaced = frozenset(replaced)
            self._rechecked_s, self._recheck_took_s = began_s, time.monotonic() - began_s
        return looks

    def seen(self, place: str) -> FileStat | None:
        """One file as it is now; None when it is gone. Errors: UnavailableError."""
        try:
            stat = os.stat(self.path(place))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnavailableError("a file cannot be reached", detail=str(error)) from error
        return FileStat(stat.st_size, stat.st_mtime_ns, stat.st_ino, time.monotonic())

    def _places(self, finished: Mapping[str, Entry]) -> Iterator[str]:
        listed: list[tuple[str, str]] = []
        unlisted = set[str]()
        self._linked = []
        for pattern in self._patterns:
            found = self._below(pattern, unlisted) if os.path.isdir(pattern) else glob.glob(pattern, recursive=True)
            listed.extend((pattern, path) for path in found)
        self._unlisted = unlisted
        there = {path for _, path in listed}
        real_folders: dict[str, str] = {}
        odd: dict[str, list[str]] = {why: [] for why in self._odd}
        for pattern, path in listed:
            place = path[self._below_root :]
            if place in finished or not self._is_meant(path, pattern):
                continue
            folder = os.path.dirname(path)
            if folder not in real_folders:
                real_folders[folder] = os.path.realpath(folder)
            if format_of(path) is None or not os.path.isfile(path):
                if not self._is_apart(real_folders[folder]):
                    odd[OTHER_ENDING if format_of(path) is None else NO_FILE].append(path)
            elif not self._is_elsewhere(path, pattern, real_folders[folder], there):
                yield place
        odd[LINKED_FOLDER] = self._linked
        for why, paths in odd.items():
            self._odd[why].note(paths)

    def _below(self, directory: str, unlisted: set[str]) -> Iterator[str]:
        def note(error: OSError) -> None:
            """One folder that cannot be listed does not take the others along."""
            if error.filename == directory:
                raise UnavailableError(
                    "a followed directory cannot be read", detail=f"{error.filename}: {error.strerror}"
                ) from error
            unlisted.add(error.filename)
            if error.filename not in self._unlisted:
                LOG.warning("%s cannot be listed, and nothing in it is read: %s", error.filename, error.strerror)

        for folder, folders, names in os.walk(directory, onerror=note):
            folders[:] = [name for name in folders if not name.startswith((".", "_"))]
            links = [path for name in folders if os.path.islink(path := os.path.join(folder, name))]
            self._linked += [path for path in links if not _is_below(os.path.realpath(path), self._real_root)]
            for name in names:
                yield os.path.join(folder, name)

    def _is_called_like_data(self, path: str, pattern: str) -> bool:
        return format_of(path) is not None and self._is_meant(path, pattern)

    def _is_meant(self, path: str, pattern: str) -> bool:
        """Whether it is not hidden, and not called as one that is still written."""
        if path.lower().endswith(_TEMPORARY):
            return False
        within = pattern if path.startswith(os.path.join(pattern, "")) else self._patterns[pattern]
        inside = path.removeprefix(os.path.join(within, "")).split(os.sep)
        return not any(name.startswith((".", "_")) for name in inside)

    def _is_elsewhere(self, path: str, pattern: str, real_folder: str, there: set[str]) -> bool:
        """Whether it is no file of its own here: a link to one that is followed anyway, one to somewhere else (who may
        write here must not thereby read what we may read), or what the pipeline itself writes.
        """
        straight = os.path.normpath(os.path.join(self._real_root, os.path.dirname(path)[self._below_root :]))
        if real_folder == straight and not os.path.islink(path):
            return self._is_apart(real_folder)
        real = os.path.realpath(path)
        if self._is_apart(real):
            return True
        if _is_below(real, self._real_root):
            own = os.path.join(self.root, os.path.relpath(real, self._real_root))
            if (
                own != path
                and own in there
                and any(
                    self._is_called_like_data(own, each)
                    for each, fixed in self._patterns.items()
                    if _is_below(own, fixed)
                )
            ):
                return True
        if path == pattern or _is_below(real, os.path.realpath(self._patterns[pattern])):
            return False
        if path not in self._links_out:
            self._links_out.add(path)
            LOG.warning("%s leads by a link to a file outside of the followed folder, and is not read", path)
        return True

    def _is_apart(self, real: str) -> bool:
        return any(_is_below(real, folder) for folder in self._apart)


def changed_after(place: str, finished: Entry, now: FileStat) -> str:
    """That a finished file has changed, and how much of it is not read."""
    more = now.size_bytes - finished.size_bytes
    unread = (
        f"the {more:,} bytes after its first {finished.size_bytes:,}" if more > 0 else f"its {now.size_bytes:,} bytes"
    )
    return f"{place} changed after it was read: {unread} are not read; give each file a name of its own"


def _is_below(path: str, folder: str) -> bool:
    return os.path.commonpath([folder, path]) == folder


def _fixed_part(pattern: str) -> str:
    """The directory above the first name with a wildcard."""
    if not glob.has_magic(pattern):
        return pattern if os.path.isdir(pattern) or not os.path.exists(pattern) else os.path.dirname(pattern)
    parts = Path(pattern).parts
    fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return os.path.join(*parts[:fixed])


class _Odd:
    """Files that are passed over for the same reason: those of the last look, so that each is counted once."""

    def __init__(self, why: str) -> None:
        self._why, self._known, self._told = why, frozenset[str](), Counted()

    def note(self, paths: Sequence[str]) -> None:
        """What is there now."""
        folders = self._why == LINKED_FOLDER
        new = sorted(p for p in set(paths) - self._known if os.path.exists(p) and os.path.isdir(p) == folders)
        self._known = frozenset(paths)
        if new and (count := self._told.add(len(new))) is not None:
            LOG.warning("%s", passed_over(new, self._why, count=count))
