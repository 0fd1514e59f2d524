"""Scans a followed directory: which files exist, and since when each is unchanged.

A scan lists names and stats only files that are not finished. It stats finished files from time to time, to log those
that changed later.
"""

import glob
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sessionize.connectors.files.file_log import FileEntry
from sessionize.connectors.files.notices import LINKED_FOLDER, LOG, NO_FILE, OTHER_ENDING, Counted, skipped_files
from sessionize.connectors.files.opening import named
from sessionize.errors import InputError, UnavailableError

_TEMPORARY = (".tmp", ".temp", ".part", ".partial", ".crdownload", ".swp", "~")
_RECHECK_EVERY_S = 1.0
_RECHECK_SHARE = 50  # rechecks of finished files take at most this fraction (1/n) of the time


@dataclass(frozen=True, slots=True)
class FileStat:
    """A file at a scan. since_s: unchanged since then (time.monotonic). changed: an earlier scan saw it different."""

    size_bytes: int
    mtime_ns: int
    inode: int
    since_s: float
    changed: bool = False

    def matches(self, other: "FileEntry | FileStat") -> bool:
        """Whether size and time are equal: nobody has written to it."""
        return (self.size_bytes, self.mtime_ns) == (other.size_bytes, other.mtime_ns)

    def may_be_other(self, finished: FileEntry) -> bool:
        """Whether it is not the finished file of that name, or that one was empty."""
        return (finished.inode is not None and self.inode != finished.inode) or (
            finished.size_bytes == 0 and self.size_bytes > 0
        )

    def has_settled(self, for_s: float) -> bool:
        """Whether its time is old enough, or it was observed unchanged for that long: the clock of a file server may
        differ from ours, and a file that changes between scans may still carry an old time.
        """
        old = not self.changed and time.time() - self.mtime_ns / 1e9 >= for_s
        return old or time.monotonic() - self.since_s >= for_s


