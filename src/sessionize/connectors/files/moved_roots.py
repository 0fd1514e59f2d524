"""Which files of the book are meant where the followed folders are other ones than before.

A folder that is added or removed changes nothing about files that are known. Where none of the folders is known, they
are either the same ones in another place (moved, mounted elsewhere, copied with their times) or others; the files that
lie under the known names tell.
"""

import os

from sessionize.connectors.files.directory_scan import Folder
from sessionize.connectors.files.file_log import Entry, FileLog
from sessionize.errors import StateError

_NAMED_MAX = 3


def settle_root(book: FileLog, folder: Folder) -> None:
    """Let the book go on below the folder's root. Errors: StateError where the same files cannot be told from others;
    UnavailableError; those of Book.
    """
    root, known = book.root, book.entries
    if root in (None, folder.root) or not known:
        book.go_on_below(folder.root)
        return
    assert root is not None
    if any(folder.follows(os.path.normpath(os.path.join(root, each.place))) for each in known):
        book.go_on_below(folder.root)
        return
    same, alike = _same_names(known, folder)
    copied = [each for each in same if _is_there_twice(os.path.join(root, each.place), folder.path(each.place))]
    if alike or copied:
        raise _unclear(root, folder.root, alike or copied)
    book.go_on_below(folder.root, moved=bool(same))


def _is_there_twice(path: str, other: str) -> bool:
    """Whether both are there, and not one by two names."""
    try:
        return not os.path.samefile(path, other)
    except OSError:
        return False


def _same_names(known: list[Entry], folder: Folder) -> tuple[list[Entry], list[Entry]]:
    """Of the files with known names below the present root: those that look as known, and those of the same size."""
    same: list[Entry] = []
    alike: list[Entry] = []
    for each in {entry.place: entry for entry in known}.values():
        seen = folder.seen(each.place) if folder.follows(folder.path(each.place)) else None
        if seen is not None and seen.size_bytes == each.size_bytes:
            (same if seen.is_as(each) else alike).append(each)
    return same, alike


def _unclear(before: str, now: str, files: list[Entry]) -> StateError:
    names = ", ".join(each.place for each in files[:_NAMED_MAX])
    return StateError(
        "the followed folder is another one, and may hold files that were read already",
        detail=f"{before} before, {now} now; of the same name and size: {names}"
        + (f" and {len(files) - _NAMED_MAX:,} more" if len(files) > _NAMED_MAX else ""),
        hint="name the folder as before; add the new one to input.paths where its files are others; or start over with "
        "another run.home or stream.writer, and empty outputs",
    )
