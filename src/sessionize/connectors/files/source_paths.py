"""What the user typed (files, directories, globs, "-") to the list of files to read, each with its format.

Directories are read whole and in the order of their names, without hidden and temporary files. A file that is
named twice is read once.
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
_DESCRIPTORS = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")  # what a shell passes on, whatever is behind it
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
    """path: as the user would write it, "-" for stdin. size_bytes: on disk; 0 for a pipe.

    pipe: bytes that come once, from stdin, a named pipe or a device; whoever writes may take as long as it likes.
    """

    path: str
    format: Format
    gzipped: bool
    size_bytes: int
    pipe: bool = False

    @property
    def is_plain_text(self) -> bool:
        """Whether nothing in it is nothing wrong."""
        return self.format != "parquet" and not self.gzipped


def input_files(paths: Iterable[str | os.PathLike[str]]) -> tuple[list[InputFile], list[str]]:
    """The files to read, and the files of directories that were skipped because of their ending.

    Errors: ConfigError for an address; InputError for a path that does not exist, cannot be read, has an unknown
    ending, or yields no file at all.
    """
    files: list[InputFile] = []
    skipped: list[str] = []
    seen: set[str] = set()
    for path in [os.fspath(p) for p in paths]:
        check_local(path, name="the input")
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
    """The readable files in a directory and what else is in it, sorted by their path below it."""
    found: list[str] = []
    odd: list[str] = []
    for folder, folders, names in os.walk(directory, onerror=_unreadable):
        folders[:] = sorted(name for name in folders if not _hidden(name))
        links = [path for name in folders if os.path.islink(path := os.path.join(folder, name))]  # are not entered
        odd += [path for path in links if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(directory))]
        for name in sorted(names):
            if not _hidden(name) and not name.lower().endswith(_TEMPORARY):
                path = os.path.join(folder, name)
                # what is neither file nor pipe of a known format is passed over; a link to nowhere is told of
                data = format_of(name) and (os.path.isfile(path) or not os.path.exists(path))
                (found if data else odd).append(path)
    parts = {path: Path(path).parts for path in found}
    return sorted(found, key=parts.__getitem__), odd


def _hidden(name: str) -> bool:
    """Names with a dot or an underscore in front are not data: .crc, _SUCCESS, _temporary."""
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


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode
    except OSError as error:
        _unreadable(error)
        raise


def _is_pipe(mode: int) -> bool:
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _piped(path: str) -> InputFile:
    """A pipe by its name's ending; without one, as /dev/stdin, it is JSON lines. It is not opened: that may wait."""
    if not os.access(path, os.R_OK):
        _unreadable(PermissionError(errno.EACCES, os.strerror(errno.EACCES), path))
    kind = format_of(path) or ("ndjson", False)
    if kind[0] == "parquet":
        raise InputError(
            "Parquet cannot be read from a pipe", detail=path, hint="its end is read first: write it to a file"
        )
    return InputFile(path, kind[0], gzipped=kind[1], size_bytes=0, pipe=True)


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
