"""Options and arguments as values, so that a command line can be read without typer, which takes long to load.

A command declares its parameters as `Annotated[str, option("--gap", help=…)]`. `for_typer` makes of it what typer
reads; quick.py reads the same values itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Annotated, Any, get_args, get_origin

Command = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Declared:
    """names: as they are typed; none: made of the parameter's name. settings: what typer.Option or Argument takes."""

    is_option: bool
    names: tuple[str, ...]
    settings: Mapping[str, Any]


def option(*names: str, **settings: Any) -> Declared:
    """An option; as typer.Option within Annotated."""
    return Declared(True, names, settings)


def argument(**settings: Any) -> Declared:
    """An argument; as typer.Argument within Annotated."""
    return Declared(False, (), settings)


def for_typer(command: Command) -> Command:
    """The same command, with its parameters declared in typer's way."""
    import inspect
    import re

    import typer

    def declared(annotation: Any) -> Any:
        if get_origin(annotation) is not Annotated:
            return annotation
        kind, found = get_args(annotation)
        if not isinstance(found, Declared):
            return annotation
        make = typer.Option if found.is_option else typer.Argument
        return Annotated[kind, make(*found.names, **found.settings)]

    assert isinstance(command, FunctionType)
    copy = FunctionType(command.__code__, command.__globals__, command.__name__, command.__defaults__)
    # a paragraph is one line: where it breaks is up to the terminal
    copy.__doc__ = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(command.__doc__ or ""))
    copy.__module__ = command.__module__
    copy.__annotations__ = {name: declared(annotation) for name, annotation in command.__annotations__.items()}
    return copy
