"""Settings of servers as the pipeline file writes them, with secrets put in from where they really are; and what may be
shown of a pipeline file.

`name=value` is taken as it stands; `name=env:VARIABLE` and `name=file:PATH` say where the value is.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from sessionize.connectors.local_paths import is_address
from sessionize.connectors.shown_settings import address_shown, setting_shown
from sessionize.errors import ConfigError

_SECRET_BYTES_MAX = 1 << 16
_ADDRESSES = ("dsn", "url", "uri", "warehouse", "servers", "schema_registry")


def as_shown(key: str, value: object) -> object:
    """The value of a key of the pipeline file as it may be shown: without what is not known to be harmless."""
    name = key.rpartition(".")[2].partition("[")[0]
    if isinstance(value, list | tuple):
        return [as_shown(key, item) for item in value]
    if not isinstance(value, str):
        return value
    if name == "settings":
        return setting_shown(value)
    return address_shown(value) if name in _ADDRESSES or "://" in value or is_address(value) else value


def resolved(settings: Iterable[str], *, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """{name: value} of settings. Errors: ConfigError for a variable or file that is not there, without any value."""
    found = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        name = name.strip()
        kind, colon, place = value.partition(":")
        if colon and kind == "env":
            value = from_environment(place, needed_for=name, environ=environ)
        elif colon and kind == "file":
            value = from_file(place, needed_for=name)
        found[name] = value
    return found


def from_environment(variable: str, *, needed_for: str, environ: Mapping[str, str] | None = None) -> str:
    """What an environment variable holds. Errors: ConfigError when it is not set."""
    value = (os.environ if environ is None else environ).get(variable)
    if not value:
        raise ConfigError(
            "a secret is missing",
            detail=f"{needed_for} comes from the environment variable {variable}, which is not set",
            hint=f"set {variable}, or name another source",
        )
    return value


def from_file(path: str, *, needed_for: str) -> str:
    """What a file holds, without the line feed at its end. Errors: ConfigError when it can't be read."""
    try:
        with Path(path).expanduser().open("rb") as file:
            data = file.read(_SECRET_BYTES_MAX + 1)
        if len(data) > _SECRET_BYTES_MAX:
            raise OSError(f"larger than {_SECRET_BYTES_MAX} bytes")
        return data.decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(
            "a secret cannot be read",
            detail=f"{needed_for} comes from the file {path}: {reason}",
            hint="check the path and its permissions",
        ) from None
