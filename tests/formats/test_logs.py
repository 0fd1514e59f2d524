"""Logs to columns: combined, common, W3C extended, and any other by a pattern."""

import io
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessionize.errors import ConfigError, InputError
from sessionize.formats.dialects import DIALECTS, Dialect
from sessionize.formats.input_format import InputFormat
from sessionize.formats.lines import LineIndex
from sessionize.formats.logs import combined
from sessionize.formats.logs.lines import LogLines
from sessionize.formats.logs.times import times_of_logs
from sessionize.formats.logs.usual import usual_lines
from sessionize.formats.logs.w3c import W3cLines

BY_IP = Dialect.mapping(user="ip", time="time", page="page")
COMBINED = InputFormat(format="combined")
AGENT = 'Browser/9 (desk \\"top\\")'
LOG = rf"""192.0.2.7 - - [03/Oct/2016:03:20:11 -0400] "GET /hls/index.m3u8 HTTP/1.1" 200 128 "-" "Player/1.0 (en_us)"
192.0.2.7 - - [03/Oct/2016:03:21:31 -0400] "GET /hls/index.m3u8 HTTP/1.1" 304 0 "-" "{AGENT}"
192.0.2.9 - bob [03/Oct/2016:08:22:51 +0100] "GET /a?b=c HTTP/1.1" 404 12 "https://example.org/" "Browser/9"
2001:db8::1 - - [03/Oct/2016:03:59:59 -0400] "-" 400 0 "-" "-"
this line is no log line
198.51.100.1 - - [03/Oct/2016:04:00:00 -0400] "GET / HTTP/1.0" 200 -
"""
W3C = b"""#Software: Example Server 8.0
#Version: 1.0
#Date: 2010-09-21 23:59:00
#Fields: date time c-ip cs-method cs-uri-stem cs-uri-query cs(User-Agent) sc-status
2010-09-21 23:59:59 198.51.100.4 GET /a.gif x=1 Browser/5.0+(Windows;+en) 200
2010-09-22 00:01:59 198.51.100.4 GET /b.gif - Browser/5.0+(Windows;+en) 200
2010-09-22 00:02:00 198.51.100.4 GET /b.gif - Robot/1
#Fields: date time c-ip cs-uri-stem cs(User-Agent)
2010-09-22 00:40:00 198.51.100.4 /c.gif Browser/5.0+(Windows;+en)
"""


def decoded(decoder: Any, *pieces: bytes) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    line = 1
    for piece in pieces:
        line += decoder.add(piece, source="log", first_line=line, at_start=line == 1)
    decoder.flush()
    found = decoder.take()
    return found.events.to_pylist(), found.rejected.to_pylist()


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def test_combined() -> None:
    events, rejected = decoded(LogLines(BY_IP, COMBINED, source="log", extras=True), LOG.encode())
    assert [(event["user"], event["event_time_ms"], event["page"]) for event in events] == [
        ("192.0.2.7", ms("2016-10-03T07:20:11Z"), "/hls/index.m3u8"),
        ("192.0.2.7", ms("2016-10-03T07:21:31Z"), "/hls/index.m3u8"),
        ("192.0.2.9", ms("2016-10-03T07:22:51Z"), "/a?b=c"),
        ("2001:db8::1", ms("2016-10-03T07:59:59Z"), None),
        ("198.51.100.1", ms("2016-10-03T08:00:00Z"), "/"),
    ]
    agents = ["Player/1.0 (en_us)", 'Browser/9 (desk "top")', "Browser/9", None, None]
    assert [event["user_agent"] for event in events] == agents
    assert [event["status"] for event in events] == ["200", "304", "404", "400", "200"]
    assert [event["bytes"] for event in events] == ["128", "0", "12", "0", None]
    assert [event["auth_user"] for event in events] == [None, None, "bob", None, None]
    (record,) = rejected
    assert (record["line_number"], record["reason"]) == (5, "no_match")
    assert record["raw"] == b"this line is no log line"


