"""Errors of Redis as ours: what is refused, what is unavailable and retried, and what never succeeds."""

from collections.abc import Iterator
from contextlib import contextmanager

import redis

from sessionize.connectors.redis.settings import Login
from sessionize.errors import OutputError, UnavailableError

_REFUSED = (redis.AuthenticationError, redis.exceptions.AuthorizationError, redis.exceptions.NoPermissionError)
_LATER = (redis.exceptions.ReadOnlyError, redis.exceptions.OutOfMemoryError)
# The beginnings of the server's error replies.
_LATER_WORDS = ("OOM", "MISCONF", "READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "BUSY")


@contextmanager
def map_errors(login: Login) -> Iterator[None]:
    """Errors of Redis within the block as ours. Errors: UnavailableError, OutputError."""
    try:
        yield
    except _REFUSED as error:
        raise OutputError(
            "Redis refuses access",
            detail=f"{login}: {error}",
            hint="check the user, the password (password_env or password_file) and the user's permissions",
        ) from error
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise UnavailableError(
            "Redis cannot be reached",
            detail=f"{login}: {error}",
            hint="check that the server runs and can be reached",
        ) from error
    except redis.RedisError as error:
        # In a pipeline the message has the command with its data first, and the reply after it.
        answer = str(error).rpartition("caused error: ")[2]
        if isinstance(error, _LATER) or answer.startswith(_LATER_WORDS):
            raise UnavailableError(
                "Redis does not accept writes now",
                detail=f"{login}: {answer}",
                hint="check its memory, disk and log, and whether it is a replica",
            ) from error
        raise OutputError(
            "Redis rejected open sessions",
            detail=f"{login}: {answer}",
            hint="another program may use keys with this prefix: set another prefix for this pipeline",
        ) from error
