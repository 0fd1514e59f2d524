"""Files that can never be read as data: told apart from files that cannot be reached now, and set aside as one record.

A broken file must not hold up those behind it, and must not vanish either: it becomes one rejected record, whose source
is the file and whose detail says what is wrong. Put right, it is read under another name.
"""

from collections.abc import Iterable

import pyarrow as pa

from sessionize.durable import is_transient
from sessionize.errors import InputError, UnavailableError
from sessionize.formats.rejects import Fault, Rejects
from sessionize.formats.validation import DECODED_TYPES
from sessionize.ports import EventBatch

UNREADABLE_FILE = "unreadable_file"


def why_unreadable(path: str, error: InputError) -> str:
    """What is wrong with the file's content, in one line. Errors: the given one or UnavailableError when it cannot even
    be opened, or the machine lacks something, which says nothing about its content.
    """
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno is not None:  # of content, pyarrow raises it without a number
        raise error
    try:
        with open(path, "rb") as file:
            file.read(1)
    except PermissionError:
        raise error from None
    except OSError as unreachable:
        raise UnavailableError("a file cannot be read now", detail=f"{path}: {unreachable.strerror}") from unreachable
    return " ".join(f"{error.message}: {error.detail or ''}".split()).rstrip(": ")


def file_failure(what: str, error: OSError) -> InputError | UnavailableError:
    """The error for a file that the system does not give to us, which says nothing about its content.

    what: the path, and which part of it. UnavailableError when the same may succeed later.
    """
    detail = f"{what}: {error.strerror or error}"
    if is_transient(error):
        return UnavailableError(
            "a file cannot be read now", detail=detail, hint="mend the disk or the network: nothing was lost"
        )
    return InputError(
        "a file cannot be read", detail=detail, hint="check that it is still there and that you may read it"
    )


def set_aside(path: str, why: str, columns: Iterable[str]) -> EventBatch:
    """The one rejected record that stands for the file."""
    return one_rejected(None, Fault(UNREADABLE_FILE, why), path, 1, columns)


def one_rejected(raw: bytes | None, fault: Fault, path: str, line: int, columns: Iterable[str]) -> EventBatch:
    """A batch of nothing but one rejected record."""
    rejects = Rejects()
    rejects.add(raw, source=path, line_number=line, fault=fault)
    return EventBatch(nothing(columns), rejects.take(), 0)


def nothing(columns: Iterable[str]) -> pa.Table:
    """No events, of these columns."""
    return pa.table({name: pa.array([], DECODED_TYPES[name]) for name in sorted(columns)})
