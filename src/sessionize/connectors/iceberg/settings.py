"""The location of tables: the kind of catalog, its address, the warehouse, and driver options.

Settings never contain secrets: an option `NAME-env` names an environment variable with the value of NAME, `NAME-file` a
file with it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import urlsplit

from sessionize.connectors.secrets import from_environment, from_file
from sessionize.connectors.shown_settings import address_shown
from sessionize.errors import ConfigError

CatalogKind = Literal["sqlite", "postgres", "rest"]

# The names of secrets in pyiceberg and Arrow, and PostgreSQL's password.
_SECRET = re.compile(r"password|secret|token|credential|(^|[.-])key$|session-token", re.IGNORECASE)
_SECRET_NAMES_ALLOWED = {"s3.access-key-id", "s3.role-session-name", "oauth2-server-uri", "token-refresh-enabled"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogSettings:
    """The settings of a catalog.

    kind: sqlite (a file), postgres or rest. uri: none for sqlite, its file is `<home>/catalog.db`; postgres
    `postgresql://user@host:port/database`; rest `https://host/path`. warehouse: the location of new tables' files, a
    path or `s3://bucket/path`; None: `<home>/warehouse`, for rest the server's. options: passed to pyiceberg
    (`s3.endpoint`, `s3.region`, `token-env`, `password-env`, `s3.secret-access-key-file`, …).
    Errors: ConfigError for invalid settings, above all a plain-text secret.
    """

    kind: CatalogKind = "sqlite"
    uri: str | None = None
    warehouse: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in get_args(CatalogKind):
            raise ConfigError(
                "unknown kind of catalog",
                detail=repr(self.kind),
                hint=f"one of {', '.join(get_args(CatalogKind))}",
            )
        if (self.uri is None) != (self.kind == "sqlite"):
            raise ConfigError(
                "a catalog's address is missing" if self.uri is None else "this kind of catalog takes no address",
                detail=f"kind {self.kind}",
                hint="postgresql://user@host/database, or https://host/path; sqlite is a file in the home",
            )
        if self.uri is not None:
            self._check_uri(self.uri)
        for name in self.options:
            if _SECRET.search(name) and not name.endswith(("-env", "-file")) and name not in _SECRET_NAMES_ALLOWED:
                raise ConfigError(
                    "a secret must not be in the settings",
                    detail=f"option {name!r}",
                    hint=f"name a variable with {name}-env, or a file with {name}-file",
                )

    def _check_uri(self, uri: str) -> None:
        try:
            parts = urlsplit(uri)
            has_password = parts.password is not None
        except ValueError as error:
            raise ConfigError("a catalog's address cannot be read", detail=str(error)) from error
        if has_password:
            raise ConfigError(
                "a password must not be in a catalog's address",
                detail=f"kind {self.kind}, host {parts.hostname}",
                hint="name a variable with the option password-env, or a file with password-file",
            )
        known = {"postgres": ("postgresql", "postgres", "postgresql+psycopg"), "rest": ("http", "https")}[self.kind]
        if parts.scheme not in known:
            raise ConfigError(
                "a catalog's address does not fit its kind",
                detail=f"kind {self.kind}, address {parts.scheme}:…",
                hint=f"it begins with {known[0]}://",
            )

    @property
    def where(self) -> str:
        """The catalog for an error message."""
        if self.uri is None:
            return "catalog.db"
        return address_shown(self.uri)

    def resolved_options(self) -> dict[str, str]:
        """The options with the values of secrets. Errors: ConfigError for a missing variable or file."""
        return dict(_resolved(name, value) for name, value in self.options.items())


def _resolved(name: str, value: str) -> tuple[str, str]:
    if name.endswith("-env"):
        return name.removesuffix("-env"), from_environment(value, needed_for=f"option {name}")
    if name.endswith("-file"):
        return name.removesuffix("-file"), from_file(value, needed_for=f"option {name}")
    return name, value
