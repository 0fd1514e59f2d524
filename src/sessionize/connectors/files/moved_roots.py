"""Maps the files of the log when the followed folders have changed.

Adding or removing a folder does not affect known files. If none of the folders is known, they are either the same
ones at another path (moved, mounted elsewhere, copied with their times) or other ones; the files under the known names
decide.
"""

import os

from sessionize.connectors.files.directory_scan import Folder
from sessionize.connectors.files.file_log import FileEntry, FileLog
from sessionize.errors import StateError

_NAMED_MAX = 3


def settle_root(log: FileLog, folder: Folder) -> None:
    """Continue the log below the folder's root. Errors: StateError if it is unclear whether the files are the same;
    UnavailableError; those of FileLog.
    """
    root, known = log.root, log.entries
    if root in (None, folder.root) or not known:
        log.set_root(folder.root)
        return
    assert root is not None
    if any(folder.follows(os.path.normpath(os.path.join(root, each.place))) for each in known):
        log.set_root(folder.root)
        return
    same, alike = _same_names(known, folder)
    copied = [each for each in same if _is_there_twice(os.path.join(root, each.place), folder.path(each.place))]
    if alike or copied:
        raise _unclear(root, folder.root, alike or copied)
    log.set_root(folder.root, moved=bool(same))


def _is_there_twice(path: str, other: str) -> bool:
    """Whether both paths exist and are different files."""
    try:
        return not os.path.samefile(path, other)
    except OSError:
        return False


def _same_names(known: list[FileEntry], folder: Folder) -> tuple[list[FileEntry], list[FileEntry]]:
    """The files with known names below the current root: those with equal size and time, and those of equal size."""
    same: list[FileEntry] = []
    alike: list[FileEntry] = []
    for each in {entry.place: entry for entry in known}.values():
        seen = folder.seen(each.place) if folder.follows(folder.path(each.place)) else None
        if seen is not None and seen.size_bytes == each.size_bytes:
            (same if seen.matches(each) else alike).append(each)
    return same, alike


def _unclear(before: str, now: str, files: list[FileEntry]) -> StateError:
    names = ", ".join(each.place for each in files[:_NAMED_MAX])
    return StateError(
        "the followed folder is another one, and may hold files that were already read",
        detail=f"{before} before, {now} now; of the same name and size: {names}"
        + (f" and {len(files) - _NAMED_MAX:,} more" if len(files) > _NAMED_MAX else ""),
        hint="name the folder as before; add the new one to input.paths if its files are new; or start over with "
        "another run.home or stream.writer, and empty outputs",
    )
