"""Every kind of broken line, alone between two good ones: the good survive, the bad one is rejected as it is."""

from dataclasses import replace

import pyarrow as pa
import pytest

from sessionize.formats.dialects import Dialect
from sessionize.formats.json_lines import JsonLines
from sessionize.session.columns import REJECTED_SCHEMA

LENIENT = Dialect.mapping(
    user="user", time="time", event_id="id", event_type="details.type", page="page", value="amount"
)
DIALECT = replace(LENIENT, strict=True)
GOOD_BEFORE = b'{"user":"ann","time":1,"page":"/a","details":{"type":"view"},"amount":1.5,"id":"x"}'
GOOD_AFTER = b'{"user":"bob","time":"2","page":null}'
# To rejected_events; each with the reason and a word that the detail must contain.
BROKEN: dict[str, tuple[bytes, str, str]] = {
    "cut_in_a_string": (b'{"user":"u","time":1,"page":"/ho', "invalid_json", "truncated"),
    "cut_after_a_key": (b'{"user":"u","time"', "invalid_json", "truncated"),
    "cut_in_a_number": (b'{"user":"u","time":17', "invalid_json", "truncated"),
    "only_an_open_brace": (b"{", "invalid_json", "truncated"),
    "only_a_close_brace": (b"}", "invalid_json", "malformed"),
    "two_objects": (b'{"user":"u","time":1}{"user":"v","time":2}', "invalid_json", "trailing"),
    "two_objects_with_comma": (b'{"user":"u","time":1},', "invalid_json", "trailing"),
    "trailing_comma": (b'{"user":"u","time":1,}', "invalid_json", "trailing comma"),
    "single_quotes": (b"{'user':'u','time':1}", "invalid_json", "keys must be strings"),
    "bare_key": (b'{user:"u","time":1}', "invalid_json", "keys must be strings"),
    "comment": (b'{"user":"u","time":1} // note', "invalid_json", "trailing"),
    "python_none": (b'{"user":"u","time":1,"page":None}', "invalid_json", "malformed"),
    "nan": (b'{"user":"u","time":NaN}', "invalid_json", "malformed"),
    "infinity": (b'{"user":"u","time":1,"amount":Infinity}', "invalid_json", "malformed"),
    "leading_zero": (b'{"user":"u","time":017}', "invalid_json", "malformed"),
    "plus_sign": (b'{"user":"u","time":+17}', "invalid_json", "malformed"),
    "not_json_at_all": (b'199.72.81.55 - - [01/Jul/1995] "GET / HTTP/1.0" 200', "invalid_json", "malformed"),
    "html": (b"<html><body>502</body></html>", "invalid_json", "malformed"),
    "csv": (b"u,1,/home", "invalid_json", "malformed"),
    "bad_escape": (b'{"user":"u\\q","time":1}', "invalid_json", "escape"),
    "half_a_surrogate": (b'{"user":"\\udc00","time":1}', "invalid_json", "surrogate"),
    "raw_tab_in_a_string": (b'{"user":"a\tb","time":1}', "invalid_json", "malformed"),
    "raw_nul_in_a_string": (b'{"user":"a\x00b","time":1}', "invalid_json", "malformed"),
    "nul_bytes": (b"\x00" * 40, "invalid_json", "malformed"),
    "utf16": ('{"user":"u","time":1}'.encode("utf-16-le"), "invalid_json", "malformed"),
    "utf16_with_bom": ('{"user":"u","time":1}'.encode("utf-16"), "invalid_utf8", "byte 0"),
    "latin_1_in_the_user": (b'{"user":"J\xfcrgen","time":1}', "invalid_utf8", "xfc"),
    "latin_1_in_an_unread_field": (b'{"user":"u","time":1,"note":"\xe9t\xe9"}', "invalid_utf8", "byte 29"),
    "cut_utf8": (b'{"user":"\xe2\x82","time":1}', "invalid_utf8", "byte 9"),
    "overlong_utf8": (b'{"user":"\xc0\xaf","time":1}', "invalid_utf8", "byte 9"),
    "binary": (bytes(range(128, 256)), "invalid_utf8", "byte 0"),
    "top_level_array": (b'[{"user":"u","time":1}]', "not_an_object", "array"),
    "top_level_string": (b'"user"', "not_an_object", "str"),
    "top_level_number": (b"17", "not_an_object", "int"),
    "top_level_null": (b"null", "not_an_object", "null"),
    "deep_arrays": (b'{"user":"u","time":1,"x":' + b"[" * 5000 + b"]" * 5000 + b"}", "too_deep", "nested"),
    "deep_objects": (b'{"x":' * 5000 + b"1" + b"}" * 5000, "too_deep", "nested"),
    "deep_and_cut": (b'{"user":"u","time":1,"x":' + b"[" * 5000, "too_deep", "nested"),
    "empty_object": (b"{}", "missing_user", "user"),
    "no_user": (b'{"time":1}', "missing_user", "user"),
    "null_user": (b'{"user":null,"time":1}', "missing_user", "user"),
    "empty_user": (b'{"user":"","time":1}', "empty_user", "''"),
    "blank_user": (b'{"user":" \\t ","time":1}', "empty_user", "empty"),
    "no_break_space_user": ('{"user":"\u00a0","time":1}'.encode(), "empty_user", "empty"),
    "long_user": (b'{"user":"' + b"u" * 1025 + b'","time":1}', "user_too_long", "1025"),
    "long_user_in_bytes": ('{"user":"€'.encode() + "€".encode() * 399 + b'","time":1}', "user_too_long", "1200"),
    "user_is_an_object": (b'{"user":{"id":"u"},"time":1}', "wrong_type", '{"id":"u"}'),
    "user_is_an_array": (b'{"user":["u"],"time":1}', "wrong_type", '["u"]'),
    "user_is_true": (b'{"user":true,"time":1}', "wrong_type", "user = true"),
    "user_is_a_fraction": (b'{"user":1.5,"time":1}', "wrong_type", "1.5"),
    "id_is_a_fraction": (b'{"user":"u","time":1,"id":0.5}', "wrong_type", "0.5"),
    "no_time": (b'{"user":"u"}', "missing_time", "time"),
    "null_time": (b'{"user":"u","time":null}', "missing_time", "time"),
    "empty_time": (b'{"user":"u","time":""}', "missing_time", "time"),
    "word_as_time": (b'{"user":"u","time":"yesterday"}', "invalid_time", "yesterday"),
    "null_in_quotes": (b'{"user":"u","time":"null"}', "invalid_time", "null"),
    "true_as_time": (b'{"user":"u","time":true}', "invalid_time", "true"),
    "object_as_time": (b'{"user":"u","time":{"$date":1}}', "invalid_time", "$date"),
    "array_as_time": (b'{"user":"u","time":[1]}', "invalid_time", "[1]"),
    "day_that_is_not": (b'{"user":"u","time":"2023-02-29T00:00:00Z"}', "invalid_time", "no such day"),
    "hour_that_is_not": (b'{"user":"u","time":"2023-02-28T25:00:00Z"}', "invalid_time", "no such time"),
    "american_date": (b'{"user":"u","time":"07/30/2023 10:00"}', "invalid_time", "07/30"),
    "year_10000": (b'{"user":"u","time":253402300800000}', "time_out_of_range", "9999"),
    "year_0": (b'{"user":"u","time":-62135596800001}', "time_out_of_range", "9999"),
    "micros_as_ms": (b'{"user":"u","time":1760000000000000}', "time_out_of_range", "9999"),
    "time_beyond_64_bits": (b'{"user":"u","time":99999999999999999999}', "time_out_of_range", "9999"),
    "time_of_1000_digits": (b'{"user":"u","time":' + b"9" * 1000 + b"}", "time_out_of_range", "999..."),
    "time_of_1000_digits_in_quotes": (b'{"user":"u","time":"' + b"9" * 1000 + b'"}', "time_out_of_range", "999..."),
    "time_1e400": (b'{"user":"u","time":1e400}', "time_out_of_range", "1e400"),
    "far_future": (b'{"user":"u","time":4070908800000}', "future_timestamp", "after the latest"),  # 2099
    "page_is_an_object": (b'{"user":"u","time":1,"page":{"url":"/"}}', "wrong_type", "page"),
    "page_is_false": (b'{"user":"u","time":1,"page":false}', "wrong_type", "false"),
    "type_is_an_array": (b'{"user":"u","time":1,"details":{"type":["a"]}}', "wrong_type", "details.type"),
    "amount_is_a_word": (b'{"user":"u","time":1,"amount":"lots"}', "invalid_number", "lots"),
    "amount_is_true": (b'{"user":"u","time":1,"amount":true}', "wrong_type", "amount"),
    "amount_nan_in_quotes": (b'{"user":"u","time":1,"amount":"nan"}', "invalid_number", "nan"),
    "amount_underscore": (b'{"user":"u","time":1,"amount":"1_000"}', "invalid_number", "1_000"),
    "amount_1e999": (b'{"user":"u","time":1,"amount":1e999}', "number_out_of_range", "1e999"),
    "amount_1e999_in_quotes": (b'{"user":"u","time":1,"amount":"1e999"}', "number_out_of_range", "1e999"),
    "bom_in_the_middle": (b'\xef\xbb\xbf{"user":"u","time":1}', "invalid_json", "malformed"),
    "too_large": (b'{"user":"u","time":1,"page":"' + b"x" * 200_000 + b'"}', "too_large", "200,031"),
    "too_large_and_nothing_else": (b"x" * 150_000, "too_large", "150,000"),
}
LATEST_MS = 2_000_000_000_000
LINE_BYTES_MAX = 100_000
RAW_BYTES_MAX = 65_536


