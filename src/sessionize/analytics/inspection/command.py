"""Writes what was guessed as a command to paste into a shell, and as TOML for a pipeline file."""

import shlex
from collections.abc import Mapping, Sequence

from sessionize.formats.paths.language import Join, parse_field_path

OUTPUT = "sessions.parquet"
_IN_MAPPING = ("user", "time", "event_id", "event_type", "page", "value", "time_format")
_LISTS = ("columns", "null_values")


def command_of(inputs: Sequence[str], options: Mapping[str, str | Sequence[str]], output: str = OUTPUT) -> list[str]:
    """The words of the command. options: by name; several values are the option several times."""
    words = ["sessionize", "batch", *(_path(path) for path in inputs)]
    for name, values in options.items():
        for value in [values] if isinstance(values, str) else values:
            option = f"--{name.replace('_', '-')}"
            words += [f"{option}={value}"] if value.startswith("-") else [option, value]
    return [*words, "-o", output]


def shell_text(words: Sequence[str]) -> str:
    """The words as one line for a shell; no control character stays as it is."""
    return " ".join(word if word.isprintable() and word == shlex.quote(word) else _quoted(word) for word in words)


def toml_text(inputs: Sequence[str], options: Mapping[str, str | Sequence[str]]) -> str:
    """The same as the sections of a pipeline file."""
    lines = ["[input]", 'kind = "files"', f"paths = {_toml(list(inputs))}"]
    mapping = list[str]()
    for name, value in options.items():
        if name == "conversion_events":
            continue
        if name in _LISTS and isinstance(value, str):
            value = value.split(",")
        (mapping if name in _IN_MAPPING else lines).append(f"{name} = {_toml(_paths(name, value))}")
    if mapping:
        lines += ["", "[input.mapping]", *mapping]
    if "conversion_events" in options:
        lines += ["", "[rules]", f"conversion_events = {_toml(list(options['conversion_events']))}"]
    return "\n".join(lines)


def _paths(name: str, value: str | Sequence[str]) -> object:
    if name == "time_format" or name not in _IN_MAPPING or not isinstance(value, str):
        return value
    path = parse_field_path(value, joins=name in ("user", "time"))
    return {"join": list(path.paths)} if isinstance(path, Join) else path if isinstance(path, str) else list(path)


def _path(path: str) -> str:
    return f"./{path}" if path.startswith("-") and path != "-" else path


def _quoted(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    parts = []
    for char in word:
        if char in "\\'":
            parts.append(f"\\{char}")
        elif char.isprintable():
            parts.append(char)
        else:
            parts += [f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape")]
    return f"$'{''.join(parts)}'"


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {_toml(inner)}" for name, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    text = str(value).encode("utf-8", "replace").decode()
    return '"' + "".join(_escaped(char) for char in text) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    return char if char.isprintable() else f"\\U{ord(char):08x}"
