"""Resolves input paths (files, directories, globs, "-") to a list of files with their formats.

Directories are read with all subfolders, in the order of names, without hidden and temporary files. A file that is
given twice is read once.
"""

import errno
import glob
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sessionize.connectors.local_paths import check_local
from sessionize.errors import InputError

Format = Literal["ndjson", "csv", "tsv", "parquet"]

STDIN = "-"
_DESCRIPTORS = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")  # passed on by a shell, for any kind of file
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
    """path: in the user's form, "-" for stdin. size_bytes: on disk; 0 for a pipe.

    pipe: a stream that can be read once: stdin, a named pipe or a device. Its writer may pause for any time.
    """

    path: str
    format: Format
    gzipped: bool
    size_bytes: int
    pipe: bool = False

    @property
    def is_plain_text(self) -> bool:
        """Whether an empty file is valid: text without a gzip header."""
        return self.format != "parquet" and not self.gzipped


def input_files(paths: Iterable[str | os.PathLike[str]]) -> tuple[list[InputFile], list[str]]:
    """The files to read, and the files in directories that are skipped for their ending.

    Errors: ConfigError for an address; InputError for a path that does not exist, cannot be read, has an unknown
    ending, or yields no file at all.
    """
    files: list[InputFile] = []
    skipped: list[str] = []
    seen: set[str] = set()
    for path in [os.fspath(p) for p in paths]:
        check_local(path, name="the input")
        found, others = _below(path) if os.path.isdir(path) else (list(_named(path)), [])
        skipped += others
        if not found:
            raise _nothing_in(path, others)
        for name in found:
            real = name if name == STDIN else os.path.realpath(name)
            if real not in seen:
                seen.add(real)
                files.append(_described(name))
    if not files:
        raise InputError("there is nothing to read", hint=f"name files, directories or globs; {_ENDINGS}")
    return files, skipped


def format_of(path: str) -> tuple[Format, bool] | None:
    """The format of a path's ending, and whether it is gzipped; None for an unknown ending."""
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
    """The readable files in a directory and all others, sorted by their relative path."""
    found: list[str] = []
    others: list[str] = []
    for folder, folders, names in os.walk(directory, onerror=_unreadable):
        folders[:] = sorted(name for name in folders if not _hidden(name))
        links = [path for name in folders if os.path.islink(path := os.path.join(folder, name))]  # not entered
        root = os.path.realpath(directory)
        others += [path for path in links if not Path(os.path.realpath(path)).is_relative_to(root)]
        for name in sorted(names):
            if not _hidden(name) and not name.lower().endswith(_TEMPORARY):
                path = os.path.join(folder, name)
                # all but files and pipes of a known format are skipped; a broken link is reported
                data = format_of(name) and (os.path.isfile(path) or not os.path.exists(path))
                (found if data else others).append(path)
    parts = {path: Path(path).parts for path in found}
    return sorted(found, key=parts.__getitem__), others


def _hidden(name: str) -> bool:
    """Names that begin with a dot or an underscore are not data: .crc, _SUCCESS, _temporary."""
    return name.startswith((".", "_"))


def _described(path: str) -> InputFile:
    if path == STDIN:
        return InputFile(path, "ndjson", gzipped=False, size_bytes=0, pipe=True)
    mode = _mode(path)
    if _is_pipe(mode) or path.startswith(_DESCRIPTORS):
        return _piped(path)
    if not stat.S_ISREG(mode):
        raise InputError(
            "only files and pipes can be read",
            detail=f"{path} is neither",
            hint="name a file, a folder, or a named pipe",
        )
    kind = format_of(path)
    if kind is None:
        gzipped_parquet = path.lower().endswith(".parquet.gz")
        raise InputError(
            "unknown file name ending",
            detail=f"file {path}",
            hint="Parquet is compressed inside, unpack the file first" if gzipped_parquet else _ENDINGS,
        )
    try:
        with open(path, "rb"):
            size_bytes = os.stat(path).st_size
    except OSError as error:
        _unreadable(error)
    return InputFile(path, kind[0], gzipped=kind[1], size_bytes=size_bytes)


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode
    except OSError as error:
        _unreadable(error)
        raise


def _is_pipe(mode: int) -> bool:
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _piped(path: str) -> InputFile:
    """A pipe with the format of its ending; without one, like /dev/stdin, JSON lines. Not opened, as that may block."""
    if not os.access(path, os.R_OK):
        _unreadable(PermissionError(errno.EACCES, os.strerror(errno.EACCES), path))
    kind = format_of(path) or ("ndjson", False)
    if kind[0] == "parquet":
        raise InputError(
            "Parquet cannot be read from a pipe", detail=path, hint="Parquet is read from its end: write it to a file"
        )
    return InputFile(path, kind[0], gzipped=kind[1], size_bytes=0, pipe=True)


def _unreadable(error: OSError) -> None:
    raise InputError(
        "a file or directory cannot be read",
        detail=f"{error.filename}: {error.strerror}",
        hint="check that it exists and that you may read it",
    ) from error


def _nothing_in(path: str, others: list[str]) -> InputError:
    if os.path.isdir(path):
        there = f"; found only {', '.join(others[:5])}" if others else "; it has at most hidden and temporary files"
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
