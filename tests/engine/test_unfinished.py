"""Work that is written down before it is done: there as a whole or not at all, and what the disk's refusals mean."""

import errno
import os
from pathlib import Path

import pyarrow as pa
import pytest

from sessionize.engine.unfinished import Unfinished
from sessionize.errors import OutputError, UnavailableError

TABLES = {"removed": pa.table({"user": ["a"]}), "added": pa.table({"user": ["b", "c"]})}


def test_what_is_written_down_is_found_by_whoever_comes_next_until_it_is_done(tmp_path: Path) -> None:
    Unfinished(tmp_path / "pending").write("one", TABLES)
    found = Unfinished(tmp_path / "pending")
    assert found.tokens() == ["one"]
    assert found.read("one") == TABLES
    found.drop("one")
    assert Unfinished(tmp_path / "pending").tokens() == []


def test_work_that_was_cut_off_while_it_was_written_down_does_not_count(tmp_path: Path) -> None:
    assert Unfinished(tmp_path / "never made").tokens() == []
    (tmp_path / ".one").mkdir()
    (tmp_path / ".one" / "added.arrow").write_bytes(b"half of")
    assert Unfinished(tmp_path).tokens() == []
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
            Unfinished(tmp_path).write("one", TABLES)
    assert list(tmp_path.iterdir()) == []
