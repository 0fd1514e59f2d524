"""Lists, reads and writes files in object stores by Arrow's file systems, and reads them from web servers.

Credentials are found as every tool of the store finds them: in the environment, in its usual files, from the machine.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from sessionize.connectors.http_files import HttpFile
from sessionize.connectors.remote_addresses import Address, Kind
from sessionize.connectors.remote_errors import read_failure, write_failure
from sessionize.errors import ConfigError, InputError, MissingExtraError, OutputError

_TRIES = 4
_CONNECT_S, _REQUEST_S, _RETRY_S = 10, 60, 60
_COPY_BYTES = 8 << 20
_MAGIC = frozenset("*?[")
_ERRORS = (OSError, pa.ArrowException)


@dataclass(frozen=True, slots=True)
class Found:
    """A file in a store. size_bytes: None where a web server does not say."""

    address: Address
    size_bytes: int | None


def find(address: Address) -> list[Found] | None:
    """The file, or those that a pattern fits, in the order of their names; None for a folder, see below.

    Errors: InputError for what is not there or may not be read; UnavailableError; ConfigError.
    """
    if address.kind == "http":
        if address.path.endswith("/") or not address.path:
            raise InputError("a web server has no folders", detail=address.text, hint="name its files")
        with open_file(address) as file:
            return [Found(address, file.size_bytes)]
    if _MAGIC & set(address.path):
        return [each for each in _listed(address, _fixed(address.path)) if _fits(address.path, each.address.path)]
    try:
        info = _store(address.kind, address.host).get_file_info(_place(address))
    except _ERRORS as error:
        raise read_failure(address.text, error) from error
    if info.type == fs.FileType.File:
        return [Found(address, info.size)]
    if info.type == fs.FileType.Directory or not address.path:
        return None
    raise read_failure(address.text, FileNotFoundError())


def below(address: Address) -> list[Found]:
    """The files in a folder and all folders in it. Errors: as find."""
    return list(_listed(address, address.path.rstrip("/")))


def open_file(address: Address, *, random: bool = False) -> Any:
    """The file for reading; it has readinto, read, seek and close, and size_bytes where it is of a web server.

    random: it is read by pieces here and there. Errors: InputError, UnavailableError.
    """
    if address.kind == "http":
        return HttpFile(address.text, random=random)
    try:
        return _store(address.kind, address.host).open_input_file(_place(address))
    except _ERRORS as error:
        raise read_failure(address.text, error) from error


def upload(path: Path, address: Address) -> None:
    """Copy a local file; nobody sees it, or anything of it, before it is whole.

    Errors: OutputError, UnavailableError.
    """
    try:
        store = _store(address.kind, address.host)
        place = _place(address)
        # a blob of Azure is there, and empty, as soon as it is opened
        first = f"{place}.{os.getpid()}.partial" if address.kind == "az" else place
        here = fs.LocalFileSystem()
        fs.copy_files(str(path), first, source_filesystem=here, destination_filesystem=store, chunk_size=_COPY_BYTES)
        if first != place:
            store.move(first, place)
        size = store.get_file_info(place).size
    except _ERRORS as error:
        raise write_failure(address.text, error) from error
    if size != path.stat().st_size:
        raise OutputError(
            "the output can't be written", detail=f"{address.text}: {size} bytes arrived", hint="run again"
        )


def check_writable(address: Address) -> None:
    """Errors: OutputError for a bucket that is not there; UnavailableError; ConfigError."""
    try:
        info = _store(address.kind, address.host).get_file_info(address.host.partition("@")[0])
    except _ERRORS as error:
        raise write_failure(address.text, error) from error
    if info.type == fs.FileType.NotFound:
        raise write_failure(address.text, FileNotFoundError())


def _listed(address: Address, folder: str) -> Iterator[Found]:
    bucket = address.host.partition("@")[0]
    selector = fs.FileSelector(f"{bucket}/{folder}".rstrip("/"), recursive=True, allow_not_found=True)
    try:
        infos = _store(address.kind, address.host).get_file_info(selector)
    except _ERRORS as error:
        raise read_failure(address.text, error) from error
    for info in sorted(infos, key=lambda info: str(info.path)):
        if info.type == fs.FileType.File:
            yield Found(address.with_path(info.path.partition("/")[2]), info.size)


def _place(address: Address) -> str:
    return f"{address.host.partition('@')[0]}/{address.path}".rstrip("/")


def _fixed(pattern: str) -> str:
    """The folder above the first part of a pattern that is one."""
    parts = pattern.split("/")
    first = next(number for number, part in enumerate(parts) if _MAGIC & set(part))
    return "/".join(parts[:first])


def _fits(pattern: str, path: str) -> bool:
    return _parts_fit(tuple(pattern.split("/")), tuple(path.split("/")))


def _parts_fit(pattern: tuple[str, ...], path: tuple[str, ...]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(_parts_fit(pattern[1:], path[n:]) for n in range(len(path)))
    return bool(path) and fnmatchcase(path[0], pattern[0]) and _parts_fit(pattern[1:], path[1:])


@lru_cache(maxsize=16)
def _store(kind: Kind, host: str) -> Any:
    """The file system of a bucket or container. Errors: ConfigError, MissingExtraError; OSError."""
    makers = {"s3": _s3, "gs": _gs, "az": _az}
    try:
        return makers[kind](host)
    except ImportError as error:  # a build of Arrow without it
        raise MissingExtraError(f"pyarrow with {kind}", "remote", f"{kind}:// addresses") from error


def _s3(bucket: str) -> Any:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None:
        region = "us-east-1" if endpoint else fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(
        region=region,
        endpoint_override=endpoint,
        connect_timeout=_CONNECT_S,
        request_timeout=_REQUEST_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_TRIES),
    )


def _gs(_: str) -> Any:
    return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=_RETRY_S))


def _az(host: str) -> Any:
    container, _, server = host.partition("@")
    variables = ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT")
    account = server.partition(".")[0] or next(filter(None, map(os.environ.get, variables)), None)
    if not account:
        raise ConfigError(
            "the storage account of a container is unknown",
            detail=f"az://{container}",
            hint="set AZURE_STORAGE_ACCOUNT_NAME, or write abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH",
        )
    key = os.environ.get("AZURE_STORAGE_ACCOUNT_KEY") or os.environ.get("AZURE_STORAGE_KEY")
    return fs.AzureFileSystem(account, account_key=key, sas_token=os.environ.get("AZURE_STORAGE_SAS_TOKEN"))
