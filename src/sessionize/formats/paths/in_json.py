"""Follows a path through decoded JSON: into objects, lists, key/value lists, and JSON in strings."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from sessionize.formats.paths.language import KEY_NAMES, TYPED_VALUES, Key, Steps

_DECODE = msgspec.json.Decoder().decode
_ERRORS = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


def value_at(value: Any, steps: Steps) -> Any:
    """The value at the end of the path; None if there is none."""
    for step in steps:
        if isinstance(value, str):
            value = value_in_text(value)
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and -len(value) <= step < len(value) else None
        elif isinstance(value, dict):
            value = value.get(step.name if isinstance(step, Key) else step)
        elif isinstance(step, Key) and isinstance(value, list):
            value = _of_key(value, step.name)
        else:
            return None
    return value


def value_in_text(text: str) -> Any:
    """The object or list that a string holds as JSON; None if it holds none."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return _DECODE(text)
    except _ERRORS:
        return None


def value_of_raw(raw: msgspec.Raw) -> Any:
    """The value; None if absent, its bytes if Python has no such value, for example 1e999."""
    data = bytes(raw)
    if not data:
        return None
    try:
        return _DECODE(data)
    except _ERRORS:
        return data


def joined_values(columns: Sequence[Sequence[Any]], joint: str, *, whole: bool) -> list[Any]:
    """The parts of each row as one text; None without any part, and a part that is no text in place of all.

    whole: None unless all parts are there: a date alone is no time.
    """
    enough = all if whole else any
    return [_joined(parts, joint, enough) for parts in zip(*columns, strict=True)]


def _joined(parts: Sequence[Any], joint: str, enough: Callable[[Sequence[str]], bool]) -> Any:
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, str | int | float | None):
            return part
    texts = ["" if part is None else _whole(part) for part in parts]
    return joint.join(texts) if enough(texts) else None


def _whole(part: str | float) -> str:
    return str(int(part)) if isinstance(part, float) and part.is_integer() else str(part)


def _of_key(pairs: Sequence[Any], key: str) -> Any:
    for pair in pairs:
        if isinstance(pair, dict) and any(pair.get(name) == key for name in KEY_NAMES):
            return typed_value(pair.get("value"))
    return None


def typed_value(value: Any) -> Any:
    """The value of a key: itself, or the first of its typed members that is not null."""
    if isinstance(value, dict):
        return next((value[name] for name in TYPED_VALUES if value.get(name) is not None), None)
    return value
