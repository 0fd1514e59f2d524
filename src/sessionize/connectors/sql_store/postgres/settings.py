"""Who logs in where. A password comes from the environment or a file, read for each connection, and is never shown.

PostgreSQL's own ways to give one (PGPASSWORD, PGPASSFILE, ~/.pgpass) work as ever.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from sessionize.connectors.secrets import PasswordRef, address_unreadable, address_with_password

_SHOWN = ("service", "host", "hostaddr", "port", "dbname", "user")
_SECRET = ("password", "sslpassword")
# A server that is gone without a word is noticed within a minute.
_DEFAULTS: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
    "fallback_application_name": "sessionize",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A server, a database and a role.

    dsn: PostgreSQL's own text for these, `host=… dbname=…` or `postgresql://…`, without a password; "" for what the
    environment says (PGHOST and so on). password_env: the environment variable that holds the password.
    password_file: the file that does.
    Errors: ConfigError for a dsn that cannot be read or has a password, and for both ways to give one.
    """

    dsn: str = ""
    password_env: str | None = None
    password_file: Path | None = None

    def __post_init__(self) -> None:
        try:
            parts = conninfo_to_dict(self.dsn)
        except psycopg.Error:
            hint = "write 'host=db.example port=5432 dbname=sessions user=writer'"
            raise address_unreadable("PostgreSQL database", "dsn", hint=hint) from None
        if any(name in parts for name in _SECRET):
            raise address_with_password("PostgreSQL database", "dsn", str(self))
        self._password_ref()

    def __str__(self) -> str:
        parts = conninfo_to_dict(self.dsn)
        return " ".join(f"{name}={parts[name]}" for name in _SHOWN if name in parts) or "PostgreSQL by its environment"

    def connect(self) -> "psycopg.Connection[tuple[object, ...]]":
        """A new connection; each statement outside a transaction is one of its own.

        Errors: ConfigError when the password cannot be had; psycopg.Error.
        """
        given = conninfo_to_dict(self.dsn)
        options = {name: value for name, value in _DEFAULTS.items() if name not in given}
        password = self._password_ref().read()
        if password is not None:
            options["password"] = password
        return psycopg.connect(self.dsn, autocommit=True, client_encoding="UTF8", **options)

    def _password_ref(self) -> PasswordRef:
        return PasswordRef(env=self.password_env, file=self.password_file, server="PostgreSQL")
