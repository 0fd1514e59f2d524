"""Settings of servers as the pipeline file writes them, with secrets put in from where they really are; and what may be
shown of a pipeline file.

`name=value` is taken as it stands; `name=env:VARIABLE` and `name=file:PATH` say where the value is.
"""

from collections.abc import Iterable, Mapping

from sessionize.connectors.local_paths import is_address
from sessionize.connectors.secrets import from_environment, from_file
from sessionize.connectors.shown_settings import address_shown, setting_shown

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
