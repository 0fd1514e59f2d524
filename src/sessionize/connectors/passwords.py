"""Where a password is: in an environment variable or a file, so that no command line and no pipeline file has it."""

import os
from dataclasses import dataclass
from pathlib import Path

from sessionize.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordPlace:
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
        if self.env is not None:
            if self.env not in os.environ:
                raise ConfigError(
                    f"the password for {self.server} is not there",
                    detail=f"environment variable {self.env}",
                    hint="set it, or name a file with password_file",
                )
            return os.environ[self.env]
        if self.file is None:
            return None
        try:
            return self.file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"the password for {self.server} cannot be read",
                detail=f"{self.file}: {type(error).__name__}",
                hint="check the file and its permissions",
            ) from None


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