class Folder:
    """Files in directories or matching patterns; a place is a file's path relative to their common root.

    Each file counts once: a link to another followed file is skipped.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        exclude: Sequence[str | os.PathLike[str]] = (),
        any_ending: bool = False,
    ) -> None:
        """exclude: folders whose files are not input. any_ending: also files whose name tells no format.

        Errors: InputError for a directory that does not exist or is in an excluded folder.
        """
        self._any_ending = any_ending
        self._excluded = [os.path.realpath(folder) for folder in exclude]
        patterns = [os.path.abspath(path) for path in paths]
        self._patterns = {pattern: _fixed_part(pattern) for pattern in patterns}
        for folder in self._patterns.values():
            if not os.path.isdir(folder):
                raise InputError(
                    "a directory to follow does not exist",
                    detail=f"directory {folder}",
                    hint="create it, or check its name",
                )
            if self._is_excluded(os.path.realpath(folder)):
                raise InputError(
                    "a followed directory is an output of this pipeline",
                    detail=f"directory {folder}",
                    hint="it would read its own output: follow another directory, or write elsewhere",
                )
        self.root = os.path.commonpath(list(self._patterns.values()))
        self._real_root = os.path.realpath(self.root)
        self._below_root = len(os.path.join(self.root, ""))
        self._scanned: dict[str, FileStat] = {}
        self._links_out: set[str] = set()
        self._unlisted: set[str] = set()  # subfolders that the last scan could not list
        self._linked: list[str] = []  # links to folders, at the last scan
        self._skipped = {why: _Skipped(why) for why in (OTHER_ENDING, NO_FILE, LINKED_FOLDER)}
        self._rechecked_s = -float("inf")
        self._recheck_took_s = 0.0
        self.replaced: frozenset[str] = frozenset()

    def path(self, place: str) -> str:
        """The absolute path of a place."""
        return os.path.normpath(os.path.join(self.root, place))

    def follows(self, path: str) -> bool:
        """Whether a path is in one of the folders, or below the fixed part of a pattern."""
        return any(_is_below(path, folder) for folder in self._patterns.values())

    def scan(self, finished: Mapping[str, FileEntry]) -> dict[str, FileStat]:
        """The data files that are not finished; at a recheck also new files under the names of finished ones.

        Errors: UnavailableError.
        """
        began_s = time.monotonic()
        due_s = max(_RECHECK_EVERY_S, _RECHECK_SHARE * self._recheck_took_s)
        rechecks = bool(finished) and began_s - self._rechecked_s >= due_s
        scanned: dict[str, FileStat] = {}
        replaced: dict[str, FileStat] = {}
        for place in self._places({} if rechecks else finished):
            seen, before = self.seen(place), self._scanned.get(place)
            if seen is None:
                continue
            if place in finished and (seen.matches(finished[place]) or not seen.may_be_other(finished[place])):
                if not seen.matches(finished[place]):
                    replaced[place] = seen
            elif before is None:
                scanned[place] = seen
            else:
                scanned[place] = before if before.matches(seen) else replace(seen, changed=True)
        self._scanned = scanned
        if rechecks:
            for place in replaced.keys() - self.replaced:
                LOG.warning("%s", changed_after(place, finished[place], replaced[place]))
            self.replaced = frozenset(replaced)
            self._rechecked_s, self._recheck_took_s = began_s, time.monotonic() - began_s
        return scanned

    def seen(self, place: str) -> FileStat | None:
        """One file as it is now; None if it does not exist. Errors: UnavailableError."""
        try:
            stat = os.stat(self.path(place))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnavailableError("a file cannot be reached", detail=str(error)) from error
        return FileStat(stat.st_size, stat.st_mtime_ns, stat.st_ino, time.monotonic())

    def _places(self, finished: Mapping[str, FileEntry]) -> Iterator[str]:
        listed: list[tuple[str, str]] = []
        unlisted = set[str]()
        self._linked = []
        for pattern in self._patterns:
            found = self._below(pattern, unlisted) if os.path.isdir(pattern) else glob.glob(pattern, recursive=True)
            listed.extend((pattern, path) for path in found)
        self._unlisted = unlisted
        there = {path for _, path in listed}
        real_folders: dict[str, str] = {}
        skipped: dict[str, list[str]] = {why: [] for why in self._skipped}
        for pattern, path in listed:
            place = path[self._below_root :]
            if place in finished or not self._is_candidate(path, pattern):
                continue
            folder = os.path.dirname(path)
            if folder not in real_folders:
                real_folders[folder] = os.path.realpath(folder)
            if not self._is_known(path) or not os.path.isfile(path):
                if not self._is_excluded(real_folders[folder]):
                    skipped[NO_FILE if self._is_known(path) else OTHER_ENDING].append(path)
            elif not self._is_elsewhere(path, pattern, real_folders[folder], there):
                yield place
        skipped[LINKED_FOLDER] = self._linked
        for why, paths in skipped.items():
            self._skipped[why].note(paths)

    def _below(self, directory: str, unlisted: set[str]) -> Iterator[str]:
        def note(error: OSError) -> None:
            """A folder that cannot be listed does not stop the others."""
            if error.filename == directory:
                raise UnavailableError(
                    "a followed directory cannot be read", detail=f"{error.filename}: {error.strerror}"
                ) from error
            unlisted.add(error.filename)
            if error.filename not in self._unlisted:
                LOG.warning("%s cannot be listed, its files are not read: %s", error.filename, error.strerror)

        for folder, folders, names in os.walk(directory, onerror=note):
            folders[:] = [name for name in folders if not name.startswith((".", "_"))]
            links = [path for name in folders if os.path.islink(path := os.path.join(folder, name))]
            self._linked += [path for path in links if not _is_below(os.path.realpath(path), self._real_root)]
            for name in names:
                yield os.path.join(folder, name)

    def _is_data(self, path: str, pattern: str) -> bool:
        return self._is_known(path) and self._is_candidate(path, pattern)

    def _is_known(self, path: str) -> bool:
        """Whether its name tells its format; a growing file's content may not yet."""
        return self._any_ending or named(path) is not None

    def _is_candidate(self, path: str, pattern: str) -> bool:
        """Whether its name is neither hidden nor that of an unfinished file."""
        if path.lower().endswith(_TEMPORARY):
            return False
        within = pattern if path.startswith(os.path.join(pattern, "")) else self._patterns[pattern]
        inside = path.removeprefix(os.path.join(within, "")).split(os.sep)
        return not any(name.startswith((".", "_")) for name in inside)

    def _is_elsewhere(self, path: str, pattern: str, real_folder: str, there: set[str]) -> bool:
        """Whether it is a link to another followed file, a link out of the folder (whoever can write here must not make
        us read other files), or an output of the pipeline.
        """
        expected = os.path.normpath(os.path.join(self._real_root, os.path.dirname(path)[self._below_root :]))
        if real_folder == expected and not os.path.islink(path):
            return self._is_excluded(real_folder)
        real = os.path.realpath(path)
        if self._is_excluded(real):
            return True
        if _is_below(real, self._real_root):
            own = os.path.join(self.root, os.path.relpath(real, self._real_root))
            if (
                own != path
                and own in there
                and any(self._is_data(own, each) for each, fixed in self._patterns.items() if _is_below(own, fixed))
            ):
                return True
        if path == pattern or _is_below(real, os.path.realpath(self._patterns[pattern])):
            return False
        if path not in self._links_out:
            self._links_out.add(path)
            LOG.warning("%s is a link to a file outside of the followed folder, and is not read", path)
        return True

    def _is_excluded(self, real: str) -> bool:
        return any(_is_below(real, folder) for folder in self._excluded)


def changed_after(place: str, finished: FileEntry, now: FileStat) -> str:
    """The message that a finished file has changed, and how much of it is not read."""
    more = now.size_bytes - finished.size_bytes
    unread = (
        f"the {more:,} bytes after its first {finished.size_bytes:,}" if more > 0 else f"its {now.size_bytes:,} bytes"
    )
    return f"{place} changed after it was read: {unread} are not read; give each file its own name"


def _is_below(path: str, folder: str) -> bool:
    return os.path.commonpath([folder, path]) == folder


def _fixed_part(pattern: str) -> str:
    """The directory above the first name with a wildcard."""
    if not glob.has_magic(pattern):
        return pattern if os.path.isdir(pattern) or not os.path.exists(pattern) else os.path.dirname(pattern)
    parts = Path(pattern).parts
    fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return os.path.join(*parts[:fixed])


class _Skipped:
    """Files skipped for one reason. It knows those of the last scan, so that each is counted once."""

    def __init__(self, why: str) -> None:
        self._why, self._known, self._count = why, frozenset[str](), Counted()

    def note(self, paths: Sequence[str]) -> None:
        """Record the skipped files of a scan, and log new ones."""
        folders = self._why == LINKED_FOLDER
        new = sorted(p for p in set(paths) - self._known if os.path.exists(p) and os.path.isdir(p) == folders)
        self._known = frozenset(paths)
        if new and (count := self._count.add(len(new))) is not None:
            LOG.warning("%s", skipped_files(new, self._why, count=count))
