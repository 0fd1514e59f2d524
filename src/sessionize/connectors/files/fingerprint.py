"""Fingerprints of files: equal for equal content, independent of name, folder and time.

A file up to 8 MB is hashed as a whole; of a larger one its size, both ends and 64 parts between. Gzipping or
reordering the same rows gives another fingerprint.
"""

import hashlib
import os
from collections.abc import Iterable

from sessionize.connectors.files.places import open_bytes
from sessionize.connectors.files.source_paths import InputFile
from sessionize.connectors.files.unreadable import file_failure
from sessionize.connectors.local_paths import is_address

_WHOLE_BYTES_MAX = 8 << 20
_EDGE_BYTES = 1 << 20
_SAMPLES = 64
_SAMPLE_BYTES = 64 << 10


def fingerprint(file: InputFile, *, size_bytes: int | None = None) -> str | None:
    """32 hexadecimal digits; a table's version; None for a pipe, which can be read only once.

    size_bytes: hash only the first bytes, as if the file ended there. If that equals the fingerprint it had at that
    size, the file has only grown. Errors: InputError, UnavailableError.
    """
    if file.version is not None:
        return file.version
    if is_address(file.path):
        return _of_address(file, size_bytes)
    return None if file.pipe else fingerprint_of(file.path, size_bytes=size_bytes)


def _of_address(file: InputFile, size_bytes: int | None) -> str | None:
    """As of the same bytes in a local file; None where a web server does not answer ranges."""
    size = file.size_bytes if size_bytes is None else size_bytes
    digest = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=16)
    with open_bytes(file.path, random=True) as opened:
        if not opened.seekable():
            return None
        for start, length in _parts(size):
            opened.seek(start)
            digest.update(opened.read(length))
    return digest.hexdigest()


def fingerprint_of(path: str, *, size_bytes: int | None = None) -> str:
    """As fingerprint, for any path."""
    try:
        with open(path, "rb", buffering=0) as opened:
            size = os.fstat(opened.fileno()).st_size if size_bytes is None else size_bytes
            digest = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=16)
            for start, length in _parts(size):
                while length:  # a read may return fewer bytes
                    data = os.pread(opened.fileno(), length, start)
                    if not data:
                        break
                    digest.update(data)
                    start += len(data)
                    length -= len(data)
    except OSError as error:
        raise file_failure(path, error) from error
    return digest.hexdigest()


def same_content(files: Iterable[InputFile]) -> list[tuple[InputFile, InputFile]]:
    """Files with the content of an earlier file, each with that one. Only files of equal size are read.

    Errors: as fingerprint.
    """
    sized: dict[int, list[InputFile]] = {}
    for file in files:
        if file.size_bytes and not file.pipe and file.version is None:
            sized.setdefault(file.size_bytes, []).append(file)
    found = []
    for same in sized.values():
        first: dict[str | None, InputFile] = {}
        for file in same if len(same) > 1 else ():
            known = first.setdefault(fingerprint(file), file)
            if known is not file:
                found.append((file, known))
    return found


def _parts(size: int) -> list[tuple[int, int]]:
    """The parts to hash: (offset, length)."""
    if size <= _WHOLE_BYTES_MAX:
        return [(0, size)]
    between = size - 2 * _EDGE_BYTES - _SAMPLE_BYTES
    samples = [(_EDGE_BYTES + between * i // (_SAMPLES - 1), _SAMPLE_BYTES) for i in range(_SAMPLES)]
    return [(0, _EDGE_BYTES), *samples, (size - _EDGE_BYTES, _EDGE_BYTES)]
