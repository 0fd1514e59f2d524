"""Small inputs as people bring them, each with its right value: what opening and the text formats decide."""

import bz2
import gzip
import lzma
from pathlib import Path
from typing import Any

import pytest

from sessionize.connectors.files.source import FileSource
from sessionize.formats.dialects import Dialect, dialect_named
from sessionize.formats.input_format import AUTO, InputFormat

AMOUNTS = b'user;when;amount\r\nA;2021-01-13 10:00;"1.234,50"\r\nA;2021-01-13 10:05;0,50\r\n'
UTF16 = "user,ts\r\nÄnne,2021-01-13 10:00\r\n".encode("utf-16")
TABS = "user_id\ttimestamp\tpage\tamount\nu1\t2026-03-02 10:00:00\t/a\t1,5\nu1\t2026-03-02 10:10:00\t/b\t2,25\n"
LATIN1 = "user_id,timestamp,page\nu1,2026-03-02 10:00:00,/café\n".encode("latin-1")
NULLS = (
    b"user_id,timestamp,page\nNULL,2026-03-02 10:00:00,/a\n\\N,2026-03-02 10:02:00,/c\nu1,2026-03-02 10:03:00,NULL\n"
)
PLAIN = b"user_id,timestamp,page\nu1,2026-03-02 10:00:00,/a\nu1,2026-03-02 10:10:00,/b\nu1,2026-03-02 11:00:00,/c\n"
ARRAY = b'[{"user_id":"u1","timestamp":1610532000000},\n {"user_id":"u1","timestamp":1610532001000}]\n'


def mapped(user: str = "user_id", time: str = "timestamp", **more: str) -> Dialect:
    return Dialect.mapping(user=user, time=time, **more)


@pytest.mark.parametrize(
    ("name", "data", "dialect", "form", "column", "expected", "rejected"),
    [
        ("semicolon.csv", AMOUNTS, mapped("user", "when", value="amount"), {"decimal": ","}, "value", [1234.5, 0.5], 0),
        ("utf16.csv", UTF16, mapped("user", "ts"), {}, "user", ["Änne"], 0),
        ("utf16-tab.csv", TABS.encode("utf-16"), mapped(value="amount"), {"decimal": ","}, "value", [1.5, 2.25], 0),
        ("latin1.csv", LATIN1, mapped(page="page"), {"encoding": "latin-1"}, "page", ["/café"], 0),
        ("nulls.csv", NULLS, mapped(page="page"), {"null_values": ("NULL", "\\N")}, "page", [None], 2),
        (
            *("headerless.csv", b"A,1610532000000,/x\nA,1610532300000,/y\n", mapped("user", "ts")),
            *({"columns": ("user", "ts", "page")}, "event_time_ms", [1610532000000, 1610532300000], 0),
        ),
        ("array.json", ARRAY, mapped(), {}, "event_time_ms", [1610532000000, 1610532001000], 0),
        ("gzip-without-ending.csv", gzip.compress(PLAIN), mapped(page="page"), {}, "page", ["/a", "/b", "/c"], 0),
        ("events.csv.bz2", bz2.compress(PLAIN), mapped(page="page"), {}, "page", ["/a", "/b", "/c"], 0),
        ("events.csv.xz", lzma.compress(PLAIN), mapped(page="page"), {}, "page", ["/a", "/b", "/c"], 0),
        ("d.txt", PLAIN, mapped(page="page"), {}, "page", ["/a", "/b", "/c"], 0),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_the_value_is_right(
    tmp_path: Path,
    name: str,
    data: bytes,
    dialect: Dialect,
    form: dict[str, Any],
    column: str,
    expected: list[Any],
    rejected: int,
) -> None:
    (tmp_path / name).write_bytes(data)
    (batch,) = FileSource(tmp_path, dialect=dialect, input_format=InputFormat(**form) if form else AUTO).batches()
    assert batch.events[column].to_pylist() == expected
    assert batch.rejected.num_rows == rejected


def test_logs(tmp_path: Path) -> None:
    line = '192.0.2.7 - - [03/Oct/2016:03:20:11 -0400] "GET /a?b HTTP/1.1" 200 1 "-" "Player/1.0"\n'
    (tmp_path / "access").write_text(line + line.replace(".7 ", ".9 ") + "this line is no log line\n")
    (batch,) = FileSource(tmp_path / "access", dialect=dialect_named("combined")).batches()
    assert batch.events["user"].to_pylist() == ["192.0.2.7", "192.0.2.9"]
    assert batch.events["event_time_ms"].to_pylist() == [1475479211000] * 2
    assert batch.rejected["line_number"].to_pylist() == [3]
    (tmp_path / "ex.log").write_bytes(
        b"#Fields: date time c-ip cs-uri-stem\n2010-09-21 23:59:59 ::1 /a.gif\n"
        b"#Fields: time date c-ip\n00:01:59 2010-09-22 ::1\n"
    )
    (batch,) = FileSource(tmp_path / "ex.log", dialect=mapped("c-ip", "time")).batches()
    assert batch.events["user"].to_pylist() == ["::1"] * 2
    assert batch.events["event_time_ms"].to_pylist() == [1285113599000, 1285113719000]
