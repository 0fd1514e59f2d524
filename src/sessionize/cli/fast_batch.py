"""`batch` and `label` without typer: their command lines are read here, as long as they are ordinary ones.

Loading typer takes as long as a run over a hundred thousand events. What this module does not understand, wrong or not,
is left to typer, which has the words for it: help, an unknown option, a value that is missing.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from sessionize.cli.declared import Command, Declared, Parameter, call, parameters

_COMMANDS = ("batch", "label")


@dataclass(slots=True)
class _Parameter:
    name: str
    declared: Declared
    read: Callable[[str], Any]
    is_flag: bool
    is_list: bool
    default: Any  # ... where one has to be given

    @property
    def names(self) -> tuple[str, ...]:
        return self.declared.names or (f"--{self.name.replace('_', '-')}",)


def quick_command(words: Sequence[str]) -> Callable[[], None] | None:
    """What to run for the words of a command line, without the program's name; None where typer is to read them."""
    if not words or words[0] not in _COMMANDS:
        return None
    command: Command
    if words[0] == "batch":
        from sessionize.cli.batch import batch as command
    else:
        from sessionize.cli.label import label as command
    given = arguments_of(command, words[1:])
    return None if given is None else lambda: call(command, given)


def arguments_of(command: Command, words: Sequence[str]) -> dict[str, Any] | None:
    """The arguments that these words mean; None where they are not understood."""
    parameters = _parameters(command)
    options = {name: each for each in parameters if each.declared.is_option for name in each.names}
    (positional,) = (each for each in parameters if not each.declared.is_option)
    given: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            _add(given, positional, word)
            continue
        name, equals, value = word.partition("=")
        found = options.get(name)
        if found is None or (found.is_flag and equals) or (equals and not name.startswith("--")):
            return None
        if not found.is_flag and not equals:
            if not rest or (rest[0].startswith("-") and rest[0] != "-"):  # it may be a value, but hardly is
                return None
            value = rest.pop(0)
        _add(given, found, value)
    for each in parameters:
        if each.name not in given:
            _from_elsewhere(given, each)
    return None if any(value is ... for value in given.values()) else given


def _add(given: dict[str, Any], parameter: _Parameter, text: str) -> None:
    if parameter.is_flag:
        given[parameter.name] = True
    elif parameter.is_list:
        given.setdefault(parameter.name, []).append(parameter.read(text))
    else:
        given[parameter.name] = parameter.read(text)


def _from_elsewhere(given: dict[str, Any], parameter: _Parameter) -> None:
    """The environment's value, or the default."""
    text = os.environ.get(parameter.declared.settings.get("envvar") or "")
    if text:
        _add(given, parameter, text)
    else:
        given[parameter.name] = parameter.default


def _parameters(command: Command) -> list[_Parameter]:
    return [_parameter(each) for each in parameters(command)]


def _parameter(each: Parameter) -> _Parameter:
    assert each.declared is not None  # these commands have none of typer's own
    kinds = [kind for kind in get_args(each.kind) or (each.kind,) if kind is not NoneType]
    is_list = any(getattr(kind, "__origin__", None) is list for kind in (each.kind, *kinds))
    read = Path if Path in kinds else str
    return _Parameter(each.name, each.declared, read, bool in kinds, is_list, each.default)
