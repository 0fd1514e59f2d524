"""Files that have grown since they were loaded into tables: to load them in whole would double what is in.

Appended lines change what a file is recognised by, so the part that was loaded is looked at: its fingerprint is noted
with its size. Only loads of files of the same name are compared, and the newest few of them.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from sessionize.connectors.files.fingerprint import fingerprint
from sessionize.connectors.files.source_paths import InputFile
from sessionize.connectors.files.unreadable import file_failure
from sessionize.errors import StateError

if TYPE_CHECKING:
    from sessionize.connectors.iceberg import KnownFile

_COMPARED_MAX = 4  # earlier sizes of one file; each costs at most a fingerprint
_NAMED_MAX = 5
_HEAD_BYTES = 64 << 10


def grown_files(
    files: Iterable[InputFile], prints: Mapping[str, str | None], there: "Sequence[KnownFile]"
) -> "list[tuple[InputFile, KnownFile]]":
    """The files that begin with what an earlier load has read as a whole, each with the newest such load that is in,
    and with all that are not.

    prints: the files' fingerprints by path. there: what was loaded, the newest first. Errors: as fingerprint.
    """
    whole = {each.fingerprint for each in there if each.is_in}
    named: dict[str, list[KnownFile]] = {}
    for each in there:
        named.setdefault(os.path.basename(each.path), []).append(each)
    found = []
    for file in files:
        if file.pipe or prints[file.path] in whole:
            continue
        if file.version is not None:
            found += [(file, each) for each in _earlier_versions(file.version, there)]
            continue
        candidates = [
            each
            for each in named.get(os.path.basename(file.path), ())
            if each.size_bytes is not None and 0 < each.size_bytes < file.size_bytes
        ]
        before = _before(file, candidates)
        newest = next((each for each in before if each.is_in), None)
        found += [(file, each) for each in before if each is newest or not each.is_in]
    return found


def _earlier_versions(version: str, there: "Sequence[KnownFile]") -> "list[KnownFile]":
    """Loads of other versions of the same table, the newest that is in and all that are not: most rows are in both."""
    table = version.partition("@")[0]
    others = [each for each in there if each.fingerprint != version and each.fingerprint.partition("@")[0] == table]
    newest = next((each for each in others if each.is_in), None)
    return [each for each in others if each is newest or not each.is_in]


def _before(file: InputFile, candidates: "list[KnownFile]") -> "list[KnownFile]":
    path = os.path.abspath(file.path)
    candidates.sort(key=lambda each: (not each.is_in, os.path.abspath(each.path) != path))  # the newest stay first
    prints: dict[int, str | None] = {}
    found = []
    for each in candidates:
        size = each.size_bytes or 0
        if size not in prints and len(prints) < _COMPARED_MAX:
            prints[size] = fingerprint(file, size_bytes=size)
        if prints.get(size) == each.fingerprint and _has_records(file, size):
            found.append(each)
    return found


def _has_records(file: InputFile, size_bytes: int) -> bool:
    """Whether there was more in the first so many bytes than blank lines and the header of a table."""
    if size_bytes > _HEAD_BYTES or not file.is_plain_text:
        return True
    try:
        with open(file.path, "rb") as opened:
            lines = opened.read(size_bytes).split(b"\n")
    except OSError as error:
        raise file_failure(file.path, error) from error
    filled = [line for line in lines if line.strip()]
    return len(filled) > (file.format == "csv")


def refuse_grown(grown: "Sequence[tuple[InputFile, KnownFile]]", *, replacing: str) -> None:
    """Refuse files of which a part is in the tables. replacing: how to replace what the tables hold.

    Errors: StateError.
    """
    files = [(file, before) for file, before in grown if before.is_in]
    if not files:
        return

    def said(file: InputFile, before: "KnownFile") -> str:
        size = before.size_bytes or 0
        name = "" if before.path == file.path else f" as {before.path}"
        loaded = f"loaded {before.loaded_at:%Y-%m-%d %H:%M:%S} UTC{name}"
        if file.version is not None:
            return f"another version of {file.path} is in the tables ({loaded}), and has rows of this one"
        more = f"the {file.size_bytes - size:,} bytes after them are not"
        return f"the first {size:,} bytes of {file.path} are in the tables ({loaded}), {more}"

    named = "; ".join(said(file, before) for file, before in files[:_NAMED_MAX])
    more = f"; and {len(files) - _NAMED_MAX:,} more files" if len(files) > _NAMED_MAX else ""
    raise StateError(
        "files have grown since they were loaded"
        if any(file.version is None for file, _ in files)
        else "tables have changed since they were loaded",
        detail=named + more,
        hint="load the new part from its own file instead of the whole file; --again loads all of the files once "
        f"more, {replacing} replaces what the tables hold",
    )
