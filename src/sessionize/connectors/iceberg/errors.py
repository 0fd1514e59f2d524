"""Classifies failures of a catalog, a disk or an object store: retry, or give up.

Every driver error that may leave pyiceberg is one of STORAGE_ERRORS; `storage_failure` converts it to ours. A commit
that lost against another writer is not a storage failure: see commits.py.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from pyiceberg.exceptions import (
    AuthorizationExpiredError,
    BadRequestError,
    ForbiddenError,
    OAuthError,
    RESTError,
    SignError,
    UnauthorizedError,
)
from sqlalchemy.exc import DBAPIError

from sessionize.errors import OutputError, UnavailableError

# requests' errors are OSErrors, and so are those of Arrow's file systems.
STORAGE_ERRORS = (OSError, DBAPIError, RESTError, SignError)

_REFUSALS = (BadRequestError, ForbiddenError, OAuthError, SignError, UnauthorizedError)
# Retrying does not help if a table or column is missing or a password is wrong.
_SQL_REFUSALS = ("authentication failed", "no password supplied", "permission denied", "does not exist", "readonly")
_S3_REFUSALS = ("ACCESS_DENIED", "AccessDenied", "INVALID_ACCESS_KEY", "SIGNATURE_DOES_NOT_MATCH", "NO_SUCH_BUCKET")


@contextmanager
def map_errors(what: str, where: str) -> Iterator[None]:
    """Convert every driver error in this block with storage_failure."""
    try:
        yield
    except STORAGE_ERRORS as error:
        raise storage_failure(what, where, error) from error


def storage_failure(what: str, where: str, error: Exception | None) -> OutputError | UnavailableError:
    """The error to raise: what failed, where, and what to do. UnavailableError if a retry may help."""
    text = str(error.orig if isinstance(error, DBAPIError) else error).strip()
    kind, hint = _meaning(error, text)
    return kind(what, detail=f"{where}: {text}", hint=hint)


def _meaning(error: Exception | None, text: str) -> tuple[type[OutputError] | type[UnavailableError], str]:
    code = error.errno if isinstance(error, OSError) else None
    if code in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG} or "disk is full" in text or "No space left" in text:
        return UnavailableError, "the disk is full: free space and run again"
    if isinstance(error, PermissionError) or "readonly" in text or "unable to open database" in text:
        return OutputError, "no permission to write there: change the permissions, or choose another --home"
    if "locked" in text:
        return UnavailableError, "another process locks the catalog; wait until it is done"
    if isinstance(error, AuthorizationExpiredError):
        return UnavailableError, "the catalog's token has expired; the next try requests a new one"
    if isinstance(error, _REFUSALS) or any(mark in text for mark in (*_SQL_REFUSALS, *_S3_REFUSALS)):
        return OutputError, "the server refuses access: check the address, the credentials and their permissions"
    if isinstance(error, DBAPIError):
        waiting = error.connection_invalidated or type(error.orig).__name__ in {"OperationalError", "InterfaceError"}
        kind = UnavailableError if waiting else OutputError
        return kind, "check the catalog's database"
    if isinstance(error, RESTError):
        return UnavailableError, "check the catalog server"
    if isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError, FileExistsError)):
        return OutputError, "check the disk and its permissions"
    if isinstance(error, pa.ArrowException) and not isinstance(error, OSError):
        return OutputError, "check the rows and their types"
    return UnavailableError, "check the disk, the object store and the network"
