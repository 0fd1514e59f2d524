"""Finds the records of JSON text token by token, also where it is damaged, in one pass.

A record in which something stands where the grammar has no place for it ends there, or at the next line that begins
with a brace; what follows is read as new.
"""

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(rb'"(?:[^"\\\n]|\\[^\n])*"|[{}\[\]:,]|[^\s"{}\[\]:,]+|"')
NEXT = re.compile(rb"(?:\A|\n)[ \t]*(?=\{)")
_KEY, _COLON, _VALUE, _COMMA = range(4)  # what has to follow


@dataclass(slots=True)
class Scan:
    """parts: (start, end, whether it is a whole record). rest: where an unfinished record begins. in_array: at rest.

    skips: what follows the text belongs to the last part, up to the next line that begins with a brace.
    """

    parts: list[tuple[int, int, bool]] = field(default_factory=list)
    rest: int = 0
    in_array: bool = False
    skips: bool = False


def scan(text: bytes, *, in_array: bool, final: bool) -> Scan:
    """Find the records. in_array: whether an array is open before the text. final: nothing follows."""
    found = Scan(in_array=in_array)
    at, size = 0, len(text)
    while at < size:
        token = _TOKEN.search(text, at)
        if token is None:
            break
        mark = token.group()
        start = token.start()
        if mark in (b",", b"[", b"]") and (mark != b"[" or not found.in_array):
            found.in_array = mark == b"[" or (mark == b"," and found.in_array)
            at = token.end()
            continue
        end, is_whole = _value(text, start)
        found.skips = is_whole is False and end == size and not final
        if is_whole is None and not final:
            found.rest = start
            return found
        found.parts.append((start, end, bool(is_whole)))
        at = end
    found.rest = size
    return found


def _value(text: bytes, start: int) -> tuple[int, bool | None]:
    """Where the value that begins at start ends, and whether it is whole; None if the text ends within it."""
    stack: list[tuple[bool, int]] = []  # for each open container: whether it is an object, and what has to follow
    at = start
    while True:
        token = _TOKEN.search(text, at)
        if token is None:
            return len(text), None
        mark = token.group()
        if mark == b'"':  # a quote that the line does not close; at the end of the text it may be yet
            if text.find(b"\n", token.start()) < 0:
                return len(text), None
            return _after(text, token.start()), False
        if not stack:
            if mark in (b"}", b":"):
                return _after(text, token.start()), False
            if mark in (b"{", b"["):
                stack.append((mark == b"{", _KEY if mark == b"{" else _VALUE))
                at = token.end()
                continue
            return token.end(), True
        is_object, expected = stack[-1]
        step = _step(mark, is_object, expected)
        if step is None:
            at = token.start()
            return (at, False) if mark == b"{" and at > start else (_after(text, at), False)
        if step == -1:
            stack.pop()
            if not stack:
                return token.end(), True
        else:
            stack[-1] = (is_object, step)
            if mark in (b"{", b"["):
                stack.append((mark == b"{", _KEY if mark == b"{" else _VALUE))
        at = token.end()


def _step(mark: bytes, is_object: bool, expected: int) -> int | None:
    """What has to follow a token inside a container; -1 if it closes the container, None if it has no place there."""
    if mark in (b"}", b"]"):
        return -1 if (mark == b"}") == is_object else None
    if expected == _COMMA:
        return (_KEY if is_object else _VALUE) if mark == b"," else None
    if expected == _COLON:
        return _VALUE if mark == b":" else None
    if expected == _KEY:
        return _COLON if mark[:1] == b'"' else None
    return _COMMA if mark not in (b",", b":") else None


def _after(text: bytes, at: int) -> int:
    """Where the next line that begins with a brace begins; the end if there is none."""
    found = NEXT.search(text, at + 1)
    return len(text) if found is None else found.end()