def test_pages_without_their_query() -> None:
    lines = LOG.encode() + b'::1 - - [03/Oct/2016:04:00:00 -0400] "GET /a\\"b?c HTTP/1.0" 200 -\n'
    without = InputFormat(format="combined", page_query=False)
    events, _ = decoded(LogLines(BY_IP, without, source="log"), lines)
    assert [event["page"] for event in events[2:]] == ["/a", None, "/", '/a"b']


@pytest.mark.parametrize(
    ("line", "usual"),
    [
        (b'a - - [03/Oct/2016:03:20:11 -0400] "GET /a?b HTTP/1.1" 200 1 "-" "u b"', True),
        (b'a - - [03/Oct/2016:03:20:11 -0400] "OPTIONS * HTTP/2" 200 -', True),
        (b'a - - [03/Oct/2016:03:20:11 -0400] "GET /a b HTTP/1.1" 200 1', False),
        (b'a - b [03/Oct/2016:03:20:11 -0400] "GET /a HTTP/1.1" 200 1', False),
        (b'a - - [33/Oct/2016:03:20:11 -0400] "GET /a HTTP/1.1" 200 1', False),
        (b'a - - [03/Oct/2016:03:20:11 -0400] "GET /a HTTP/1.1" 200 1 "-" "\\\\"', False),
    ],
)
def test_usual_lines(line: bytes, usual: bool) -> None:
    index = LineIndex(memoryview(line))
    _, rows, _ = usual_lines(index, index.starts, index.ends, page_query=True)
    assert rows.tolist() == [0] * usual


def test_users_by_address_and_browser() -> None:
    dialect = Dialect.mapping(user=combined_user(), time="time")
    events, _ = decoded(LogLines(dialect, COMBINED, source="log"), LOG.encode())
    assert len({event["user"] for event in events[:3]}) == 3


def combined_user() -> Any:
    from sessionize.formats.paths.language import parse_field_path

    return parse_field_path("ip+user_agent", joins=True)


@pytest.mark.parametrize(
    "line",
    [
        b'a b c [03/Oct/2016:03:20:11 -0400] "GET /" 200 1 "r" "u" 0.003 extra',
        b'a b c [03/Oct/2016:03:20:11 -0400] "" 200 1',
        b'a - john doe [03/Oct/2016:03:20:11 -0400] "GET / HTTP/1.1" 200 1 "-" "-"',
        b'a b c [03/Oct/2016:03:20:11 -0400] "GET / HTTP/1.1" - - "-" "-"\r',
        b'a b c [03/Oct/2016:03:20:11 -0400] "\\x16\\x03\\"" 400 0 "-" "-"',
    ],
)
def test_lines_that_are_events(line: bytes) -> None:
    events, rejected = decoded(LogLines(BY_IP, COMBINED, source="log"), line + b"\n\n")
    assert (len(events), rejected) == (1, [])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'a b c [32/Oct/2016:03:20:11 -0400] "GET /" 200 1', "invalid_time"),
        (b'a b c [29/Feb/2015:03:20:11 -0400] "GET /" 200 1', "invalid_time"),
        (b'a b c [03/oct/2016:03:20:11 -0400] "GET /" 200 1', "invalid_time"),
        (b'a b c [03/Oct/2016:24:20:11 -0400] "GET /" 200 1', "invalid_time"),
        (b'a b c [03/Oct/2016:03:20:11] "GET /" 200 1', "invalid_time"),
        (b'a b c [03/Oct/2016:03:20:11 -0400] "GET /" 2000 1', "no_match"),
        (b'a b c [03/Oct/2016:03:20:11 -0400] "GET /" 200', "no_match"),
        (b'a b c [03/Oct/2016:03:20:11 -0400] "GET / 200 1 "-" "-"', "no_match"),
        (b'- b c [03/Oct/2016:03:20:11 -0400] "GET /" 200 1', "missing_user"),
        (b'a\xff b c [03/Oct/2016:03:20:11 -0400] "GET /" 200 1', "invalid_utf8"),
    ],
)
def test_lines_that_are_none(line: bytes, reason: str) -> None:
    events, rejected = decoded(LogLines(BY_IP, COMBINED, source="log"), line)
    assert events == []
    assert [(each["reason"], each["raw"]) for each in rejected] == [(reason, line)]


WORDS = st.text(st.sampled_from('a-/?[]"\\ :é'), max_size=6)


