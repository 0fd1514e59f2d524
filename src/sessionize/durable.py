"""What is on the disk when a call returns, also when the power goes at once: files, and the names in folders.

And what it means when the disk refuses: for every writer of files the same errors are worth waiting for.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

# What says that a file system has no such thing as syncing a folder, rather than that it failed.
_CANNOT = {errno.EINVAL, errno.ENOTSUP}
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EAGAIN, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT}


def is_transient(error: OSError) -> bool:
    """Whether the same may succeed when somebody makes room or mends the disk.

    Everything else (permissions, limits) needs another set-up.
    """
    return error.errno in _PASSING


def sync_file(path: str | Path) -> None:
    """Bring a closed file to the disk. Errors: OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: str | Path) -> None:
    """Make new, renamed and removed names in a folder durable; file systems without that are left alone.

    Errors: OSError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        return  # one may write into a folder without the right to list it
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write a file at, which becomes `path`, whole and on the disk, when the block ends well.

    Errors: OSError.
    """
    # Neither a *.parquet nor a name that readers of folders take: they leave out what begins with a dot.
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
