"""What an optional part needs to be installed is said when it is asked for, in one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

from sessionize.errors import MissingExtraError


@contextmanager
def needing(extra: str, purpose: str) -> Iterator[None]:
    """An optional package that is not installed is a MissingExtraError."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("sessionize"):
            raise
        raise MissingExtraError(error.name or "?", extra, purpose) from error
