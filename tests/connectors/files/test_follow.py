"""A followed directory: every file once, in order, through kills at any batch, and never half a file."""

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sessionize.connectors.files.follow import FINISHED, PARTITION, DirectorySource
from sessionize.connectors.files.follow_book import Book
from sessionize.errors import InputError, StateError, UnavailableError
from sessionize.formats.dialects import dialect_named
from sessionize.ports import StreamBatch

LONG_AGO_S = 1_700_000_000
NOW_MS = LONG_AGO_S * 1000


def source(home: Path, *paths: str | Path, **options: Any) -> DirectorySource:
    wanted: dict[str, Any] = {"dialect": dialect_named("clicks"), "book": home / "state" / "book", "batch_bytes": 2_000}
    return DirectorySource(paths or [home / "in"], **{**wanted, **options})


def records(name: str, count: int) -> list[dict[str, Any]]:
    return [{"user_id": f"{name}-{i}", "timestamp": NOW_MS + i, "url": "x" * 50} for i in range(count)]


def lines(name: str, count: int) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in records(name, count))


def put(path: Path, data: bytes, *, age: float = 0) -> None:
    """A file that appears complete; age: seconds after long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}")
    hidden.write_bytes(data)
    os.utime(hidden, (LONG_AGO_S + age, LONG_AGO_S + age))
    hidden.rename(path)


def users(batches: list[StreamBatch]) -> list[str]:
    return [user for batch in batches for user in batch.events["user"].to_pylist()]


def expected(*files: tuple[str, int]) -> list[str]:
    return [f"{name}-{i}" for name, count in files for i in range(count)]


def everything(following: DirectorySource) -> Iterator[StreamBatch]:
    """Poll until all that is there has been read."""
    while PARTITION not in following.read_to_end():
        yield from following.poll(timeout_s=0, now_ms=NOW_MS)


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    put(tmp_path / "in" / "b.ndjson", lines("b", 70), age=1)
    put(tmp_path / "in" / "a.ndjson.gz", gzip.compress(lines("a", 40)), age=2)
    put(tmp_path / "in" / "day" / "c.csv", b"user_id,timestamp,url\nc-0,1,x\nc-1,bad,x\n", age=2)
    put(tmp_path / "in" / "empty.ndjson", b"", age=0)
    rows = pa.table({"user_id": ["p-0", "p-1"], "timestamp": [1, 2], "url": ["u", "v"]})
    pq.write_table(rows, tmp_path / "in" / ".p")
    put(tmp_path / "in" / "p.parquet", (tmp_path / "in" / ".p").read_bytes(), age=3)
    for name in (".hidden.ndjson", "_SUCCESS", "x.ndjson.tmp", "y.part", "z.crdownload", "readme.txt", "_t/q.ndjson"):
        put(tmp_path / "in" / name, lines("never", 3))
    return tmp_path


EVERYTHING = expected(("b", 70), ("a", 40), ("c", 1), ("p", 2))


def test_all_formats_in_the_order_of_time_and_name(filled: Path) -> None:
    following = source(filled)
    batches = list(everything(following))
    assert users(batches) == EVERYTHING
    assert len(batches) > 6
    assert sum(batch.rejected.num_rows for batch in batches) == 1
    assert batches[0].ranges == {"empty.ndjson": (0, FINISHED)}
    assert {batch.partition for batch in batches} == following.partitions() == {PARTITION}
    for batch in batches:
        ((first, after),) = batch.ranges.values()
        assert after in (first + batch.consumed, FINISHED)
    assert set(batches[0].events.column_names) == following.event_columns
    put(filled / "in" / "later.ndjson", lines("later", 2), age=5)
    assert users(following.poll(timeout_s=0, now_ms=NOW_MS)) == expected(("later", 2))
    assert list(everything(following)) == []
    following.close()


def test_links_that_lead_out_are_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path / "in" / "day" / "a.ndjson", lines("a", 3))
    put(tmp_path / "secret.txt", b"password=hunter2\n")
    (tmp_path / "in" / "out.ndjson").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "in" / "inside.ndjson").symlink_to(tmp_path / "in" / "day" / "a.ndjson")
    batches = list(everything(source(tmp_path)))
    assert sorted(users(batches)) == sorted(expected(("a", 3), ("a", 3)))
    assert sum(batch.rejected.num_rows for batch in batches) == 0
    assert [record.getMessage() for record in caplog.records if "link" in record.getMessage()] != []


def test_a_link_that_is_named_itself_is_read(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere.ndjson", lines("a", 3))
    (tmp_path / "named.ndjson").symlink_to(tmp_path / "elsewhere.ndjson")
    assert users(list(everything(source(tmp_path, tmp_path / "named.ndjson")))) == expected(("a", 3))


def test_a_kill_after_any_batch_loses_and_doubles_nothing(filled: Path) -> None:
    whole = list(everything(source(filled)))
    for killed in range(len(whole) + 1):
        before: list[StreamBatch] = []
        positions: dict[str, int] = {}
        first = source(filled)
        for batch in everything(first):
            if len(before) == killed:
                break
            before.append(batch)
            positions |= {place: end for place, (_, end) in batch.ranges.items()}
        first.close()
        second = source(filled, batch_bytes=999_999)
        second.seek(positions)
        after = list(everything(second))
        assert users(before) + users(after) == EVERYTHING
        assert [b.ranges for b in before + after] == [b.ranges for b in whole]


def test_an_epoch_is_repeated_exactly_and_goes_on(filled: Path) -> None:
    whole = list(everything(source(filled)))
    # in the middle of a file to the middle of another one
    for begin, end in ((1, 3), (2, len(whole) - 2), (0, len(whole))):
        positions: dict[str, int] = {}
        for batch in whole[:begin]:
            positions |= {place: last for place, (_, last) in batch.ranges.items()}
        ranges: dict[str, tuple[int, int]] = {}
        for batch in whole[begin:end]:
            for place, (first, last) in batch.ranges.items():
                ranges[place] = (ranges.get(place, (first, 0))[0], last)
        again = source(filled)
        again.seek(positions)
        repeated = list(again.read(dict(reversed(ranges.items())), now_ms=7))
        assert users(repeated) == users(whole[begin:end])
        assert users(list(everything(again))) == users(whole[end:])


class Shaky(DirectorySource):
    """Its file server does not answer one look at a file, the n-th after `looks_left` was set."""

    looks_left = 0

    def _seen(self, place: str) -> Any:
        self.looks_left -= 1
        if self.looks_left == 0:
            raise UnavailableError("no answer")
        return super()._seen(place)


def test_a_file_that_cannot_be_reached_for_a_moment_is_read_on_where_it_was(filled: Path) -> None:
    whole = [batch.ranges for batch in everything(source(filled))]
    failures = 0
    for number in range(1, 80):
        following = Shaky(
            [filled / "in"],
            dialect=dialect_named("clicks"),
            book=filled / f"book-{number}",
            batch_bytes=2_000,
        )
        following.looks_left = number
        read: list[StreamBatch] = []
        while PARTITION not in following.read_to_end():
            try:
                read += following.poll(timeout_s=0, now_ms=NOW_MS)
            except UnavailableError:
                failures += 1
        assert [batch.ranges for batch in read] == whole, number
        assert users(read) == EVERYTHING
    assert failures > 20


def test_what_is_the_present_is_kept_for_a_repetition(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.ndjson", lines("a", 100))
    first = source(tmp_path, max_future_ms=20)
    once = first.poll(timeout_s=0, now_ms=NOW_MS)
    once += first.poll(timeout_s=0, now_ms=NOW_MS + 9_999)
    assert sum(batch.rejected.num_rows for batch in once) > 0
    again = list(source(tmp_path, max_future_ms=20).read({"a.ndjson": (0, once[1].ranges["a.ndjson"][1])}, now_ms=0))
    assert [(b.events, b.rejected) for b in again] == [(b.events, b.rejected) for b in once]


def test_finished_files_may_go_and_begun_ones_may_not(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.ndjson", lines("a", 3))
    put(tmp_path / "in" / "b.ndjson", lines("b", 70), age=1)
    following = source(tmp_path)
    done, begun = (following.poll(timeout_s=0, now_ms=NOW_MS)[0] for _ in range(2))
    (tmp_path / "in" / "a.ndjson").unlink()
    positions = {"a.ndjson": FINISHED, "b.ndjson": begun.ranges["b.ndjson"][1]}
    following.seek(positions)
    assert users(list(everything(following))) == expected(("b", 70))[begun.consumed :]
    with pytest.raises(InputError, match=r"(?s)gone that has not been read.*a\.ndjson"):
        list(source(tmp_path).read(done.ranges, now_ms=0))
    (tmp_path / "in" / "b.ndjson").unlink()
    following = source(tmp_path)
    following.seek(positions)
    with pytest.raises(InputError, match=r"(?s)gone that has not been read.*b\.ndjson"):
        following.poll(timeout_s=0, now_ms=NOW_MS)


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.ndjson", lines("a", 70))
    following = source(tmp_path)
    following.poll(timeout_s=0, now_ms=NOW_MS)
    with open(tmp_path / "in" / "a.ndjson", "ab") as file:
        file.write(lines("more", 1))
    with pytest.raises(InputError, match="changed after reading it had begun"):
        following.poll(timeout_s=0, now_ms=NOW_MS)


def test_a_finished_file_that_is_replaced_is_told_and_not_read(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.ndjson", lines("a", 3))
    following = source(tmp_path)
    assert users(list(everything(following))) == expected(("a", 3))
    put(tmp_path / "in" / "a.ndjson", lines("other", 3), age=9)
    assert following.poll(timeout_s=0, now_ms=NOW_MS) == []
    assert following.replaced == {"a.ndjson"}


def test_a_growing_file_waits_until_it_has_settled(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    following = source(tmp_path, settle_s=0.3)
    path = tmp_path / "in" / "a.ndjson"
    path.write_bytes(lines("a", 1))
    assert following.poll(timeout_s=0, now_ms=NOW_MS) == []
    assert following.read_to_end() == frozenset()
    with open(path, "ab") as file:
        file.write(lines("b", 1))
    os.utime(path, (LONG_AGO_S, LONG_AGO_S))
    assert following.poll(timeout_s=0, now_ms=NOW_MS) == []
    assert users(following.poll(timeout_s=20, now_ms=NOW_MS)) == ["a-0", "b-0"]


def test_patterns_and_several_directories(tmp_path: Path) -> None:
    put(tmp_path / "one" / "a.ndjson", lines("a", 1), age=1)
    put(tmp_path / "two" / "a.ndjson", lines("b", 1), age=2)
    put(tmp_path / "two" / "a.csv", b"user_id,timestamp,url\nno,1,x\n")
    batches = list(everything(source(tmp_path, tmp_path / "one", str(tmp_path / "two" / "*.ndjson"))))
    assert [next(iter(batch.ranges)) for batch in batches] == ["one/a.ndjson", "two/a.ndjson"]
    with pytest.raises(InputError, match="does not exist"):
        source(tmp_path, tmp_path / "nowhere")


def test_a_torn_book_counts_as_far_as_it_is_whole(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.ndjson", lines("a", 3))
    list(everything(source(tmp_path)))
    path = tmp_path / "state" / "book"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    following = source(tmp_path)
    following.seek({"a.ndjson": FINISHED})
    put(tmp_path / "in" / "b.ndjson", lines("b", 1), age=3)
    assert users(list(everything(following))) == ["b-0"]
    assert list(Book(path).entries) == ["a.ndjson", "b.ndjson"]
    path.write_bytes(b"{}\n" + whole)
    with pytest.raises(StateError, match=r"(?s)book of followed files is damaged.*line 1"):
        source(tmp_path)
    path.unlink()
    following = source(tmp_path)
    following.seek({"a.ndjson": 2})
    with pytest.raises(InputError, match="not in the book"):
        following.poll(timeout_s=0, now_ms=NOW_MS)


def test_a_file_whose_name_is_no_text_can_have_broken_lines(tmp_path: Path) -> None:
    """Its name stands beside each rejected record, and columns of text take only UTF-8."""
    put(tmp_path / "in" / os.fsdecode(b"caf\xe9.ndjson"), b"junk\n" + lines("a", 2))
    put(tmp_path / "in" / "café.ndjson", b"junk\n" + lines("b", 2), age=1)
    batches = list(everything(source(tmp_path)))
    assert users(batches) == expected(("a", 2), ("b", 2))
    sources = [Path(name).name for batch in batches for name in batch.rejected["source"].to_pylist()]
    assert sources == ["caf�.ndjson", "café.ndjson"]
