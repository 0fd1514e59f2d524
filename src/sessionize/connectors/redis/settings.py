"""The login to Redis. The password comes from the environment or a file, is read for each client and never shown."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from sessionize.connectors.secrets import PasswordRef, address_unreadable, address_with_password
from sessionize.errors import MissingExtraError

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
    environment variable with the password. password_file: the file with it.
    Errors: ConfigError for a url that cannot be parsed or has a password, or if both password sources are given.
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
            raise address_unreadable("Redis server", "url", hint="write redis://host:6379/0") from None
        if has_password:
            raise address_with_password("Redis server", "url", str(self))
        self._password_ref()

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{host}{parts.path}"

    def client(self) -> redis.Redis:
        """A client; it connects on first use. A command whose connection is lost is retried once.

        Errors: ConfigError if the password cannot be read.
        """
        password = self._password_ref().read()
        given = {} if password is None else {"password": password}
        return redis.Redis.from_url(
            self.url,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            retry=Retry(NoBackoff(), 1),
            **given,
        )

    def _password_ref(self) -> PasswordRef:
        return PasswordRef(env=self.password_env, file=self.password_file, server="Redis")
