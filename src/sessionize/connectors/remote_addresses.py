"""Addresses of files: s3://bucket/key, gs://bucket/key, az://container/key, abfs://container@account.host/key, and
https://host/path.

An address has no secret in it: it would be in the history of the shell, in logs and in the tables.
"""

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from sessionize.connectors.local_paths import hint_for, is_address
from sessionize.connectors.shown_settings import address_shown
from sessionize.errors import ConfigError

Kind = Literal["s3", "gs", "az", "http"]
_KINDS: dict[str, Kind] = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gs",
    "gcs": "gs",
    "az": "az",
    "abfs": "az",
    "abfss": "az",
    "https": "http",
    "http": "http",
}
_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|\[::1\]", re.ASCII)
_SECRET = re.compile(r"sig|token|secret|password|passwd|credential|key|auth", re.IGNORECASE)
_KNOWN = "s3://, gs://, az://, abfs:// and https:// are known"
_CREDENTIALS = "credentials come from the environment, or from the files of your storage's own tools"


@dataclass(frozen=True, slots=True)
class Address:
    """A place elsewhere. host: the bucket, the container (with its account), or the server. path: without the first
    slash; of a web server with its query.
    """

    text: str
    kind: Kind
    host: str
    path: str

    def with_path(self, path: str) -> "Address":
        """Another file of the same store."""
        return Address(f"{self.text.partition('://')[0]}://{self.host}/{path}", self.kind, self.host, path)


def is_remote(text: str) -> bool:
    """Whether it is an address of a kind that can be read."""
    return text.partition("://")[0].lower() in _KINDS and "://" in text


def address_of(text: str) -> Address:
    """The parts of an address. Errors: ConfigError, as check_address."""
    check_address(text, name="the input")
    scheme, _, rest = text.partition("://")
    host, _, path = rest.partition("/")
    return Address(text, _KINDS[scheme.lower()], host, path)


def check_address(text: str, *, name: str, writes: bool = False) -> None:
    """name: the option or key that it was given for. writes: it is an output.

    Errors: ConfigError for an unknown kind, one with a secret in it, an unencrypted one, and one that cannot be
    written.
    """
    scheme = text.partition(":")[0].lower()
    kind = _KINDS.get(scheme)
    if kind is None or "://" not in text:
        hint = hint_for(text) if scheme == "file" else f"{_KNOWN}; or write a local path"
        raise ConfigError(f"{name} has an address of an unknown kind", detail=address_shown(text), hint=hint)
    rest = text.partition("://")[2]
    host = rest.partition("/")[0]
    user = host.rpartition("@")[0]
    loose = kind != "http" and "?" in rest and "@" in rest
    if (user and (kind != "az" or ":" in user)) or loose or _has_secret(text):
        raise ConfigError(
            f"{name} has an address with a secret in it",
            detail=_without_secret(text),
            hint=f"take it out; {_CREDENTIALS}",
        )
    if not host:
        raise ConfigError(f"{name} has an address without a {'host' if kind == 'http' else 'bucket'}", detail=text)
    if scheme == "http" and not _LOOPBACK.fullmatch(host.rpartition(":")[0] or host):
        raise ConfigError(
            f"{name} has an address that is not encrypted", detail=address_shown(text), hint="use https://"
        )
    if writes and kind == "http":
        raise ConfigError(
            f"{name} is on a web server",
            detail=address_shown(text),
            hint="write to a local path, s3://, gs:// or az://",
        )


def shown(text: str) -> str:
    """An input as it may be shown."""
    return _without_secret(text) if is_address(text) else text


def _has_secret(text: str) -> bool:
    query = urlsplit(text).query if text.lower().startswith("http") else text.partition("?")[2]
    return any(_SECRET.search(part.partition("=")[0]) for part in re.split("[&;]", query))


def _without_secret(text: str) -> str:
    return address_shown(text)
