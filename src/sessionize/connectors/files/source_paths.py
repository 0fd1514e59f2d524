"""Resolves input paths (files, directories, globs, "-") to a list of files with their formats.

Directories are read with all subfolders, in the order of names, without hidden and temporary files. A file that is
given twice is read once.
"""

import errno
import glob
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from sessionize.connectors.files.opening import KNOWN_ENDINGS, Named, named, probe, unknown_content
from sessionize.connectors.files.partition_keys import partition_keys
from sessionize.connectors.files.places import open_bytes
from sessionize.connectors.local_paths import is_address
from sessionize.errors import InputError
from sessionize.formats.content.compressed import Compression
from sessionize.formats.content.sniffing import HEAD_BYTES, Sniffed
from sessionize.formats.input_format import AUTO, BINARY, InputFormat
from sessionize.formats.lines import Readable

STDIN = "-"
_DELTA_LOG = "_delta_log"
_DESCRIPTORS = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")  # passed on by a shell, for any kind of file
_TEMPORARY = (".tmp", ".temp", ".part", ".partial", ".crdownload", ".swp", "~")
_QUICK_LOOK_BYTES = 1 << 12  # enough where the name tells the format


@dataclass(frozen=True, slots=True)
class InputFile:
    """path: in the user's form, "-" for stdin. size_bytes: on disk; 0 for a pipe.

    format: by content; of a pipe and of what is compressed, by name, or auto. delimiter: of CSV, where it is known.
    is_utf8: as far as its beginning tells. pipe: a stream that can be read once: stdin, a named pipe or a device. Its
    writer may pause for any time. guessed: its name says nothing. in_folder: found in a folder, not named by the
    user. keys: of Hive partitions. version: of a table, which is no file (app/inputs.py): equal for equal rows.
    """

    path: str
    format: str
    compression: Compression | None = None
    size_bytes: int = 0
    pipe: bool = False
    is_utf8: bool = True
    guessed: bool = False
    in_folder: bool = False
    keys: tuple[tuple[str, str | None], ...] = ()
    version: str | None = None

    @property
    def is_plain_text(self) -> bool:
        """Whether an empty file is valid: text that is not compressed."""
        return self.format not in BINARY and self.compression is None


def input_files(
    paths: Iterable[str | os.PathLike[str]], input_format: InputFormat = AUTO
) -> tuple[list[InputFile], list[str]]:
    """The files to read, and the files in directories that are skipped, as neither name nor content is known.

    Errors: ConfigError for an address; InputError for a path that does not exist, cannot be read, is of an unknown
    format, or yields no file at all.
    """
    files: list[InputFile] = []
    skipped: list[str] = []
    seen: set[str] = set()
    for path in [os.fspath(p) for p in paths]:
        if is_address(path):
            there, unknown = _remote(path)
            skipped += unknown
            files += [
                replace(_described_remote(each, size, input_format), in_folder=each != path)
                for each, size in there
                if each not in seen
            ]
            seen.update(each for each, _ in there)
            continue
        is_folder = os.path.isdir(path)
        found, others = _below(path, input_format) if is_folder else (list(_named(path)), [])
        skipped += others
        if not found:
            raise _nothing_in(path, others)
        for name in found:
            real = name if name == STDIN else os.path.realpath(name)
            if real not in seen:
                seen.add(real)
                files.append(replace(_described(name, input_format), in_folder=is_folder))
    if not files:
        raise InputError("there is nothing to read", hint=f"name files, directories or globs; {KNOWN_ENDINGS}")
    return files, skipped


def _remote(text: str) -> tuple[list[tuple[str, int | None]], list[str]]:
    from sessionize.connectors.files.remote_paths import remote_files  # loads Arrow's file systems

    found, others = remote_files(text)
    return [(each.address.text, each.size_bytes) for each in found], others


def _described_remote(path: str, size_bytes: int | None, input_format: InputFormat) -> InputFile:
    with open_bytes(path) as file:
        return _probed(path, file, size_bytes or 0, input_format)


def _named(path: str) -> Iterator[str]:
    if path == STDIN or os.path.lexists(path):
        yield path
    elif glob.has_magic(path):
        for name in sorted(glob.glob(path, recursive=True)):
            if os.path.isdir(name):
                continue
            yield name


