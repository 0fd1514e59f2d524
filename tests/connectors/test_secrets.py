"""Secrets are read in one way for every server, and no error shows one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sessionize.app.config.secrets import resolved
from sessionize.connectors.iceberg import CatalogSettings
from sessionize.connectors.secrets import PasswordRef
from sessionize.errors import ConfigError

Read = Callable[[str, str], str | None]


def by_setting(kind: str, place: str) -> str | None:
    return resolved([f"sasl.password={kind}:{place}"])["sasl.password"]


def by_password(kind: str, place: str) -> str | None:
    env, file = (place, None) if kind == "env" else (None, Path(place))
    return PasswordRef(env=env, file=file, server="PostgreSQL").read()


def by_catalog(kind: str, place: str) -> str | None:
    return CatalogSettings(options={f"token-{kind}": place}).resolved_options()["token"]


every_way = pytest.mark.parametrize("read", [by_setting, by_password, by_catalog])


@every_way
def test_a_secret_is_what_the_variable_or_the_file_holds(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", " s3cret ")
    (tmp_path / "secret").write_text(" s3cret \r\n")
    assert read("env", "A_SECRET") == read("file", str(tmp_path / "secret")) == " s3cret "
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read("file", "~/secret") == " s3cret "


@every_way
@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "No such file"), (b"", "empty"), (b"\n", "empty"), (b"\xff", "UTF-8"), (b"x" * 70_000, "larger")],
)
def test_a_file_without_a_secret_is_refused(read: Read, content: bytes | None, why: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        read("file", str(tmp_path / "secret"))
    assert why in str(caught.value.detail)
    assert caught.value.hint


@every_way
def test_a_variable_without_a_secret_is_refused(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("A_SECRET", raising=False)
    with pytest.raises(ConfigError, match="which is not set"):
        read("env", "A_SECRET")
    monkeypatch.setenv("A_SECRET", "")
    with pytest.raises(ConfigError, match="which is empty"):
        read("env", "A_SECRET")
