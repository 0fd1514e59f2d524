"""How Avro records of a topic are decoded, as the pipeline file says: by a schema file, or by a schema registry.

What a registry needs to let us in stands among the Kafka settings, under the names that Java's clients use:
schema.registry.basic.auth.user.info=env:VARIABLE (user:password) and schema.registry.ssl.ca.location=PATH.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sessionize.app.config.pipeline import PipelineConfig
from sessionize.app.config.secrets import resolved
from sessionize.app.config.server_sections import REGISTRY_PREFIX
from sessionize.app.extras import requires_extra
from sessionize.errors import ConfigError

if TYPE_CHECKING:
    from sessionize.formats.records import RecordDecoder

_LOGIN = f"{REGISTRY_PREFIX}basic.auth.user.info"
_CA_FILE = f"{REGISTRY_PREFIX}ssl.ca.location"
_SCHEMA_BYTES_MAX = 16 << 20


def client_settings(settings: Mapping[str, str]) -> dict[str, str]:
    """The settings that are for Kafka's client, without those for the registry."""
    return {name: value for name, value in settings.items() if not name.startswith(REGISTRY_PREFIX)}


def registry_options(settings: Mapping[str, str]) -> dict[str, Any]:
    """The settings that are for the registry, as SchemaRegistry takes them. Errors: ConfigError, without any value."""
    known = {name: value for name, value in settings.items() if name.startswith(REGISTRY_PREFIX)}
    login, ca_file = known.pop(_LOGIN, None), known.pop(_CA_FILE, None)
    if known:
        raise ConfigError(
            "unknown setting of the schema registry",
            detail=", ".join(sorted(known)),
            hint=f"known are {_LOGIN} and {_CA_FILE}",
        )
    if login is None:
        return {"ca_file": ca_file}
    user, colon, password = login.partition(":")
    if not colon or not user:
        raise ConfigError("invalid login for the schema registry", detail=_LOGIN, hint="write user:password")
    return {"user": user, "password": password, "ca_file": ca_file}


def avro_decoder(config: PipelineConfig, *, extras: bool) -> "RecordDecoder | None":
    """What decodes the topic's records; None where they are JSON. Errors: ConfigError, MissingExtraError."""
    kafka = config.input.kafka
    if config.input.kind != "kafka" or kafka.format != "avro":
        return None
    with requires_extra("kafka", "reading Avro records"):
        from sessionize.connectors.kafka.registry import SchemaRegistry
        from sessionize.formats.avro import AvroRecords
    dialect = config.dialect()
    if kafka.schema_registry is not None:
        registry = SchemaRegistry(kafka.schema_registry, **registry_options(resolved(kafka.settings)))
        return AvroRecords(dialect, lookup=registry.schema, extras=extras)
    path = Path(kafka.schema_file or "").expanduser()
    return AvroRecords(dialect, schema=_text_of(path), source=f"file {path}", extras=extras)


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_SCHEMA_BYTES_MAX + 1)
        if len(data) > _SCHEMA_BYTES_MAX:
            raise OSError(f"it is larger than {_SCHEMA_BYTES_MAX >> 20} MB")
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(
            "the Avro schema file cannot be read",
            detail=f"{path}: {reason}",
            hint="check input.kafka.schema_file and its permissions",
        ) from None
