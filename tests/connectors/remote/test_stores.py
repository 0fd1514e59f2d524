"""Files in an object store: listing, patterns, reading, and uploads that are whole or not there."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import fs

from sessionize.connectors import object_stores as stores
from sessionize.connectors.object_stores import below, check_writable, find, open_file, upload
from sessionize.connectors.remote_addresses import address_of, check_address
from sessionize.errors import ConfigError, InputError, OutputError, UnavailableError
from sessionize.testing.services.object_store import ObjectStoreServer

FILES = ["logs/2026/01/a.ndjson", "logs/2026/02/b.ndjson", "logs/2026/02/c.csv", "logs/z.ndjson", "other.ndjson"]


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStoreServer]:
    with ObjectStoreServer() as running:
        yield running


@pytest.fixture
def bucket(server: ObjectStoreServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[fs.FileSystem]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    stores._store.cache_clear()
    store = stores._store("s3", server.bucket)
    store.delete_dir_contents("lake")  # the servers of a process share what they hold
    for name in FILES:
        with store.open_output_stream(f"lake/{name}") as file:
            file.write(name.encode())
    yield store
    stores._store.cache_clear()


def names(found: list[stores.Found] | None) -> list[str]:
    return [each.address.text.removeprefix("s3://lake/") for each in found or []]


@pytest.mark.parametrize(
    ("pattern", "fitting"),
    [
        ("other.ndjson", ["other.ndjson"]),
        ("logs/2026/*/*.ndjson", FILES[:2]),
        ("logs/**/*.ndjson", [*FILES[:2], FILES[3]]),
        ("logs/2026/0[12]/?.csv", [FILES[2]]),
        ("*", ["other.ndjson"]),
        ("none*", []),
    ],
)
def test_patterns(bucket: fs.FileSystem, pattern: str, fitting: list[str]) -> None:
    assert names(find(address_of(f"s3://lake/{pattern}"))) == fitting


@pytest.mark.parametrize("folder", ["logs", "logs/", "logs/2026/02", ""])
def test_a_folder_is_its_files(bucket: fs.FileSystem, folder: str) -> None:
    address = address_of(f"s3://lake/{folder}")
    assert find(address) is None
    assert names(below(address)) == [name for name in FILES if name.startswith(folder)]


def test_a_file_is_read_from_any_place(bucket: fs.FileSystem) -> None:
    with open_file(address_of("s3://lake/logs/z.ndjson"), random=True) as file:
        file.seek(5)
        assert file.read(4) == b"z.nd"


@pytest.mark.parametrize("name", ["s3://lake/none", "s3://nobucket/x"])
def test_what_is_not_there(bucket: fs.FileSystem, name: str) -> None:
    with pytest.raises(InputError, match="a file does not exist"):
        find(address_of(name))


def test_an_upload_is_whole_or_not_there(bucket: fs.FileSystem, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"0123456789" * 1_200_000)  # more than one part
    upload(tmp_path / "big", address_of("s3://lake/out/big"))
    assert bucket.get_file_info("lake/out/big").size == 12_000_000
    bucket.delete_file("lake/out/big")
    (tmp_path / "big").unlink()
    with pytest.raises((OutputError, UnavailableError)):
        upload(tmp_path / "big", address_of("s3://lake/out/big"))
    assert bucket.get_file_info("lake/out/big").type == fs.FileType.NotFound


def test_a_bucket_that_is_not_there_is_said_before_the_run(bucket: fs.FileSystem) -> None:
    check_writable(address_of("s3://lake/x"))
    with pytest.raises(OutputError, match="no such bucket"):
        check_writable(address_of("s3://nobucket/x"))


def test_a_store_that_is_away(monkeypatch: pytest.MonkeyPatch, server: ObjectStoreServer) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setattr(stores, "_TRIES", 1)
    stores._store.cache_clear()
    with pytest.raises(UnavailableError, match="a file cannot be read now"):
        find(address_of("s3://away/x"))
    stores._store.cache_clear()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("https://me:hunter2@host/x", "a secret in it"),
        ("https://hunter2@host/x", "a secret in it"),
        ("s3://key:hunter2@bucket/x", "a secret in it"),
        ("s3://bucket/x?secret_key=hunter2", "a secret in it"),
        ("https://host/x?X-Amz-Signature=hunter2", "a secret in it"),
        ("https://host/x?a=1&sig=hunter2", "a secret in it"),
        ("abfs://box:hunter2@account.host/x", "a secret in it"),
        ("http://host/x", "not encrypted"),
        ("http://127.0.0.1.evil.com/x", "not encrypted"),
        ("s3:///x", "without a bucket"),
        ("https:///x", "without a host"),
        ("ftp://host/x", "unknown kind"),
        ("file:///x", "unknown kind"),
        ("s3:/bucket/x", "unknown kind"),
    ],
)
def test_addresses_that_are_refused(text: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        check_address(text, name="the input")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "s3://b/x",
        "gs://b/x",
        "az://c/x",
        "abfs://c@a.dfs.core.windows.net/x",
        "https://h/x?page=1",
        "http://localhost:8/x",
    ],
)
def test_addresses_that_are_taken(text: str) -> None:
    check_address(text, name="the input")


def test_a_web_server_is_not_written_to() -> None:
    with pytest.raises(ConfigError, match="on a web server"):
        check_address("https://host/x", name="-o", writes=True)
