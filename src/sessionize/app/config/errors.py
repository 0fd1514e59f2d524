"""From what pydantic says to what a person needs: the key, where it was set, its value, what is allowed."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from sessionize.app.config.secrets import as_shown
from sessionize.app.config.sources import ConfigSource
from sessionize.app.config.suggest import closest, did_you_mean, hint_of
from sessionize.app.config.types import RefusedError
from sessionize.app.config.values import format_value
from sessionize.errors import ConfigError

Location = tuple[int | str, ...]
_LENGTH_MAX = 80  # of a key or value as shown
_TOLD_MAX = 10

# What a key takes, by pydantic's name for the failure.
_EXPECTED = {
    "string_type": "a text in quotes",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false, without quotes",
    "tuple_type": "a list in brackets",
    "greater_than_equal": "{ge} or more",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "string_pattern_mismatch": "a plain name: letters, digits, _ and -",
}


def all_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key a pipeline file may hold, dotted: `rules.gap`, `input.mapping.user`."""
    for name, field in model.model_fields.items():
        section = section_of(field)
        if section is None:
            yield prefix + name
        else:
            yield from all_keys(section, f"{prefix}{name}.")


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a key that is a section of its own, else None."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def config_error(error: ValidationError, layer: ConfigSource, model: type[BaseModel]) -> ConfigError:
    """One error for all that is wrong with the values of layer."""
    count = error.error_count()
    problems = [_problem(item, layer, model) for item in error.errors(include_url=False)[:_TOLD_MAX]]
    if count == 1:
        return problems[0]
    lines = [f"- {p.message}\n  {p.detail}\n  hint: {p.hint}" for p in problems]
    if count > _TOLD_MAX:
        lines.append(f"- and {count - _TOLD_MAX} more")
    return ConfigError(f"the pipeline has {count} errors", detail="\n".join(lines))


def _problem(item: Mapping[str, Any], layer: ConfigSource, model: type[BaseModel]) -> ConfigError:
    location, context, kind = item["loc"], item.get("ctx", {}), item["type"]
    refused = context.get("error")
    if isinstance(refused, RefusedError):
        key = refused.key or _dotted(location)
        at = tuple(key.split(".")) if refused.key else location
        where = _where(at, layer, None if refused.key else item["input"], secret=refused.secret)
        return ConfigError(f"invalid {key}: {refused.why}", detail=where, hint=refused.hint)
    if kind == "extra_forbidden":
        return _unknown_key(location, item["input"], layer, model)
    key = _dotted(location)
    if kind == "missing":
        return ConfigError(f"{key} is missing", detail=_where(location, layer), hint=_example(location, model))
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        why, expected = "a section, not a value", f"write it as a section: [{key}]"
        return ConfigError(f"invalid {key}: {why}", detail=_where(location, layer, item["input"]), hint=expected)
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", str(context["expected"]))
        near = did_you_mean(str(item["input"]), allowed) if isinstance(item["input"], str) else ""
        hint = hint_of(near, f"one of {', '.join(format_value(word) for word in allowed)}")
        why = "unknown value"
    else:
        expected = _EXPECTED.get(kind, item["msg"]).format(**context)
        why = f"expected {expected}" if kind in _EXPECTED else item["msg"]
        hint = _example(location, model)
        if kind == "tuple_type" and str(item["input"]).startswith("["):
            hint += f"; the shell removes quotes, so add outer ones: --set '{key}=[\"…\"]'"
    return ConfigError(f"invalid {key}: {why}", detail=_where(location, layer, item["input"]), hint=hint)


def _unknown_key(location: Location, value: object, layer: ConfigSource, model: type[BaseModel]) -> ConfigError:
    owner, word = _model_at(location[:-1], model), str(location[-1])
    every = list(all_keys(model))
    here = list(owner.model_fields)
    elsewhere = [key for key in every if word in (key, key.rpartition(".")[2])]
    near = elsewhere[0] if elsewhere else closest(word, here) or closest(_dotted(location), every)
    section = _dotted(location[:-1])
    allowed = f"keys of [{section}]: {', '.join(here)}" if section else f"sections and keys: {', '.join(here)}"
    what = "section" if isinstance(value, dict) else "key"
    return ConfigError(
        f"unknown {what} {_dotted(location)}",
        detail=_where(location, layer, value, secret=not isinstance(value, dict)),  # nobody knows what it is
        hint=hint_of(f"did you mean {near}?" if near else "", allowed),
    )


def _where(location: Location, layer: ConfigSource, value: object = None, *, secret: bool = False) -> str:
    """`file my.toml: rules.gap = 30`, with the value as it was written there, not as pydantic saw it."""
    path = tuple(str(part) for part in _names(location))
    shown = layer.values.get(path, value) if path == location else value
    origin = layer.origin_of(path) or layer.origin_of(path[:-1]) or "default"
    key = _dotted(location)
    # what was meant as a list of settings may be one text: "[sasl.password=…]"
    secret = secret or (key.endswith("settings") and isinstance(shown, str))
    return f"{origin}: {key}{' = …' if secret else _equals(as_shown(key, shown))}"


def _equals(value: object) -> str:
    """` = "30m"`; nothing for a table, or what holds one, which may be large and deep."""
    if value is None or isinstance(value, dict):
        return ""
    if isinstance(value, list | tuple) and any(isinstance(item, dict | list | tuple) for item in value):
        return ""
    text = format_value(value)
    return " = " + (text if len(text) <= _LENGTH_MAX else text[:_LENGTH_MAX] + "…")


def _example(location: Location, model: type[BaseModel]) -> str:
    field = _field_at(location, model)
    examples: list[Any] = (field.examples or []) if field is not None else []
    if not examples:
        return "see docs/configuration.md"
    return f"for example {_dotted(_names(location)).rpartition('.')[2]} = {format_value(examples[0])}"


def _model_at(location: Location, model: type[BaseModel]) -> type[BaseModel]:
    field = _field_at(location, model)
    return (section_of(field) or model) if field is not None else model


def _field_at(location: Location, model: type[BaseModel]) -> FieldInfo | None:
    field: FieldInfo | None = None
    for name in _names(location):
        field = model.model_fields.get(str(name))
        if field is None:
            return None
        model = section_of(field) or model
    return field


def _names(location: Location) -> Location:
    return tuple(part for part in location if not isinstance(part, int))


def _dotted(location: Location) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    text = "".join(char if char.isprintable() else "?" for char in text[: _LENGTH_MAX + 2].removeprefix("."))
    return text if len(text) <= _LENGTH_MAX else text[:_LENGTH_MAX] + "…"