REQUESTS = [
    "GET /a?b HTTP/1.1",
    "GET /é HTTP/2",
    "GET /a b HTTP/1.1",
    "GET  HTTP/1.1",
    "- / HTTP/1.1",
    " / HTTP/1.1",
    "-",
]


@settings(max_examples=300)
@given(
    st.lists(
        st.builds(
            lambda *parts: '{} {} {} [{}] "{}" {} {}{}'.format(*parts),
            *(WORDS, st.just("-"), st.just("-") | WORDS),
            st.sampled_from(["03/Oct/2016:03:20:11 -0400", "03/Oct/2016:03:20:61 -0400", "x"]),
            st.one_of(WORDS, st.sampled_from(REQUESTS)),
            *(st.sampled_from(["200", "200", "-", "20"]), st.sampled_from(["-", "1", '"', "", "1 2"])),
            st.sampled_from(["", ' "-" "ua b"', ' "a\\"" "b" c', ' "a"', "\r"]),
        ),
        max_size=6,
    ),
    st.booleans(),
)
def test_both_ways_of_splitting_agree(lines: list[str], page_query: bool) -> None:
    index = LineIndex(memoryview("\n".join(lines).encode()))
    places = np.flatnonzero(index.ends > index.starts)
    splitter = combined.CombinedSplitter(page_query=page_query)
    table, rows, faults = splitter.split(index, combined.COLUMNS, places)
    slow, slow_rows, slow_faults = splitter._matched(index, combined.COLUMNS, places)
    assert table.to_pylist() == slow.to_pylist()
    assert rows.tolist() == slow_rows.tolist()
    assert faults == slow_faults
    assert len(rows) + len(faults) == len(places)


