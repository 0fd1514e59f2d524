"""The path of a field: names joined by dots, list indexes, and keys of key/value lists.

    context.page.path            a field inside objects, or a field of that whole name
    items[0].name                an element of a list, from 0; [-1] is the last one
    event_params[page_location]  the value of a key: in a list of {"key": ..., "value": ...}, or in an object

An object on the way may also be JSON in a string. The value of a key may be typed, as in Google Analytics: then it is
the first of TYPED_VALUES that is not null. This module imports nothing heavy.
"""

import re
from typing import NamedTuple

TYPED_VALUES = (
    *("string_value", "int_value", "float_value", "double_value", "bool_value"),
    *("stringValue", "intValue", "floatValue", "doubleValue", "boolValue"),
)
KEY_NAMES = ("key", "name")
EMPTY_PART = "the path has an empty part"
PATH_HINT = "write names joined by dots, for example event_details.event_type, items[0].name or params[source]"
UNMAPPABLE_HINT = "names with a quotation mark, a backslash or a control character cannot be mapped: rename the field"

_PART = re.compile(r"(?P<name>[^.\[\]]*)(?P<steps>(?:\[[^\[\]]*\])*)")
_STEP = re.compile(r"\[([^\[\]]*)\]")
_INDEX = re.compile(r"-?[0-9]{1,9}")


class Key(NamedTuple):
    """A step to the value of this key."""

    name: str


class Join(NamedTuple):
    """A value made of several, in order: an address and a browser as the user, a date and a time of day as the time."""

    paths: tuple[str, ...]


# One path; several, of which the first that is present and not empty counts; or a join.
FieldPath = str | tuple[str, ...] | Join
Step = str | int | Key
Steps = tuple[Step, ...]


def candidates(path: str) -> tuple[Steps, ...]:
    """What a path may mean: a way through objects and lists, or else a field of that whole name."""
    steps = _steps(path)
    return ((path,),) if steps is None or steps == (path,) else (steps, (path,))


def fault_of(path: str) -> str | None:
    """Why this is not the path of a field; None if it is one."""
    if any(char in '"\\' or ord(char) < 0x20 for char in path):
        return "a field of this name cannot be mapped"
    steps = _steps(path)
    parts = path.split(".") if steps is None else [each.name if isinstance(each, Key) else each for each in steps]
    return None if all(part != "" for part in parts) else EMPTY_PART


def parse_field_path(text: str, *, joins: bool = False) -> FieldPath:
    """ "a", "a,b" for a tuple, and, where joins are allowed, "a+b" for a join."""
    if joins and "+" in text:
        return Join(tuple(part.strip() for part in text.split("+")))
    parts = tuple(part.strip() for part in text.split(","))
    return text if len(parts) == 1 else parts


def last_name(path: str) -> str:
    """The last name or key in a path, which a column made of it is called."""
    names = [each.name if isinstance(each, Key) else each for each in candidates(path)[0] if not isinstance(each, int)]
    return names[-1] if names else path


def _steps(path: str) -> Steps | None:
    """The steps; None if brackets are not as in a path, so that it can only be a whole name."""
    if "[" not in path and "]" not in path:
        return tuple(path.split("."))
    steps: list[Step] = []
    at = 0
    while True:
        part = _PART.match(path, at)
        assert part is not None  # it may be empty
        if not part["name"]:
            return None
        steps.append(part["name"])
        for text in _STEP.findall(part["steps"]):
            steps.append(int(text) if _INDEX.fullmatch(text) else Key(text))
        at = part.end()
        if at == len(path):
            return tuple(steps)
        if path[at] != ".":
            return None
        at += 1