def _below(directory: str, input_format: InputFormat) -> tuple[list[str], list[str]]:
    """The readable files in a directory and all others, sorted by their relative path."""
    found: list[str] = []
    others: list[str] = []
    for folder, folders, names in os.walk(directory, onerror=_unreadable):
        if _DELTA_LOG in folders:  # its files have deleted rows, too
            raise InputError(
                "a folder has a Delta table in it", detail=f"folder {folder}", hint=f"name it: delta:{folder}"
            )
        folders[:] = sorted(name for name in folders if not _hidden(name))
        links = [path for name in folders if os.path.islink(path := os.path.join(folder, name))]  # not entered
        root = os.path.realpath(directory)
        others += [path for path in links if not Path(os.path.realpath(path)).is_relative_to(root)]
        for name in sorted(names):
            if not _hidden(name) and not name.lower().endswith(_TEMPORARY):
                path = os.path.join(folder, name)
                (found if _is_data(path, input_format) else others).append(path)
    parts = {path: Path(path).parts for path in found}
    return sorted(found, key=parts.__getitem__), others


def _is_data(path: str, input_format: InputFormat) -> bool:
    """Whether it is a file of a known name, or of a known content; a broken link of such a name is reported later."""
    if not os.path.isfile(path):
        return named(path) is not None and not os.path.exists(path)
    if named(path) is not None or input_format.format != "auto":
        return True
    try:
        with open(path, "rb", buffering=0) as file:
            found = probe(file, input_format, None).sniffed
    except OSError:
        return False
    return found is not None and found.certain


def _hidden(name: str) -> bool:
    """Names that begin with a dot or an underscore are not data: .crc, _SUCCESS, _temporary."""
    return name.startswith((".", "_"))


def _described(path: str, input_format: InputFormat) -> InputFile:
    if path == STDIN:
        return InputFile(path, "auto", pipe=True)
    mode = _mode(path)
    if _is_pipe(mode) or path.startswith(_DESCRIPTORS):
        return _piped(path)
    if not stat.S_ISREG(mode):
        raise InputError(
            "only files and pipes can be read",
            detail=f"{path} is neither",
            hint="name a file, a folder, or a named pipe",
        )
    try:
        with open(path, "rb", buffering=0) as file:
            return _probed(path, file, os.stat(path).st_size, input_format)
    except OSError as error:
        _unreadable(error)
        raise


def _probed(path: str, file: Readable, size_bytes: int, input_format: InputFormat) -> InputFile:
    name = named(path)
    is_plain = name is not None and name.compression is None
    found = probe(file, input_format, name, size=_QUICK_LOOK_BYTES if is_plain else HEAD_BYTES)
    sniffed, compression = found.sniffed, found.compression
    if (
        compression is not None
        and (name is None or sniffed is not None)
        and (sniffed is None or sniffed.format in BINARY)
        and compression != "zip"
    ):
        raise unknown_content(path, sniffed, is_compressed=True)
    if sniffed is None and compression is None and (name is None or name.format == "auto"):
        raise unknown_content(path, None, is_compressed=False)
    if compression is None and name is not None and not (sniffed is not None and sniffed.certain):
        compression = name.compression  # reading it tells that it is not compressed
    keys = tuple(partition_keys(path).items())
    return InputFile(
        path,
        sniffed.format if sniffed is not None else name.format if name is not None else "auto",
        compression,
        size_bytes,
        is_utf8=sniffed is None or sniffed.encoding is None,
        guessed=name is None,
        keys=keys,
    )


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode
    except OSError as error:
        _unreadable(error)
        raise


def _is_pipe(mode: int) -> bool:
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _piped(path: str) -> InputFile:
    """A pipe with the format of its ending; without one, it is found later. Not opened, as that may block."""
    if not os.access(path, os.R_OK):
        _unreadable(PermissionError(errno.EACCES, os.strerror(errno.EACCES), path))
    name = named(path) or Named("auto", None)
    if name.format in BINARY:
        raise unknown_content(path, Sniffed(name.format), is_compressed=False, pipe=True)  # type: ignore[arg-type]
    return InputFile(path, name.format, name.compression, pipe=True)


def _unreadable(error: OSError) -> None:
    raise InputError(
        "a file or directory cannot be read",
        detail=f"{error.filename}: {error.strerror}",
        hint="check that it exists and that you may read it",
    ) from error


def _nothing_in(path: str, others: list[str]) -> InputError:
    if os.path.isdir(path):
        there = f"; found only {', '.join(others[:5])}" if others else "; it has at most hidden and temporary files"
        return InputError("a directory has no file to read", detail=f"directory {path}{there}", hint=KNOWN_ENDINGS)
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
