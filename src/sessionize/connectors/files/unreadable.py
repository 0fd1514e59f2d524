"""Files that can never be read as data: told apart from files that cannot be reached now, and set aside as one record.

A broken file must not hold up those behind it, and must not vanish either: it becomes one rejected record, whose source
is the file and whose detail says what is wrong. Put right, it is read under another name.
"""

import errno
from collections.abc import Iterable

import pyarrow as pa

from sessionize.errors import InputError, UnavailableError
from sessionize.formats.faults import Fault, Rejects
from sessionize.formats.judging import DECODED_TYPES
from sessionize.ports import EventBatch

UNREADABLE_FILE = "unreadable_file"
# What a disk says to a place in the file that damage has made up.
_OF_CONTENT = (errno.EINVAL, errno.EFBIG, errno.EOVERFLOW)


def why_unreadable(path: str, error: InputError) -> str:
    """What is wrong with the file's content, in one line. Errors: the given one or UnavailableError when it cannot even
    be opened, which says nothing about its content.
    """
    try:
        with open(path, "rb") as file:
            file.read(1)
    except PermissionError:
        raise error from None
    except OSError as unreachable:
        raise UnavailableError("a file cannot be read now", detail=f"{path}: {unreachable.strerror}") from unreachable
    return " ".join(f"{error.message}: {error.detail or ''}".split()).rstrip(": ")


def of_the_machine(error: BaseException | None) -> bool:
    """Whether it is an error of the disk or the machine, and the file's content may be as it should be."""
    return isinstance(error, OSError) and error.errno is not None and error.errno not in _OF_CONTENT


def raise_if_unreachable(error: InputError) -> None:
    """Errors: UnavailableError when it is worth another try; where rights are missing, somebody has to act first."""
    cause = error.__cause__
    if of_the_machine(cause) and not isinstance(cause, PermissionError):
        raise UnavailableError("a file cannot be read now", detail=error.detail) from cause


def set_aside(path: str, why: str, columns: Iterable[str]) -> EventBatch:
    """The one rejected record that stands for the file."""
    rejects = Rejects()
    rejects.add(None, source=path, line_number=1, fault=Fault(UNREADABLE_FILE, why))
    return EventBatch(nothing(columns), rejects.take(), 0)


def nothing(columns: Iterable[str]) -> pa.Table:
    """No events, of these columns."""
    return pa.table({name: pa.array([], DECODED_TYPES[name]) for name in sorted(columns)})