@given(st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29)), st.integers(-23 * 60, 23 * 60))  # noqa: DTZ001
def test_times_are_those_of_the_calendar(when: datetime, offset: int) -> None:
    when = when.replace(microsecond=0, tzinfo=timezone(timedelta(minutes=offset)))
    sign = "-" if offset < 0 else "+"
    month = combined_month(when.month)
    hours, minutes = divmod(abs(offset), 60)
    text = f"{when:%d}/{month}/{when.year:04}:{when:%H:%M:%S} {sign}{hours:02}{minutes:02}"
    found, valid = times_of_logs(np.frombuffer(text.encode(), np.uint8).reshape(1, -1))
    assert valid.all()
    assert int(found[0]) == int((when - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 1000


def combined_month(number: int) -> str:
    return ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][number - 1]


@pytest.mark.parametrize("step", [1, 2, 100])
def test_w3c(step: int) -> None:
    dialect = Dialect.mapping(user="c-ip", time="time", page="page")
    lines = io.BytesIO(W3C).readlines()
    pieces = [b"".join(lines[at : at + step]) for at in range(0, len(lines), step)]
    events, rejected = decoded(W3cLines(dialect, InputFormat(format="w3c"), source="log", extras=True), *pieces)
    assert [(event["user"], event["event_time_ms"], event["page"], event["user_agent"]) for event in events] == [
        ("198.51.100.4", ms("2010-09-21T23:59:59Z"), "/a.gif?x=1", "Browser/5.0 (Windows; en)"),
        ("198.51.100.4", ms("2010-09-22T00:01:59Z"), "/b.gif", "Browser/5.0 (Windows; en)"),
        ("198.51.100.4", ms("2010-09-22T00:40:00Z"), "/c.gif", "Browser/5.0 (Windows; en)"),
    ]
    assert [(each["line_number"], each["reason"]) for each in rejected] == [(7, "wrong_column_count")]


def test_w3c_by_its_own_dialect_which_joins_date_and_time_where_a_log_has_joined_them_already() -> None:
    events, rejected = decoded(W3cLines(DIALECTS["w3c"], InputFormat(format="w3c"), source="log"), W3C)
    assert [(event["user"], event["event_time_ms"], event["page"]) for event in events] == [
        ("198.51.100.4", ms("2010-09-21T23:59:59Z"), "/a.gif"),
        ("198.51.100.4", ms("2010-09-22T00:01:59Z"), "/b.gif"),
        ("198.51.100.4", ms("2010-09-22T00:40:00Z"), "/c.gif"),
    ]
    assert [each["reason"] for each in rejected] == ["wrong_column_count"]
    headed = b"#Date: 2020-01-02 00:00:00\n#Fields: time\tc-ip\n10:00:00\t::1\n"
    events, _ = decoded(W3cLines(DIALECTS["w3c"], InputFormat(format="w3c"), source="log"), headed)
    assert [event["event_time_ms"] for event in events] == [ms("2020-01-02T10:00:00Z")]


def test_w3c_with_tabs_and_dates_in_the_head() -> None:
    data = b"#Date: 2020-01-02 00:00:00\n#Fields: time\tc-ip\tcs(User-Agent)\n10:00:00\t::1\ta b\n"
    dialect = Dialect.mapping(user="ip", time="time", page="user_agent")
    events, _ = decoded(W3cLines(dialect, InputFormat(format="w3c"), source="log"), data)
    assert events == [{"user": "::1", "event_time_ms": ms("2020-01-02T10:00:00Z"), "page": "a b"}]


def test_w3c_fields_that_are_missing() -> None:
    dialect = Dialect.mapping(user="c-ip", time="time")
    fields = InputFormat(format="w3c")
    events, rejected = decoded(W3cLines(dialect, fields, source="log"), b"2020-01-02 10:00:00 ::1\n")
    assert (events, rejected[0]["reason"]) == ([], "no_match")
    with pytest.raises(InputError, match="no column for the user"):
        decoded(W3cLines(dialect, fields, source="log"), b"#Fields: date time s-ip\n")
    text = b"#Fields: date time c-ip\n2020-01-02 10:00:00 ::1\n#Fields: date time\n2020-01-02 10:00:01\n"
    events, rejected = decoded(W3cLines(dialect, fields, source="log"), text)
    assert len(events) == 1
    assert "no column" in rejected[0]["detail"]


def test_any_log_by_a_pattern() -> None:
    form = InputFormat(pattern=r"^(?<when>\S+) user=(?P<who>\S+)(?: page=(?P<page>\S+))?$")
    assert form.format == "regex"
    dialect = Dialect.mapping(user="who", time="when", page="page")
    data = "2020-01-02T10:00:00Z user=é page=/x\r\n\n2020-01-02T10:00:01Z user=b\nno\n2020-01-02T10:00:02Z user=-\n"
    events, rejected = decoded(LogLines(dialect, form, source="log"), data.encode())
    assert [(event["user"], event["page"]) for event in events] == [("é", "/x"), ("b", None)]
    assert [(each["line_number"], each["reason"]) for each in rejected] == [(4, "no_match"), (5, "missing_user")]


@pytest.mark.parametrize("pattern", [r"(\S+)", r"(?P<a>\S+", r"(?P<a>x)(?P<a>y)", r"(?P<a>x)(?=y)", r"(?P<1a>x)"])
def test_patterns_that_cannot_be_read(pattern: str) -> None:
    with pytest.raises(ConfigError):
        LogLines(BY_IP, InputFormat(pattern=pattern), source="log")


@settings(max_examples=150)
@given(st.lists(st.binary(max_size=80), max_size=5), st.sampled_from(["combined", "w3c", "regex"]))
def test_any_bytes_are_events_or_rejected(lines: list[bytes], kind: str) -> None:
    pattern = r"(?P<ip>\S+) (?P<time>\S+)(?P<page>.*)" if kind == "regex" else None
    form = InputFormat(format=kind, pattern=pattern)
    make = W3cLines if kind == "w3c" else LogLines
    head = [b"#Fields: date time c-ip cs-uri-stem", b"2020-01-02 10:00:00 ::1 /"] if kind == "w3c" else []
    usable = [line.translate(None, b"\n#").replace(b"\xef\xbb\xbf", b"") for line in lines]  # a mark alone is no line
    events, rejected = decoded(make(BY_IP, form, source="log"), b"\n".join([*head, *usable, b""]))
    blank = sum(1 for line in usable if not line.strip(b" \t\r"))
    assert len(events) + len(rejected) >= len(usable) - blank + len(head) // 2 - sum(b'"' in line for line in usable)
