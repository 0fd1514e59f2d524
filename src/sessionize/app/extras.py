"""What an optional part needs to be installed is said when it is asked for, in one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

from sessionize.errors import MissingExtraError

# Import name -> name of the distribution, where the two differ.
_DISTRIBUTIONS = {"confluent_kafka": "confluent-kafka"}


@contextmanager
def requires_extra(extra: str, purpose: str) -> Iterator[None]:
    """An optional package that is not installed is a MissingExtraError."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("sessionize"):
            raise
        raise MissingExtraError(error.name or "?", extra, purpose) from error


def missing_extra(error: ModuleNotFoundError) -> MissingExtraError | None:
    """The same as an error that says what to install; None where the package belongs to no optional part."""
    import re
    from importlib.metadata import PackageNotFoundError, requires

    package = (error.name or "").partition(".")[0]
    try:
        wanted = requires("sessionize") or []
    except PackageNotFoundError:
        return None
    for requirement in wanted:
        found = re.match(r"([A-Za-z0-9._-]+)[^;]*;\s*extra\s*==\s*['\"]([a-z]+)", requirement)
        if found and found[2] != "all" and found[1] == _DISTRIBUTIONS.get(package, package):
            return MissingExtraError(package, found[2], "this command")
    return None
