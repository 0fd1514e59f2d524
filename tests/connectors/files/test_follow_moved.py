"""Followed folders that are other ones than before: what is known stays known, and what cannot be told is an error."""

import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sessionize.connectors.files.directory_source import PARTITION, DirectorySource
from sessionize.connectors.files.file_log import FileLog
from sessionize.errors import StateError
from tests.connectors.files.following import NOW_MS, everything, expected, lines, put, source, users


class Stream:
    """What a stream does with its source over several runs: it goes on where the last one has ended."""

    def __init__(self, home: Path) -> None:
        self.home, self.at = home, 0

    def opened(self, *folders: str) -> DirectorySource:
        following = source(self.home, *(self.home / name for name in folders))
        following.seek({PARTITION: self.at} if self.at else {})
        return following

    def run(self, *folders: str) -> list[str]:
        following = self.opened(*folders)
        batches = list(everything(following))
        for batch in batches:
            self.at = batch.ranges[PARTITION][1]
        return users(batches)


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    put(tmp_path / "p1" / "x.ndjson", lines("a", 3))
    put(tmp_path / "p2" / "x.ndjson", lines("b", 2))
    put(tmp_path / "p2" / "deep" / "y.ndjson", lines("c", 2))
    return Stream(tmp_path)


def places(stream: Stream) -> list[str]:
    return [entry.place for entry in FileLog(stream.home / "state" / "book").entries]


def test_a_folder_that_is_added_is_all_that_is_read(stream: Stream) -> None:
    assert stream.run("p1") == expected(("a", 3))
    assert stream.run("p1", "p2") == expected(("c", 2), ("b", 2))
    assert places(stream) == ["p1/x.ndjson", "p2/deep/y.ndjson", "p2/x.ndjson"]
    for folders in (("p2", "p1"), ("p1",), ("p2",), ("p2/deep",), (".",)):
        assert stream.run(*folders) == []


def test_a_folder_that_is_removed_loses_nothing_and_may_come_back(stream: Stream) -> None:
    assert stream.run("p1", "p2/deep") == expected(("a", 3), ("c", 2))
    put(stream.home / "p2" / "deep" / "x.ndjson", lines("d", 1))
    put(stream.home / "p1" / "z.ndjson", lines("e", 1), age=1)
    assert stream.run("p2/deep") == expected(("d", 1))  # called as one of the other folder
    assert places(stream) == ["../../p1/x.ndjson", "y.ndjson", "x.ndjson"]
    assert stream.run("p2") == expected(("b", 2))
    assert stream.run("p1", "p2") == expected(("e", 1))
    assert stream.run("p1", "p2") == []


def test_a_file_that_was_begun_in_a_folder_that_is_removed_is_read_to_its_end(stream: Stream) -> None:
    put(stream.home / "p1" / "long.ndjson", lines("l", 50), age=-1)
    first = stream.opened("p1").poll(timeout_s=0, now_ms=NOW_MS)[0]
    stream.at = first.ranges[PARTITION][1]
    assert 0 < first.events.num_rows < 50
    assert users([first]) + stream.run("p2") == expected(("l", 50), ("c", 2), ("b", 2))


def test_patterns_and_folders_are_one(stream: Stream) -> None:
    assert stream.run("p1/*.ndjson") == expected(("a", 3))
    assert stream.run("p*/*.ndjson") == expected(("b", 2))
    assert stream.run("p1", "p2") == expected(("c", 2))


def test_a_folder_that_was_moved_goes_on(stream: Stream) -> None:
    assert stream.run("p2") == expected(("c", 2), ("b", 2))
    (stream.home / "p2").rename(stream.home / "moved")
    put(stream.home / "moved" / "new.ndjson", lines("n", 1))
    assert stream.run("moved") == expected(("n", 1))
    shutil.copytree(stream.home / "moved", stream.home / "elsewhere" / "copied")  # keeps times, as rsync -a
    shutil.rmtree(stream.home / "moved")
    assert stream.run("elsewhere/copied") == []
    (stream.home / "link").symlink_to("elsewhere/copied")
    assert stream.run("link") == stream.run("elsewhere/copied") == []


def test_another_folder_is_read_though_its_files_are_called_the_same(stream: Stream) -> None:
    assert stream.run("p1") == expected(("a", 3))
    assert stream.run("p2") == expected(("c", 2), ("b", 2))
    assert stream.run("p1", "p2") == []


@pytest.mark.parametrize("touched", [False, True])
def test_a_folder_that_may_be_the_same_one_is_an_error(stream: Stream, touched: bool) -> None:
    assert stream.run("p1") == expected(("a", 3))
    shutil.copytree(stream.home / "p1", stream.home / "p3")
    if touched:
        os.utime(stream.home / "p3" / "x.ndjson", (1, 1))
        (stream.home / "p1" / "x.ndjson").unlink()
    before = (stream.home / "state" / "book").read_bytes()
    text = rf"(?s)may hold files that were already read.*{re.escape(str(stream.home))}/p1 before.*size: x\.ndjson"
    with pytest.raises(StateError, match=text):
        stream.opened("p3")
    assert (stream.home / "state" / "book").read_bytes() == before
    assert stream.run("p1") == []
    assert stream.run("p1", "p3") == expected(("a", 3))  # as the hint says: its files are others


def lines_of(book: Path) -> Iterator[dict[str, object]]:
    for line in book.read_bytes().splitlines():
        yield json.loads(line[9:])


def test_a_book_without_a_root_adopts_the_present_one(stream: Stream) -> None:
    assert stream.run("p1") == expected(("a", 3))
    book = stream.home / "state" / "book"
    old = [{key: value for key, value in line.items() if key != "root"} for line in lines_of(book)]
    texts = [json.dumps(line).encode() for line in old]
    book.write_bytes(b"".join(b"%08x %b\n" % (zlib.crc32(text), text) for text in texts))
    assert FileLog(book).root is None
    assert stream.run("p1") == []
    assert FileLog(book).root == str(stream.home / "p1")
    assert stream.run("p1", "p2") == expected(("c", 2), ("b", 2))
