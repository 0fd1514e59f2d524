"""A followed directory: every file once, in order, through kills at any batch, and never half a file."""

import gzip
import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sessionize.connectors.files.directory_scan import Folder
from sessionize.connectors.files.directory_source import PARTITION, STRIDE
from sessionize.connectors.files.file_log import FileLog
from sessionize.errors import InputError, UnavailableError
from sessionize.ports import StreamBatch
from tests.connectors.files.following import LONG_AGO_S, NOW_MS, everything, expected, lines, put, source, users


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
    assert batches[0].ranges == {PARTITION: (0, STRIDE)}
    assert {batch.partition for batch in batches} == following.partitions() == {PARTITION}
    at = 0
    for batch in batches:
        assert batch.ranges.keys() == {PARTITION}
        first, after = batch.ranges[PARTITION]
        assert first == at
        assert after in (first + batch.consumed, (first // STRIDE + 1) * STRIDE)
        at = after
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
    assert users(batches) == expected(("a", 3))
    assert sum(batch.rejected.num_rows for batch in batches) == 0
    assert [record.getMessage() for record in caplog.records if "link" in record.getMessage()] != []


def test_a_link_that_is_named_itself_is_read(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere.ndjson", lines("a", 3))
    (tmp_path / "named.ndjson").symlink_to(tmp_path / "elsewhere.ndjson")
    assert users(list(everything(source(tmp_path, tmp_path / "named.ndjson")))) == expected(("a", 3))


def test_folders_that_are_links_lead_nowhere_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path / "in" / "day" / "a.ndjson", lines("a", 3))
    put(tmp_path / "secret" / "b.ndjson", lines("b", 3))
    (tmp_path / "in" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "in" / "round").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "day" / "again").symlink_to(tmp_path / "in" / "day")
    pattern = tmp_path / "in" / "**" / "*.ndjson"
    assert users(list(everything(source(tmp_path, pattern)))) == expected(("a", 3))
    assert "out/b.ndjson is a link to a file outside" in caplog.text


def test_a_link_to_a_file_that_is_not_followed_itself_is_read(tmp_path: Path) -> None:
    """As folders are exchanged as a whole, by one link to a hidden one."""
    put(tmp_path / "real" / "in" / "..data" / "a.ndjson", lines("a", 3))
    (tmp_path / "real" / "in" / "a.ndjson").symlink_to(Path("..data") / "a.ndjson")
    (tmp_path / "in").symlink_to(tmp_path / "real" / "in")
    following = source(tmp_path)
    assert users(list(everything(following))) == expected(("a", 3))
    put(tmp_path / "in" / "b.ndjson", lines("b", 2))
    (tmp_path / "in" / "current.ndjson").symlink_to("b.ndjson")
    assert users(list(everything(following))) == []  # what the last look found is asked first
    assert users(following.poll(timeout_s=20, now_ms=NOW_MS)) == expected(("b", 2))
    assert list(everything(following)) == []


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
        second = source(filled, batch_records=999_999)
        second.seek(positions)
        after = list(everything(second))
        assert users(before) + users(after) == EVERYTHING
        number, begun = divmod(positions.get(PARTITION, 0), STRIDE)
        if begun:  # a file that was begun is cut as before
            cuts = [
                [b.ranges for b in of if b.ranges[PARTITION][0] // STRIDE == number] for of in (before + after, whole)
            ]
            assert cuts[0] == cuts[1]
            assert len(cuts[0]) > 1


def test_an_epoch_is_repeated_exactly_and_goes_on(filled: Path) -> None:
    whole = list(everything(source(filled)))
    # in the middle of a file to the middle of another one
    for begin, end in ((1, 3), (2, len(whole) - 2), (0, len(whole)), (3, 3)):
        first, last = whole[begin].ranges[PARTITION][0], whole[max(begin, end - 1)].ranges[PARTITION][1]
        again = source(filled)
        again.seek({PARTITION: first})
        repeated = list(again.read({PARTITION: (first, last if end > begin else first)}, now_ms=7))
        assert users(repeated) == users(whole[begin:end])
        assert users(list(everything(again))) == users(whole[end:])


def test_a_file_that_cannot_be_reached_for_a_moment_is_read_on_where_it_was(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [batch.ranges for batch in everything(source(filled))]
    looks_left, seen = 0, Folder.seen

    def shaky(self: Folder, place: str) -> Any:
        nonlocal looks_left
        looks_left -= 1
        if looks_left == 0:
            raise UnavailableError("no answer")
        return seen(self, place)

    monkeypatch.setattr(Folder, "seen", shaky)
    failures = 0
    for number in range(1, 80):
        looks_left = 0
        following = source(filled, log_path=filled / f"book-{number}")
        looks_left = number
        read: list[StreamBatch] = []
        while PARTITION not in following.caught_up():
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
    again = list(source(tmp_path, max_future_ms=20).read({PARTITION: (0, once[1].ranges[PARTITION][1])}, now_ms=0))
    assert [(b.events, b.rejected) for b in again] == [(b.events, b.rejected) for b in once]


def test_finished_files_may_go_and_begun_ones_may_not(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.ndjson", lines("a", 3))
    put(tmp_path / "in" / "b.ndjson", lines("b", 70), age=1)
    following = source(tmp_path)
    done, begun = (following.poll(timeout_s=0, now_ms=NOW_MS)[0] for _ in range(2))
    (tmp_path / "in" / "a.ndjson").unlink()
    positions = {PARTITION: begun.ranges[PARTITION][1]}
    following.seek(positions)
    assert users(list(everything(following))) == expected(("b", 70))[begun.consumed :]
    with pytest.raises(InputError, match=r"(?s)removed before it was read to its end.*a\.ndjson"):
        list(source(tmp_path).read(done.ranges, now_ms=0))
    (tmp_path / "in" / "b.ndjson").unlink()
    following = source(tmp_path)
    following.seek(positions)
    with pytest.raises(InputError, match=r"(?s)removed before it was read to its end.*b\.ndjson"):
        following.poll(timeout_s=0, now_ms=NOW_MS)


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.ndjson", lines("a", 70))
    following = source(tmp_path)
    following.poll(timeout_s=0, now_ms=NOW_MS)
    with open(tmp_path / "in" / "a.ndjson", "ab") as file:
        file.write(lines("more", 1))
    with pytest.raises(InputError, match="changed after reading had started"):
        following.poll(timeout_s=0, now_ms=NOW_MS)


def test_a_finished_file_that_grows_is_told_and_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path / "in" / "a.ndjson", lines("a", 3))
    following = source(tmp_path)
    assert users(list(everything(following))) == expected(("a", 3))
    with open(tmp_path / "in" / "a.ndjson", "ab") as file:
        file.write(lines("other", 3))
    give_up_s = time.monotonic() + 60
    while not following.replaced:
        assert following.poll(timeout_s=0.1, now_ms=NOW_MS) == []
        assert time.monotonic() < give_up_s
    assert following.replaced == {"a.ndjson"}
    unread = f"the {len(lines('other', 3)):,} bytes after its first {len(lines('a', 3)):,} are not read"
    assert f"a.ndjson changed after it was read: {unread}; give each file its own name" in caplog.text


def test_a_growing_file_waits_until_it_has_settled(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    following = source(tmp_path, settle_s=0.3)
    path = tmp_path / "in" / "a.ndjson"
    path.write_bytes(lines("a", 1))
    assert following.poll(timeout_s=0, now_ms=NOW_MS) == []
    assert following.caught_up() == frozenset()
    with open(path, "ab") as file:
        file.write(lines("b", 1))
    os.utime(path, (LONG_AGO_S, LONG_AGO_S))
    assert following.poll(timeout_s=0, now_ms=NOW_MS) == []
    assert users(following.poll(timeout_s=20, now_ms=NOW_MS)) == ["a-0", "b-0"]


def test_a_file_that_cannot_be_read_yet_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "in" / "a.parquet"
    path.parent.mkdir()
    following = source(tmp_path, settle_s=0)
    for size in (1, 2):  # a writer is at it
        path.write_bytes(b"x" * size)
        for _ in range(3):
            assert following.poll(timeout_s=0, now_ms=NOW_MS) == []
    waits = "a.parquet cannot be read yet, retrying until it is unchanged for 60 s"
    assert caplog.text.count(waits) == 1


def test_patterns_and_several_directories(tmp_path: Path) -> None:
    put(tmp_path / "one" / "a.ndjson", lines("a", 1), age=1)
    put(tmp_path / "two" / "a.ndjson", lines("b", 1), age=2)
    put(tmp_path / "two" / "a.csv", b"user_id,timestamp,url\nno,1,x\n")
    batches = list(everything(source(tmp_path, tmp_path / "one", str(tmp_path / "two" / "*.ndjson"))))
    assert users(batches) == expected(("a", 1), ("b", 1))
    assert [e.place for e in FileLog(tmp_path / "state" / "book").entries] == ["one/a.ndjson", "two/a.ndjson"]
    with pytest.raises(InputError, match="does not exist"):
        source(tmp_path, tmp_path / "nowhere")


def test_a_file_that_was_taken_up_and_not_read_for_good_is_taken_up_anew(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.ndjson", lines("a", 3), age=5)
    put(tmp_path / "in" / "c.ndjson", lines("c", 3), age=6)
    assert users(list(everything(source(tmp_path)))) == expected(("a", 3), ("c", 3))
    (tmp_path / "in" / "a.ndjson").unlink()  # nothing of it was ever in an epoch
    put(tmp_path / "in" / "b.ndjson", lines("b", 3), age=1)
    for _again in range(2):
        assert users(list(everything(source(tmp_path)))) == expected(("b", 3), ("c", 3))
    assert [entry.place for entry in FileLog(tmp_path / "state" / "book").entries] == ["b.ndjson", "c.ndjson"]


def test_a_file_whose_name_is_no_text_can_have_broken_lines(tmp_path: Path) -> None:
    """Its name stands beside each rejected record, and columns of text take only UTF-8."""
    put(tmp_path / "in" / os.fsdecode(b"caf\xe9.ndjson"), b"junk\n" + lines("a", 2))
    put(tmp_path / "in" / "café.ndjson", b"junk\n" + lines("b", 2), age=1)
    batches = list(everything(source(tmp_path)))
    assert users(batches) == expected(("a", 2), ("b", 2))
    sources = [Path(name).name for batch in batches for name in batch.rejected["source"].to_pylist()]
    assert sources == ["caf�.ndjson", "café.ndjson"]


def test_a_look_at_a_folder_of_finished_files_asks_for_new_ones_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        put(tmp_path / "in" / f"{number:02}.ndjson", lines("a", 1), age=number)
    following = source(tmp_path)
    assert len(list(everything(following))) == 50
    asked: list[str] = []
    seen = Folder.seen

    def noting(self: Folder, place: str) -> Any:
        asked.append(place)
        return seen(self, place)

    monkeypatch.setattr(Folder, "seen", noting)
    put(tmp_path / "in" / "x.ndjson", lines("x", 1))
    began_s = time.monotonic()
    polls = [following.poll(timeout_s=0, now_ms=NOW_MS) for _ in range(40)]
    rechecks = 2 + int(time.monotonic() - began_s)
    assert users([batch for poll in polls for batch in poll]) == ["x-0"]
    assert 0 < asked.count("x.ndjson") < 10
    assert len(asked) < 10 + rechecks * 51
    assert max(map(asked.count, asked)) < 10


def test_many_small_rejects_come_in_bounded_batches_and_the_same_ones_again(tmp_path: Path) -> None:
    bomb = b"x\n" * 10_000 + lines("a", 5) + b"\n" * 30_000 + b"y\n" * 2_500
    put(tmp_path / "in" / "a.ndjson", bomb)
    put(tmp_path / "in" / "b.ndjson.gz", gzip.compress(bomb), age=1)
    put(tmp_path / "in" / "c.csv", b"user_id,timestamp,url\n" + b"x\n" * 10_000 + b"c-0,1,x\n", age=2)
    table = pa.table({"user_id": pa.array([None] * 7_000, pa.string()), "timestamp": range(7_000)})
    pq.write_table(table.append_column("url", table["user_id"]), tmp_path / "in" / ".d", row_group_size=5_000)
    put(tmp_path / "in" / "d.parquet", (tmp_path / "in" / ".d").read_bytes(), age=3)
    whole = list(everything(source(tmp_path, batch_records=1_000)))
    assert max(batch.consumed for batch in whole) < 2_000
    assert users(whole) == expected(("a", 5), ("a", 5), ("c", 1))
    assert sum(batch.rejected.num_rows for batch in whole) == 12_500 * 2 + 10_000 + 7_000
    numbers = [n for batch in whole for n in batch.rejected["line_number"].to_pylist()]
    assert numbers[9_999:12_500] == [10_000, *range(40_006, 42_506)]
    for at in (5, len(whole) // 2, len(whole) - 3):
        again = source(tmp_path, batch_records=7)
        again.seek({PARTITION: whole[at - 1].ranges[PARTITION][1]})
        more = list(again.read({PARTITION: (whole[at].ranges[PARTITION][0], whole[-1].ranges[PARTITION][1])}, now_ms=0))
        assert [(b.ranges, b.rejected) for b in more] == [(b.ranges, b.rejected) for b in whole[at:]]


def test_a_file_of_blank_lines_does_not_keep_the_caller_waiting(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.ndjson.gz", gzip.compress(lines("a", 1) + b"\n" * 800_000 + lines("b", 1)))
    following = source(tmp_path, batch_records=10_000)
    polls = []
    while PARTITION not in following.caught_up():
        polls.append(following.poll(timeout_s=5, now_ms=NOW_MS))
    assert polls.count([]) > 50
    batches = [batch for poll in polls for batch in poll]
    assert users(batches) == ["a-0", "b-0"]
    assert users(list(source(tmp_path).read({PARTITION: (1, STRIDE)}, now_ms=0))) == ["b-0"]
