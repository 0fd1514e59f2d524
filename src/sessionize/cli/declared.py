"""Options and arguments as values, so that a command line can be read without typer, which takes long to load.

A command declares its parameters as `Annotated[str, option("--gap", help=…)]`; many of them at once as
`Annotated[RuleOptions, group(gap=option(…), …)]`, a dataclass whose fields they are. `for_typer` makes of it what typer
reads; fast_batch.py reads the same values itself.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Annotated, Any, get_args, get_origin

Command = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Declared:
    """names: as they are typed; none: made of the parameter's name. settings: what typer.Option or Argument takes."""

    is_option: bool
    names: tuple[str, ...]
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Group:
    """The options that fill a dataclass, by field; a field that none fills keeps its default.

    defaults: in place of the fields' own.
    """

    parts: "Mapping[str, Declared | Group]"
    defaults: Mapping[str, Any] = field(default_factory=dict)


def option(*names: str, **settings: Any) -> Declared:
    """An option; as typer.Option within Annotated."""
    return Declared(True, names, settings)


def argument(**settings: Any) -> Declared:
    """An argument; as typer.Argument within Annotated."""
    return Declared(False, (), settings)


def group(**parts: Declared | Group) -> Group:
    """Options for the fields of a dataclass."""
    return Group(parts)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One of a command's, as it is typed. declared: None where it is typer's own. default: ... where one is needed."""

    name: str
    kind: Any
    declared: Declared | None
    default: Any
    annotation: Any


def parameters(command: Command) -> list[Parameter]:
    """What a command takes, the fields of its groups in their places."""
    code, defaults = command.__code__, command.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount]
    values = (*[...] * (len(names) - len(defaults)), *defaults)
    found: list[Parameter] = []
    for name, default in zip(names, values, strict=True):
        annotation = command.__annotations__[name]
        kind, declared = _split(annotation)
        if isinstance(declared, Group):
            found += _fields_of(kind, declared)
        else:
            found.append(
                Parameter(name, kind, declared if isinstance(declared, Declared) else None, default, annotation)
            )
    return found


def _split(annotation: Any) -> tuple[Any, Any]:
    """The type, and what is declared of it."""
    if get_origin(annotation) is not Annotated:
        return annotation, None
    kind, declared = get_args(annotation)
    return kind, declared


def _fields_of(kind: Any, group: Group) -> Iterator[Parameter]:
    for each in fields(kind):
        part = group.parts.get(each.name)
        if isinstance(part, Group):
            yield from _fields_of(each.type, part)
        elif part is not None:
            default = group.defaults.get(each.name, ... if each.default is MISSING else each.default)
            yield Parameter(each.name, each.type, part, default, Annotated[each.type, part])


def call(command: Command, given: Mapping[str, Any]) -> None:
    """Run the command with the arguments by the names of its parameters; groups are put together."""
    arguments: dict[str, Any] = {}
    for name, annotation in command.__annotations__.items():
        kind, declared = _split(annotation)
        if isinstance(declared, Group):
            arguments[name] = _filled(kind, declared, given)
        elif name in given:
            arguments[name] = given[name]
    command(**arguments)


def _filled(kind: Any, group: Group, given: Mapping[str, Any]) -> Any:
    values = {}
    for each in fields(kind):
        part = group.parts.get(each.name)
        if isinstance(part, Group):
            values[each.name] = _filled(each.type, part, given)
        elif part is not None and each.name in given:
            values[each.name] = given[each.name]
        elif each.name in group.defaults:
            values[each.name] = group.defaults[each.name]
    return kind(**values)


def for_typer(command: Command) -> Command:
    """The same command, with its parameters declared in typer's way."""
    import inspect
    import re

    import typer

    def declared(each: Parameter) -> Any:
        if each.declared is None:
            return each.annotation
        make = typer.Option if each.declared.is_option else typer.Argument
        return Annotated[each.kind, make(*each.declared.names, **each.declared.settings)]

    def called(**given: Any) -> None:
        call(command, given)

    taken = {each.name: (declared(each), each.default) for each in parameters(command)}
    called.__name__, called.__module__ = command.__name__, command.__module__
    # a paragraph is one line: where it breaks is up to the terminal
    called.__doc__ = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(command.__doc__ or ""))
    called.__annotations__ = {name: annotation for name, (annotation, _) in taken.items()} | {"return": None}
    vars(called)["__signature__"] = inspect.Signature(
        [
            inspect.Parameter(
                name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=inspect.Parameter.empty if default is ... else default,
                annotation=annotation,
            )
            for name, (annotation, default) in taken.items()
        ]
    )
    return called
