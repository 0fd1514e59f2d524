"""What the user typed (files, directories, globs, "-") to the list of files to read, each with its format.

Directories are read whole and in the order of their names, without hidden and temporary files. A file that is
named twice is read once.
"""

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sessionize.errors import InputError

Format = Literal["ndjson", "csv", "tsv", "parquet"]

STDIN = "-"
_FORMATS: dict[str, Format] = {
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "ndjson",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
_ENDINGS = "files end in .ndjson, .jsonl, .json, .csv or .tsv (each also with .gz), or in .parquet"
_TEMPORARY = (".tmp", ".temp", ".part", ".partial", ".crdownload", ".swp", "~")


@dataclass(frozen=True, slots=True)
class InputFile:
    """path: as the user would write it, "-" for stdin. size_bytes: on disk; 0 for stdin."""

    path: str
    format: Format
    gzipped: bool
    size_bytes: int


def input_files(paths: Iterable[str | os.PathLike[str]]) -> tuple[list[InputFile], list[str]]:
    """The files to read, and the files of directories that were skipped because of their ending.

    Errors: InputError for a path that does not exist, cannot be read, has an unknown ending, or yields no file at all.
    """
    files: list[InputFile] = []
    skipped: list[str] = []
    seen: set[str] = set()
    for path in [os.fspath(p) for p in paths]:
        found, odd = _below(path) if os.path.isdir(path) else (list(_named(path)), [])
        skipped += odd
        if not found:
            raise _nothing_in(path, odd)
        for name in found:
            real = name if name == STDIN else os.path.realpath(name)
            if real not in seen:
                seen.add(real)
                files.append(_described(name))
    if not files:
        raise InputError("there is nothing to read", hint=f"name files, directories or globs; {_ENDINGS}")
    return files, skipped


def format_of(path: str) -> tuple[Format, bool] | None:
    """The format that a path's ending stands for, and whether it is gzipped; None for an unknown ending."""
    name = path.lower()
    gzipped = name.endswith(".gz")
    kind = _FORMATS.get(os.path.splitext(name.removesuffix(".gz"))[1])
    if kind is None or (gzipped and kind == "parquet"):
        return None
    return kind, gzipped


def _named(path: str) -> Iterator[str]:
    if path == STDIN or os.path.lexists(path):
        yield path
    elif glob.has_magic(path):
        for name in sorted(glob.glob(path, recursive=True)):
            if os.path.isdir(name):
                continue
            yield name


def _below(directory: str) -> tuple[list[str], list[str]]:
    """The readable files in a directory and those with another ending, sorted by their path below it."""
    found: list[str] = []
    odd: list[str] = []
    for folder, folders, names in os.walk(directory, onerror=_unreadable):
        folders[:] = sorted(name for name in folders if not _hidden(name))
        for name in sorted(names):
            if not _hidden(name) and not name.lower().endswith(_TEMPORARY):
                (found if format_of(name) else odd).append(os.path.join(folder, name))
    parts = {path: Path(path).parts for path in found}
    return sorted(found, key=parts.__getitem__), odd


def _hidden(name: str) -> bool:
    """Names with a dot or an underscore in front are not data: .crc, _SUCCESS, _temporary."""
    return name.startswith((".", "_"))


def _described(path: str) -> InputFile:
    if path == STDIN:
        return InputFile(path, "ndjson", gzipped=False, size_bytes=0)
    kind = format_of(path)
    if kind is None:
        gzipped_parquet = path.lower().endswith(".parquet.gz")
        raise InputError(
            "the format of a file is not known from its name",
            detail=f"file {path}",
            hint="Parquet is compressed inside, unpack the file first" if gzipped_parquet else _ENDINGS,
        )
    try:
        with open(path, "rb"):
            size_bytes = os.stat(path).st_size
    except OSError as error:
        _unreadable(error)
    return InputFile(path, kind[0], gzipped=kind[1], size_bytes=size_bytes)


def _unreadable(error: OSError) -> None:
    raise InputError(
        "a file or directory cannot be read",
        detail=f"{error.filename}: {error.strerror}",
        hint="check that it is there and that you may read it",
    ) from error


def _nothing_in(path: str, odd: list[str]) -> InputError:
    if os.path.isdir(path):
        there = f"; found only {', '.join(odd[:5])}" if odd else "; it is empty, or all of it is hidden or temporary"
        return InputError("a directory has no file to read", detail=f"directory {path}{there}", hint=_ENDINGS)
    if glob.has_magic(path):
        return InputError(
            "a pattern matches no file", detail=f"pattern {path!r}", hint="quote it if the shell should not expand it"
        )
    near = _near(path)
    return InputError(
        "a file does not exist", detail=f"file {path}", hint=f"did you mean {near}?" if near else "check its name"
    )


def _near(path: str) -> str | None:
    import difflib

    folder, name = os.path.split(path)
    try:
        names = os.listdir(folder or ".")
    except OSError:
        return None
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
    return os.path.join(folder, near[0]) if near else None
