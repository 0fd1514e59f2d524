"""Work that is written down before it is done: there as a whole or not at all, and what the disk's refusals mean."""

import errno
import os
from pathlib import Path

import pyarrow as pa
import pytest

from sessionize.engine.reconcile.intents import IntentLog
from sessionize.errors import OutputError, StateError, UnavailableError

TABLES = {"removed": pa.table({"user": ["a"]}), "added": pa.table({"user": ["b", "c"]})}


def test_what_is_written_down_is_found_by_whoever_comes_next_until_it_is_done(tmp_path: Path) -> None:
    IntentLog(tmp_path / "pending").write("one", TABLES)
    found = IntentLog(tmp_path / "pending")
    assert found.tokens() == ["one"]
    assert found.read("one", TABLES) == TABLES
    found.drop("one")
    assert IntentLog(tmp_path / "pending").tokens() == []


@pytest.mark.parametrize("damage", ["flipped", "cut", "removed", "junk without a checksum"])
def test_damage_is_an_error_that_says_where(tmp_path: Path, damage: str) -> None:
    IntentLog(tmp_path).write("one", TABLES)
    (path,) = (tmp_path / "one").glob("added.*")
    data = path.read_bytes()
    if damage == "flipped":
        path.write_bytes(data[:300] + bytes([data[300] ^ 1]) + data[301:])
    elif damage == "cut":
        path.write_bytes(data[:-9])
    else:
        path.unlink()
    if damage.startswith("junk"):
        (tmp_path / "one" / "added.arrow").write_bytes(b"junk")
    with pytest.raises(StateError, match=r"damaged[\s\S]*one.*added") as error:
        IntentLog(tmp_path).read("one", TABLES)
    assert error.value.hint


def test_what_a_version_before_wrote_down_is_read(tmp_path: Path) -> None:
    IntentLog(tmp_path).write("one", TABLES)
    for path in (tmp_path / "one").glob("*.arrow"):
        path.rename(path.with_name(f"{path.name.split('.')[0]}.arrow"))
    assert IntentLog(tmp_path).read("one", TABLES) == TABLES


def test_work_that_was_cut_off_while_it_was_written_down_does_not_count(tmp_path: Path) -> None:
    assert IntentLog(tmp_path / "never made").tokens() == []
    (tmp_path / ".one").mkdir()
    (tmp_path / ".one" / "added.arrow").write_bytes(b"half of")
    assert IntentLog(tmp_path).tokens() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, UnavailableError), (errno.EROFS, OutputError)])
@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_disk_that_refuses_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, kind: type[Exception]
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as broken:
        broken.setattr(os, call, refused)
        with pytest.raises(kind, match=os.strerror(code)):
            IntentLog(tmp_path).write("one", TABLES)
    assert list(tmp_path.iterdir()) == []
