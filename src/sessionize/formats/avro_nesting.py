"""Unrolls recursive Avro schemas to a finite depth.

The decoder recurses as deep as the record does, so a few kilobytes of deep nesting would crash the process.

Each recursive type gets one copy per level. The level below the last has a type that no record can contain, so
decoding it is an ordinary error.
"""

from collections.abc import Callable, Iterator
from typing import Any

from sessionize.errors import ConfigError
from sessionize.formats.json_limits import NESTING_MAX

Named = dict[str, Any]
# Adds a schema to the named ones; False if it refers to an unknown one.
Parse = Callable[[Any, Named], bool]

_RECORDS = ("record", "error")
_TOO_DEEP = "sessionize.too_deep"
UNREADABLE_BYTES = 2**31 - 1  # the size of a type that no message can contain


def unrolled(parsed: Any, named: Named, *, parse: Parse, source: str) -> Any:
    """The record schema with finite depth. parsed, named: the parsed schema and all its types by name.

    Errors: ConfigError for a list of items without bytes, because a record could announce billions of them.
    """
    for schema in named.values():
        for node in _nodes(_content(schema)):
            if isinstance(node, dict) and node.get("type") == "array" and _is_empty(node["items"], named):
                raise ConfigError("the Avro schema has a list of nothing", detail=f"{source}: items without bytes")
    holds = {name: _below(name, named) for name in named}
    endless = {name for name in named if name in holds[name]}
    if not endless:
        return parsed
    made: Named = {}
    parse({"type": "fixed", "name": _TOO_DEEP, "size": UNREADABLE_BYTES}, made)
    todo = [_renamed(named[name], name, _at_level(endless, 1)) for name in named if name not in endless]
    for level in range(NESTING_MAX, 0, -1):
        below = _at_level(endless, level + 1)
        todo += [_renamed(named[name], f"{name}__{level}", below) for name in endless]
    while todo:  # a type is parsed after the types it refers to, so this takes a few passes
        left = [schema for schema in todo if not parse(schema, made)]
        if len(left) == len(todo):
            raise ConfigError("the Avro schema cannot be read", detail=f"{source}: {left[0]['name']} has unknown types")
        todo = left
    root = parsed["name"]
    return made[f"{root}__1" if root in endless else root]


def _at_level(endless: set[str], level: int) -> Callable[[str], str]:
    def name_of(name: str) -> str:
        if name not in endless:
            return name
        return f"{name}__{level}" if level <= NESTING_MAX else _TOO_DEEP

    return name_of


def _renamed(schema: Any, name: str, name_of: Callable[[str], str]) -> Any:
    """A named type under another name; the types inside it become references."""
    plain = {
        key: value for key, value in schema.items() if not key.startswith("__") and key not in ("aliases", "default")
    }
    if schema["type"] in _RECORDS:
        fields = [{"name": f["name"], "type": _referring(f["type"], name_of)} for f in schema["fields"]]
        plain["fields"] = fields
    return {**plain, "name": name}


def _referring(node: Any, name_of: Callable[[str], str]) -> Any:
    if isinstance(node, str):
        return name_of(node)
    if isinstance(node, list):
        return [_referring(each, name_of) for each in node]
    if "name" in node:
        return name_of(node["name"])
    return {**node, **{key: _referring(node[key], name_of) for key in _inner(node)}}


def _content(schema: Any) -> list[Any]:
    return [field["type"] for field in schema["fields"]] if schema["type"] in _RECORDS else []


def _nodes(node: Any) -> Iterator[Any]:
    """The parts of a type, down to named types, which are given by name."""
    if isinstance(node, list):
        for each in node:
            yield from _nodes(each)
    elif isinstance(node, dict) and "name" in node:
        yield node["name"]
    else:
        yield node
        if isinstance(node, dict):
            yield from _nodes([node[key] for key in _inner(node)])


def _inner(node: dict[str, Any]) -> list[str]:
    """The keys under which an unnamed type contains others."""
    return [key for key in ("items", "values", "type") if isinstance(node.get(key), str | list | dict)]


def _below(name: str, named: Named) -> set[str]:
    """The named types reachable from this one."""
    found: set[str] = set()
    todo = [name]
    while todo:
        for node in _nodes(_content(named[todo.pop()])):
            if isinstance(node, str) and node in named and node not in found:
                found.add(node)
                todo.append(node)
    return found


def _is_empty(node: Any, named: Named, within: tuple[str, ...] = ()) -> bool:
    """Whether values of the type take no bytes."""
    name = node if isinstance(node, str) else node.get("name") if isinstance(node, dict) else None
    if name in named and name not in within:
        schema = named[name]
        if schema["type"] in _RECORDS:
            return all(_is_empty(field["type"], named, (*within, name)) for field in schema["fields"])
        return bool(schema["type"] == "fixed" and not schema["size"])
    return node == "null" or (isinstance(node, dict) and node.get("type") == "null")
