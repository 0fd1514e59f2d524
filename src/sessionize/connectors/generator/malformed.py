"""Malformed records: each is made from a valid one, in one of many ways seen in real streams.

A kind is a name and a function from the valid record's bytes to the malformed ones. No kind adds a line feed, so a
malformed record is always one line.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sessionize.connectors.generator.profiles import Profile

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of malformed record. make: (valid record without line feed, profile, any number) -> malformed record."""

    name: str
    make: Callable[[bytes, Profile, int], bytes]


def malformed_record(line: bytes, profile: Profile, number: int) -> bytes:
    """The record of `line` (which ends with a line feed), malformed in the way number % len(KINDS)."""
    choice, kind = divmod(number, len(KINDS))
    return KINDS[kind].make(line.rstrip(b"\n"), profile, choice) + b"\n"


def _edited(change: Callable[[Record, Profile], object]) -> Callable[[bytes, Profile, int], bytes]:
    """A record that is valid JSON with invalid content."""

    def make(line: bytes, profile: Profile, number: int) -> bytes:
        record = json.loads(line)
        change(record, profile)
        return json.dumps(record, separators=(",", ":")).encode()

    return make


def _with_user(value: object) -> Callable[[bytes, Profile, int], bytes]:
    return _edited(lambda record, profile: record.__setitem__(profile.user_field, value))


def _with_time(value: object) -> Callable[[bytes, Profile, int], bytes]:
    return _edited(lambda record, profile: record.__setitem__(profile.time_field, value))


def _without_user(record: Record, profile: Profile) -> None:
    del record[profile.user_field]


def _without_time(record: Record, profile: Profile) -> None:
    del record[profile.time_field]


def _far_future(record: Record, profile: Profile) -> None:
    """The last second of 2099 in the profile's time format."""
    forms = {"ms": 4_102_444_799_000, "ms_text": "4102444799000", "iso": "2099-12-31T23:59:59.000Z"}
    record[profile.time_field] = forms[profile.time_form]


def _inside_user(extra: bytes) -> Callable[[bytes, Profile, int], bytes]:
    """The user's name with extra bytes."""
    return lambda line, profile, number: line.replace(b'"user-', b'"user-' + extra, 1)


KINDS = (
    Kind("cut_short", lambda line, profile, number: line[: 1 + number % (len(line) - 1)]),
    Kind("cut_at_front", lambda line, profile, number: line[1 + number % (len(line) - 1) :]),
    Kind("not_json", lambda line, profile, number: b"GET /index.html HTTP/1.1 200"),
    Kind("html", lambda line, profile, number: b"<html><body>502 Bad Gateway</body></html>"),
    Kind("single_quotes", lambda line, profile, number: line.replace(b'"', b"'")),
    Kind("trailing_comma", lambda line, profile, number: line[:-1] + b",}"),
    Kind("two_in_a_line", lambda line, profile, number: line + line),
    Kind("zero_bytes", lambda line, profile, number: bytes(len(line))),
    Kind("invalid_utf8", _inside_user(b"\xff\xfe")),
    Kind("control_character", _inside_user(b"\x01")),
    Kind("lone_surrogate", _inside_user(b"\\ud800")),
    Kind("endless_nesting", lambda line, profile, number: b'{"a":' * 3_000),
    Kind("empty_object", lambda line, profile, number: b"{}"),
    Kind("list", lambda line, profile, number: b"[" + line + b"]"),
    Kind("number", lambda line, profile, number: str(number).encode()),
    Kind("null", lambda line, profile, number: b"null"),
    Kind("user_missing", _edited(_without_user)),
    Kind("user_null", _with_user(None)),
    Kind("user_empty", _with_user("")),
    Kind("user_blank", _with_user(" ")),
    Kind("user_too_long", _inside_user(b"x" * 2_000)),
    Kind("user_fraction", _with_user(1.5)),
    Kind("user_object", _with_user({"id": "user-1"})),
    Kind("time_missing", _edited(_without_time)),
    Kind("time_null", _with_time(None)),
    Kind("time_empty", _with_time("")),
    Kind("time_words", _with_time("yesterday")),
    Kind("time_true", _with_time(True)),
    Kind("time_list", _with_time([2026, 1, 5])),
    Kind("time_month_13", _with_time("2026-13-45T25:61:00Z")),
    Kind("time_endless", _with_time(10**30)),
    Kind("time_nan", _with_time(float("nan"))),
    Kind("time_2099", _edited(_far_future)),
)
