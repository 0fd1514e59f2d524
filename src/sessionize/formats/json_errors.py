"""Explains why a line could not be decoded as an event.

It runs only for lines that failed, so it may parse the line again to quote the invalid value.
"""

import re
from typing import Any

import msgspec

from sessionize.formats.rejects import (
    INVALID_JSON,
    INVALID_TIME,
    INVALID_UTF8,
    NOT_AN_OBJECT,
    NUMBER_OUT_OF_RANGE,
    TIME_OUT_OF_RANGE,
    TOO_DEEP,
    TOO_LARGE,
    WRONG_TYPE,
    Fault,
    preview,
)

_PATH = re.compile(r"(?P<what>.*) - at `\$\.(?P<path>.*)`", re.DOTALL)
_FOUND = re.compile(r"got `(?P<found>\w+)`")


def explain(line: bytes, error: Exception, time_fields: frozenset[str]) -> Fault:
    """The fault of a line. line: without line feed. error: of the decoder. time_fields: paths mapped to time."""
    if isinstance(error, UnicodeDecodeError):
        return invalid_utf8(line, error)
    if isinstance(error, RecursionError):
        return Fault(TOO_DEEP, "the record is nested too deeply")
    if isinstance(error, msgspec.ValidationError):
        # The typed decoder stopped at the first wrong type and has not checked the rest.
        error = _malformed(line) or error
    message = str(error)
    if not isinstance(error, msgspec.ValidationError):
        return Fault(INVALID_JSON, f"{message}: {preview(line)}")
    at = _PATH.fullmatch(message)
    if at is None:
        found = _FOUND.search(message)
        kind = found["found"] if found else "something else"
        return Fault(NOT_AN_OBJECT, f"an object is expected, found {kind}: {preview(line)}")
    path = at["path"]
    value = _quoted(line, path)
    if "out of range" in message:
        reason = TIME_OUT_OF_RANGE if path in time_fields else NUMBER_OUT_OF_RANGE
        return Fault(reason, f"{path} = {value}: the number is out of range")
    if path in time_fields:
        return Fault(INVALID_TIME, f"{path} = {value}: not a time")
    return Fault(WRONG_TYPE, f"{path} = {value}: a string, a number or null is expected")


def _malformed(line: bytes) -> msgspec.DecodeError | None:
    """The error of the line as JSON, if it has one."""
    try:
        msgspec.json.decode(line, type=msgspec.Raw)
    except msgspec.DecodeError as error:
        return error
    except RecursionError:
        pass
    return None


def invalid_utf8(line: bytes, error: UnicodeDecodeError) -> Fault:
    """The position and the bytes that are not UTF-8; error comes from decoding this line alone."""
    at = error.start
    return Fault(INVALID_UTF8, f"not UTF-8 at byte {at}: {line[at : at + 8]!r}")


def too_large(size_bytes: int, line_bytes_max: int) -> Fault:
    """A line longer than the limit."""
    return Fault(TOO_LARGE, f"the line has {size_bytes:,} bytes, at most {line_bytes_max:,} are allowed")


def _quoted(line: bytes, path: str) -> str:
    """The shortened text of the value at a dotted path; a field's name may contain a dot."""
    raw: Any = line
    rest = path
    try:
        while rest:
            fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
            name = next(n for n in sorted(fields, key=len, reverse=True) if rest == n or rest.startswith(f"{n}."))
            raw, rest = fields[name], rest[len(name) + 1 :]
    except (msgspec.MsgspecError, StopIteration, RecursionError):
        return "?"
    text = bytes(raw).decode("utf-8", "replace").strip()
    return preview(text)[1:-1]
