"""Secrets come from an environment variable or a file, so that no command line and no pipeline file has them.

Every server's settings read them here: what is missing or empty is an error, which never shows a value.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sessionize.errors import ConfigError

_SECRET_BYTES_MAX = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordRef:
    """One place, or none. It is read anew each time, so a password may be changed while we run.

    env: the environment variable. file: the file; the end of its last line does not count. server: whose password it
    is, for messages. Errors: ConfigError for two places.
    """

    env: str | None
    file: Path | None
    server: str

    def __post_init__(self) -> None:
        if self.env is not None and self.file is not None:
            raise ConfigError(
                f"there are two places for the password for {self.server}",
                detail=f"password_env {self.env} and password_file {self.file}",
                hint="give one of them",
            )

    def read(self) -> str | None:
        """The password, None without a place. Errors: ConfigError when it is not there."""
        needed_for = f"the password for {self.server}"
        if self.env is not None:
            return from_environment(self.env, needed_for=needed_for)
        return None if self.file is None else from_file(self.file, needed_for=needed_for)


def from_environment(variable: str, *, needed_for: str, environ: Mapping[str, str] | None = None) -> str:
    """What an environment variable holds. needed_for: what gets it, for the error.

    Errors: ConfigError when it is not set, or empty: an empty secret is a variable that somebody forgot to fill.
    """
    value = (os.environ if environ is None else environ).get(variable)
    if not value:
        raise ConfigError(
            "a secret is missing",
            detail=f"{needed_for} comes from the environment variable {variable}, which is "
            + ("not set" if value is None else "empty"),
            hint=f"set {variable}, or name another source",
        )
    return value


def from_file(path: str | Path, *, needed_for: str) -> str:
    """What a file holds, without the line feed at its end. needed_for: what gets it, for the error.

    Errors: ConfigError when it can't be read, or is empty.
    """
    try:
        with Path(path).expanduser().open("rb") as file:
            data = file.read(_SECRET_BYTES_MAX + 1)
        if len(data) > _SECRET_BYTES_MAX:
            raise OSError(f"larger than {_SECRET_BYTES_MAX} bytes")
        value = data.decode().rstrip("\r\n")
        if not value:
            raise OSError("the file is empty")
    except (OSError, UnicodeDecodeError) as error:
        reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror or str(error)
        raise ConfigError(
            "a secret cannot be read",
            detail=f"{needed_for} comes from the file {path}: {reason}",
            hint="check the path and its permissions",
        ) from None
    return value


def address_unreadable(server: str, setting: str, *, hint: str) -> ConfigError:
    """The error for an address that its driver refuses; what is wrong with it may be a part of a password."""
    return ConfigError(
        f"the address of the {server} cannot be read",
        detail=f"{setting} (not shown, as it may hold a password)",
        hint=hint,
    )


def address_with_password(server: str, setting: str, shown: str) -> ConfigError:
    """The error for an address that has a password in it. shown: the address without it."""
    return ConfigError(
        f"the address of the {server} has a password in it",
        detail=f"{setting} for {shown}",
        hint="take it out, and name an environment variable (password_env) or a file (password_file) with it",
    )
