"""Distinguishes files with invalid content from files that cannot be reached now, and rejects the former.

An invalid file must neither block later files nor disappear: it becomes one rejected record with the file as source
and the cause as detail. Once repaired, it is read under another name.
"""

from collections.abc import Iterable

import pyarrow as pa

from sessionize.durable import disk_error
from sessionize.errors import InputError, SessionizeError, UnavailableError
from sessionize.formats.dialects import Dialect
from sessionize.formats.further_fields import FIELD_TYPES
from sessionize.formats.rejects import Fault, Rejects
from sessionize.formats.validation import DECODED_TYPES
from sessionize.ports import EventBatch

UNREADABLE_FILE = "unreadable_file"


def why_unreadable(path: str, error: InputError) -> str:
    """Why the file's content is invalid, in one line. Errors: the given one or UnavailableError if the cause is not
    the content: the file cannot be opened or the machine lacks resources.
    """
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno is not None:  # pyarrow raises OSError without errno for content
        raise error
    try:
        with open(path, "rb") as file:
            file.read(1)
    except PermissionError:
        raise error from None
    except OSError as unreachable:
        raise UnavailableError("a file cannot be read now", detail=f"{path}: {unreachable.strerror}") from unreachable
    return " ".join(f"{error.message}: {error.detail or ''}".split()).rstrip(": ")


def file_failure(what: str, error: OSError) -> SessionizeError:
    """The error for a file that the system cannot read, whatever its content.

    what: the path, and the part of it. UnavailableError if a retry may succeed.
    """
    return disk_error(
        "a file cannot be read",
        what,
        error,
        hint="fix the disk or the network: nothing was lost",
        permanent_hint="check that it still exists and that you may read it",
        permanent=InputError,
    )


def rejected_file(path: str, why: str, columns: Iterable[str], dialect: Dialect) -> EventBatch:
    """The rejected record for a whole file."""
    return one_rejected(None, Fault(UNREADABLE_FILE, why), path, 1, nothing(columns, dialect))


def one_rejected(raw: bytes | None, fault: Fault, path: str, line: int, events: pa.Table) -> EventBatch:
    """A batch with only one rejected record. events: an empty table."""
    rejects = Rejects()
    rejects.add(raw, source=path, line_number=line, fault=fault)
    return EventBatch(events, rejects.take(), 0)


def nothing(columns: Iterable[str], dialect: Dialect) -> pa.Table:
    """An empty table of events with these columns of the dialect."""
    types = DECODED_TYPES | {name: FIELD_TYPES[kind] for name, kind in dialect.field_types.items()}
    return pa.table({name: pa.array([], types[name]) for name in sorted(columns)})
