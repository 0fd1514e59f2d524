"""Failures of stores and web servers: what another try may mend is UnavailableError, all else InputError."""

import errno

from sessionize.errors import InputError, OutputError, SessionizeError, UnavailableError

_REFUSED = (
    "ACCESS_DENIED",
    "AccessDenied",
    "INVALID_ACCESS_KEY",
    "SIGNATURE_DOES_NOT_MATCH",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "Forbidden",
    "AuthorizationFailure",
    "403",
    "401",
)
_MISSING = ("NO_SUCH_BUCKET", "NoSuchBucket", "NO_SUCH_KEY", "ContainerNotFound", "does not exist")
_CREDENTIALS = "credentials come from the environment or from the files of your storage's own tools: check them"


def read_failure(text: str, error: Exception) -> SessionizeError:
    """The error for an address that cannot be read."""
    said = " ".join(str(error).split())
    if isinstance(error, FileNotFoundError) or any(mark in said for mark in _MISSING):
        return InputError("a file does not exist", detail=f"file {text}", hint="check its name")
    if isinstance(error, PermissionError) or any(mark in said for mark in _REFUSED):
        return InputError("a file may not be read", detail=f"{text}: {said}", hint=_CREDENTIALS)
    return UnavailableError("a file cannot be read now", detail=f"{text}: {said}", hint="check the network; try again")


def write_failure(text: str, error: Exception) -> SessionizeError:
    """The error for an address that cannot be written."""
    said = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError("the output can't be written", detail=f"{text}: {error.strerror}", hint=None)
    if isinstance(error, PermissionError) or any(mark in said for mark in _REFUSED):
        return OutputError("the output may not be written", detail=f"{text}: {said}", hint=_CREDENTIALS)
    if isinstance(error, FileNotFoundError) or any(mark in said for mark in _MISSING):
        return OutputError(
            "the output can't be written", detail=f"{text}: there is no such bucket", hint="make it first"
        )
    return UnavailableError("the output can't be written now", detail=f"{text}: {said}", hint="run again")
