"""The log of followed files: damage, torn lines and disk errors are reported, and never read as other data."""

import errno
import os
from pathlib import Path

import pytest

from sessionize.connectors.files.directory_source import PARTITION, STRIDE
from sessionize.connectors.files.file_log import FileLog
from sessionize.errors import InputError, OutputError, StateError, UnavailableError
from tests.connectors.files.following import (
    NOW_MS,
    everything,
    expected,
    lines,
    put,
    source,
    users,
)


def test_a_book_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "state" / "book").mkdir(parents=True)
    with pytest.raises(OutputError, match="log of followed files cannot be read"):
        source(tmp_path)


def test_a_torn_book_counts_as_far_as_it_is_whole(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.ndjson", lines("a", 3))
    list(everything(source(tmp_path)))
    path = tmp_path / "state" / "book"
    whole = path.read_bytes()
    for torn in (whole[:20], whole[:-1]):
        path.write_bytes(whole + torn)
        assert [entry.place for entry in FileLog(path).entries] == ["a.ndjson"]
        assert path.read_bytes() == whole
    following = source(tmp_path)
    following.seek({PARTITION: STRIDE})
    put(tmp_path / "in" / "b.ndjson", lines("b", 1), age=3)
    assert users(list(everything(following))) == ["b-0"]
    assert [entry.place for entry in FileLog(path).entries] == ["a.ndjson", "b.ndjson"]
    path.unlink()
    following = source(tmp_path)
    for positions in ({PARTITION: 2}, {PARTITION: STRIDE}, {"a.ndjson": 2}):
        with pytest.raises(InputError, match="not in the log"):
            following.seek(positions)


def test_every_flipped_bit_of_the_book_is_noticed(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.ndjson", lines("a", 3))
    put(tmp_path / "in" / "b.ndjson", lines("b", 3))
    list(everything(source(tmp_path)))
    path = tmp_path / "state" / "book"
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        with pytest.raises(StateError, match=r"(?s)log of followed files is damaged.*line [12]"):
            FileLog(path)
    path.write_bytes(whole.splitlines(keepends=True)[1])
    with pytest.raises(StateError, match=r"(?s)damaged.*file 1 follows file -1"):
        FileLog(path)


@pytest.mark.parametrize(("code", "kind"), [(errno.EIO, UnavailableError), (errno.EACCES, OutputError)])
def test_a_book_that_cannot_be_written_is_told_and_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]
) -> None:
    def refused(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    put(tmp_path / "in" / "a.ndjson", lines("a", 3))
    following = source(tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", refused)
        with pytest.raises(kind, match=os.strerror(code)):
            following.poll(timeout_s=0, now_ms=NOW_MS)
    assert (tmp_path / "state" / "book").read_bytes() == b""
    assert users(list(everything(following))) == expected(("a", 3))
