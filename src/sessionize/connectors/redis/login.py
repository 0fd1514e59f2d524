"""Who logs in where. A password comes from the environment or a file, read for each new client, and is never shown."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from sessionize.connectors.passwords import PasswordPlace
from sessionize.errors import ConfigError, MissingExtraError

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ModuleNotFoundError as missing:
    raise MissingExtraError("redis", "redis", "a live view in Redis") from missing

_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A server, a database and a user.

    url: `redis://user@host:6379/0`, `rediss://…` for TLS, or `unix://…`, without a password. password_env: the
    environment variable that holds it. password_file: the file that does.
    Errors: ConfigError for a url that cannot be read or has a password, and for both ways to give one.
    """

    url: str
    password_env: str | None = None
    password_file: Path | None = None

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            has_password = parts.password is not None or "password" in parse_qs(parts.query)
            if not has_password:
                redis.Redis.from_url(self.url).close()
        except ValueError:
            # What is wrong with it may be a part of a password.
            raise ConfigError(
                "the address of the Redis server cannot be read",
                detail="url (not shown, as it may hold a password)",
                hint="write redis://host:6379/0",
            ) from None
        if has_password:
            raise ConfigError(
                "the address of the Redis server has a password in it",
                detail=f"url for {self}",
                hint="take it out, and name an environment variable (password_env) or a file (password_file) with it",
            )
        self._password_place()

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{host}{parts.path}"

    def client(self) -> redis.Redis:
        """A client; it connects when it is used. A command whose connection was lost is tried once more.

        Errors: ConfigError when the password cannot be had.
        """
        password = self._password_place().read()
        given = {} if password is None else {"password": password}
        return redis.Redis.from_url(
            self.url,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            retry=Retry(NoBackoff(), 1),
            **given,
        )

    def _password_place(self) -> PasswordPlace:
        return PasswordPlace(env=self.password_env, file=self.password_file, server="Redis")