def decode(data: bytes, **options) -> tuple[pa.Table, pa.Table]:
    decoder = JsonLines(DIALECT, latest_ms=LATEST_MS, line_bytes_max=LINE_BYTES_MAX, **options)
    decoder.add(data, source="a file", first_line=100)
    decoded = decoder.take()
    return decoded.events, decoded.rejected


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize(("line", "reason", "word"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_line_is_rejected_alone(line: bytes, reason: str, word: str, end: bytes) -> None:
    events, rejected = decode(GOOD_BEFORE + end + line + end + GOOD_AFTER + end)
    assert events["user"].to_pylist() == ["ann", "bob"]
    assert events["event_time_ms"].to_pylist() == [1, 2]
    assert events["event_type"].to_pylist() == ["view", None]
    (record,) = rejected.to_pylist()
    whole = line + end.removesuffix(b"\n")
    assert record["raw"] == (whole[:RAW_BYTES_MAX] if reason == "too_large" else whole)
    assert (record["source"], record["line_number"], record["reason"]) == ("a file", 101, reason)
    assert word in record["detail"] or end == b"\r\n"  # the carriage return is one more odd thing in the line
    assert len(record["detail"]) < 400
    assert rejected.schema == REJECTED_SCHEMA


@pytest.mark.parametrize(("line", "reason", "word"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_line_is_rejected_when_it_is_all_there_is(line: bytes, reason: str, word: str) -> None:
    events, rejected = decode(line)
    assert events.num_rows == 0
    assert rejected["reason"].to_pylist() == [reason]


def test_all_at_once() -> None:
    lines = [line for line, _, _ in BROKEN.values()]
    events, rejected = decode(b"\n".join([part for line in lines for part in (GOOD_BEFORE, line)]))
    assert events["user"].to_pylist() == ["ann"] * len(lines)
    assert rejected["reason"].to_pylist() == [reason for _, reason, _ in BROKEN.values()]
    assert rejected["line_number"].to_pylist() == [101 + 2 * n for n in range(len(lines))]


def test_with_extras_the_same_lines_are_rejected() -> None:
    lines = [line for line, _, _ in BROKEN.values()]
    data = b"\n".join([part for line in lines for part in (GOOD_BEFORE, line)])
    without, with_extras = decode(data)[1], decode(data, extras=True)[1]
    assert with_extras.equals(without)


OPTIONAL = ("page_", "type_", "amount_")
OF_OPTIONAL_FIELDS = {name: line for name, (line, _, _) in BROKEN.items() if name.startswith(OPTIONAL)}


@pytest.mark.parametrize("extras", [False, True])
@pytest.mark.parametrize("line", OF_OPTIONAL_FIELDS.values(), ids=OF_OPTIONAL_FIELDS.keys())
def test_a_wrong_value_of_an_optional_field_becomes_null_and_is_counted(line: bytes, extras: bool) -> None:
    decoder = JsonLines(LENIENT, extras=extras)
    decoder.add(GOOD_BEFORE + b"\n" + line + b"\n" + GOOD_AFTER, source="f")
    decoded = decoder.take()
    assert decoded.events["user"].to_pylist() == ["ann", "u", "bob"]
    (wrong,) = (row for row in decoded.events.to_pylist() if row["user"] == "u")
    assert {wrong[name] for name in ("page", "event_type", "value")} == {None}
    assert sum(decoded.nulled.values()) == 1
    assert not len(decoded.rejected)


GOOD: dict[str, tuple[bytes, dict[str, object]]] = {
    "spaces": (b' { "user" : "u" , "time" : 5 } ', {"user": "u", "event_time_ms": 5}),
    "escaped": (b'{"\\u0075ser":"\\u00e4\\n\\ud83d\\ude00","time":5}', {"user": "ä\n😀"}),
    "escaped_nul": (b'{"user":"a\\u0000b","time":5}', {"user": "a\x00b"}),
    "nul_user": (b'{"user":"\\u0000","time":5}', {"user": "\x00"}),
    "whole_number_user": (b'{"user":17,"time":5}', {"user": "17"}),
    "negative_user": (b'{"user":-1,"time":5}', {"user": "-1"}),
    "huge_whole_number_user": (b'{"user":123456789012345678901234567890,"time":5}', {"user": "1234567890" * 3}),
    "longest_user": (b'{"user":"' + b"u" * 1024 + b'","time":5}', {"user": "u" * 1024}),
    "user_with_spaces_around": (b'{"user":" u ","time":5}', {"user": " u "}),
    "digits_as_time": (b'{"user":"u","time":"1790875556200"}', {"event_time_ms": 1790875556200}),
    "float_as_time": (b'{"user":"u","time":5.9}', {"event_time_ms": 5}),
    "negative_float_as_time": (b'{"user":"u","time":-5.1}', {"event_time_ms": -6}),
    "exponent_as_time": (b'{"user":"u","time":1.79e12}', {"event_time_ms": 1_790_000_000_000}),
    "exponent_in_quotes": (b'{"user":"u","time":"1e3"}', {"event_time_ms": 1000}),
    "zero_time": (b'{"user":"u","time":0}', {"event_time_ms": 0}),
    "minus_zero_time": (b'{"user":"u","time":-0}', {"event_time_ms": 0}),
    "negative_time": (b'{"user":"u","time":"-7"}', {"event_time_ms": -7}),
    "first_ms": (b'{"user":"u","time":-62135596800000}', {"event_time_ms": -62135596800000}),
    "iso_time": (b'{"user":"u","time":"2023-02-28T10:00:00+02:00"}', {"event_time_ms": 1677571200000}),
    "latest_time": (b'{"user":"u","time":2000000000000}', {"event_time_ms": 2_000_000_000_000}),
    "duplicate_keys": (b'{"user":"u","time":1,"time":2,"user":"v"}', {"user": "v", "event_time_ms": 2}),
    "null_texts": (b'{"user":"u","time":1,"page":null,"id":null,"amount":null}', {"page": None, "value": None}),
    "number_as_page": (b'{"user":"u","time":1,"page":404}', {"page": "404"}),
    "float_as_page": (b'{"user":"u","time":1,"page":1.50}', {"page": "1.5"}),
    "whole_float_as_page": (b'{"user":"u","time":1,"page":1.0}', {"page": "1.0"}),
    "empty_page": (b'{"user":"u","time":1,"page":""}', {"page": ""}),
    "empty_id_is_none": (b'{"user":"u","time":1,"id":""}', {"event_id": None}),
    "number_as_id": (b'{"user":"u","time":1,"id":7}', {"event_id": "7"}),
    "amount_in_quotes": (b'{"user":"u","time":1,"amount":" 1.5e1 "}', {"value": 15.0}),
    "empty_amount": (b'{"user":"u","time":1,"amount":""}', {"value": None}),
    "whole_amount": (b'{"user":"u","time":1,"amount":3}', {"value": 3.0}),
    "large_whole_amount": (b'{"user":"u","time":1,"amount":1000000000}', {"value": 1e9}),
    "details_missing": (b'{"user":"u","time":1}', {"event_type": None}),
    "details_null": (b'{"user":"u","time":1,"details":null}', {"event_type": None}),
    "details_a_string": (b'{"user":"u","time":1,"details":""}', {"event_type": None}),
    "details_an_array": (b'{"user":"u","time":1,"details":[1,{"type":"x"}]}', {"event_type": None}),
    "details_a_number": (b'{"user":"u","time":1,"details":1.5}', {"event_type": None}),
    "details_without_type": (b'{"user":"u","time":1,"details":{"other":1}}', {"event_type": None}),
    "type_by_its_full_name": (b'{"user":"u","time":1,"details.type":"x"}', {"event_type": "x"}),
    "unread_fields_of_any_kind": (b'{"user":"u","a":[[{}]],"time":1,"b":1e999,"c":true,"d":{"e":[]}}', {"user": "u"}),
    "a_field_of_a_megabyte": (b'{"user":"u","time":1,"page":"' + b"x" * 90_000 + b'"}', {"page": "x" * 90_000}),
    "deep_but_not_too_deep": (b'{"user":"u","time":1,"x":' + b"[" * 200 + b"]" * 200 + b"}", {"user": "u"}),
}


@pytest.mark.parametrize(("line", "expected"), GOOD.values(), ids=GOOD.keys())
@pytest.mark.parametrize("beside", [b"", b"broken"], ids=["quick", "line_by_line"])
def test_odd_but_good(line: bytes, expected: dict[str, object], beside: bytes) -> None:
    events, rejected = decode(line + b"\n" + beside + b"\n" + GOOD_BEFORE)
    assert rejected.num_rows == bool(beside)
    assert events.num_rows == 2
    assert expected.items() <= events.to_pylist()[0].items()


def test_blank_lines_are_nothing() -> None:
    events, rejected = decode(b"\n\r\n \t \n" + GOOD_BEFORE + b"\n\n" + GOOD_AFTER + b"\r\n\n")
    assert (events.num_rows, rejected.num_rows) == (2, 0)


def test_line_numbers_count_blank_lines() -> None:
    _, rejected = decode(b"\n\n[1]\n" + GOOD_BEFORE + b"\n\nx\n")
    assert rejected["line_number"].to_pylist() == [102, 105]


@pytest.mark.parametrize("at_start", [True, False])
def test_a_byte_order_mark_is_welcome_only_at_the_start(at_start: bool) -> None:
    decoder = JsonLines(DIALECT)
    assert decoder.add(b"\xef\xbb\xbf" + GOOD_AFTER, source="f", at_start=at_start) == 1
    decoded = decoder.take()
    assert (decoded.events.num_rows, decoded.rejected.num_rows) == ((1, 0) if at_start else (0, 1))


def test_a_value_over_two_lines_is_two_broken_lines_even_when_the_count_of_values_fits() -> None:
    lines = [b'{"user":"u",', b'"time":1}', b'{"user":"v","time":2}{"user":"w","time":3}']
    events, rejected = decode(b"\n".join(lines))
    assert events.num_rows == 0
    assert rejected["raw"].to_pylist() == lines


def test_values_over_lines_that_look_like_objects() -> None:
    lines = [b'{"user":"u","time":1,"x":{}}'[:-1], b"}", b'{"user":"v","time":2}{"user":"w","time":3}']
    events, rejected = decode(b"\n".join(lines))
    assert (events.num_rows, rejected.num_rows) == (0, 3)
