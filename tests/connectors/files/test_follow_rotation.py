"""Log rotation in a followed folder: a finished file is known by another name, and a new one under its name is read."""

import json
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sessionize.connectors.files.directory_source import PARTITION, STRIDE, DirectorySource
from sessionize.errors import InputError
from tests.connectors.files.following import NOW_MS, everything, expected, lines, put, source, users


@pytest.fixture
def app(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "app.ndjson"
    put(path, lines("a", 30))
    return path


def until(following: DirectorySource, count: int) -> list[str]:
    """Poll until so many events came."""
    found: list[str] = []
    give_up_s = time.monotonic() + 60
    while len(found) < count:
        found += users(following.poll(timeout_s=0.1, now_ms=NOW_MS))
        assert time.monotonic() < give_up_s
    return found


def going_on(home: Path, finished: int) -> DirectorySource:
    following = source(home)
    following.seek({PARTITION: finished * STRIDE})
    return following


@pytest.mark.parametrize("restarts", [False, True])
def test_a_rotated_log_is_read_once_and_so_is_the_new_one(
    app: Path, restarts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    home, following = app.parent.parent, source(app.parent.parent)
    assert users(list(everything(following))) == expected(("a", 30))
    for number, name in enumerate(("b", "c", "d"), 1):
        for old in range(number - 1, 0, -1):
            app.with_name(f"app.{old}.ndjson").rename(app.with_name(f"app.{old + 1}.ndjson"))
        app.rename(app.with_name("app.1.ndjson"))
        put(app, lines(name, 25 if name == "b" else 40), age=number)
        following = going_on(home, number) if restarts else following
        assert until(following, 25 if name == "b" else 40) == expected((name, 25 if name == "b" else 40))
        assert users(list(everything(following))) == []
    assert "app.1.ndjson was app.ndjson" in caplog.text
    assert "bytes are not read" not in caplog.text
    assert users(list(everything(going_on(home, 4)))) == []
    following = source(home)
    with pytest.raises(InputError, match="changed after reading had started"):  # what a repetition needs is elsewhere
        list(following.read({PARTITION: (0, STRIDE)}, now_ms=NOW_MS))


def test_a_file_that_grew_and_was_renamed_then_is_known(app: Path, caplog: pytest.LogCaptureFixture) -> None:
    following = source(app.parent.parent)
    assert users(list(everything(following))) == expected(("a", 30))
    with open(app, "ab") as file:
        file.write(lines("late", 1))
    app.rename(app.with_name("app.1.ndjson"))
    put(app, lines("b", 1), age=2)
    assert until(following, 1) == expected(("b", 1))
    give_up_s = time.monotonic() + 60
    while "app.1.ndjson" not in following.replaced:
        assert following.poll(timeout_s=0.1, now_ms=NOW_MS) == []
        assert time.monotonic() < give_up_s
    assert f"app.1.ndjson changed after it was read: the {len(lines('late', 1))} bytes after" in caplog.text


def test_a_file_that_is_written_anew_with_what_was_read_is_known(app: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As editors and copies do it: another inode."""
    following = source(app.parent.parent)
    assert users(list(everything(following))) == expected(("a", 30))
    put(app, lines("a", 30), age=5)
    assert users(list(everything(going_on(app.parent.parent, 1)))) == []
    for more in (1, 2):
        put(app, lines("a", 30) + lines("more", more), age=5 + more)
        give_up_s = time.monotonic() + 60
        while caplog.text.count("app.ndjson changed after it was read") < more:
            assert following.poll(timeout_s=0.1, now_ms=NOW_MS) == []
            assert time.monotonic() < give_up_s
    assert following.replaced == {"app.ndjson"}


def test_a_file_that_was_empty_is_read_when_it_has_content(tmp_path: Path) -> None:
    path = tmp_path / "in" / "a.ndjson"
    put(path, b"")
    following = source(tmp_path)
    assert users(list(everything(following))) == []
    path.write_bytes(lines("a", 2))
    assert until(following, 2) == expected(("a", 2))
    assert users(list(everything(following))) == []


def said(book: Path) -> Iterator[dict[str, object]]:
    for line in book.read_bytes().splitlines():
        yield json.loads(line[9:])


def test_a_book_of_before_knows_names_alone(app: Path, caplog: pytest.LogCaptureFixture) -> None:
    home = app.parent.parent
    assert users(list(everything(source(home)))) == expected(("a", 30))
    book = home / "state" / "book"
    texts = [
        json.dumps({key: value for key, value in line.items() if key not in ("inode", "fingerprint")}).encode()
        for line in said(book)
    ]
    book.write_bytes(b"".join(b"%08x %b\n" % (zlib.crc32(text), text) for text in texts))
    put(app, lines("b", 1), age=1)
    assert users(list(everything(going_on(home, 1)))) == []
    assert f"its {len(lines('b', 1))} bytes are not read; give each file its own name" in caplog.text
