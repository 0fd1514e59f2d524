"""Durable writes: files and directory entries that survive a power failure once the call returns.

It also classifies disk errors: all writers of files retry the same ones, and report them in the same form.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from sessionize.errors import OutputError, SessionizeError, UnavailableError

# The file system does not support syncing a folder; the sync did not fail.
_CANNOT = {errno.EINVAL, errno.ENOTSUP}
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EAGAIN, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT}


def is_transient(error: OSError) -> bool:
    """Whether a retry may succeed after someone frees space or fixes the disk.

    All other errors (permissions, limits) need a changed setup.
    """
    return error.errno in _PASSING


def disk_error(
    what: str,
    where: object,
    error: OSError,
    *,
    hint: str,
    permanent_hint: str | None = None,
    permanent: type[SessionizeError] = OutputError,
) -> SessionizeError:
    """The error to raise: UnavailableError "<what> now" if a retry may succeed, else `permanent` "<what>".

    what: what failed, as "a file cannot be read". where: usually the path. hint: what to do; permanent_hint: instead of
    it where a retry does not help.
    """
    detail = f"{where}: {error.strerror or error}"
    if is_transient(error):
        return UnavailableError(f"{what} now", detail=detail, hint=hint)
    return permanent(what, detail=detail, hint=hint if permanent_hint is None else permanent_hint)


@contextlib.contextmanager
def disk_errors(what: str, where: object, *, hint: str, permanent_hint: str | None = None) -> Iterator[None]:
    """An OSError in the block leaves as disk_error describes it."""
    try:
        yield
    except OSError as error:
        raise disk_error(what, where, error, hint=hint, permanent_hint=permanent_hint) from error


def sync_file(path: str | Path) -> None:
    """Sync a closed file to the disk. Errors: OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: str | Path) -> None:
    """Make new, renamed and removed names in a folder durable, where the file system supports it.

    Errors: OSError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        return  # a folder can be writable but not readable
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path to write to; it replaces `path`, synced to disk, when the block ends without an error.

    Errors: OSError.
    """
    # Readers of folders skip it: its name starts with a dot and does not end in .parquet.
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        yield unfinished
        sync_file(unfinished)
        unfinished.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
