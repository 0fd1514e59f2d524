"""A policy as it is typed: a pipeline (a preset or a file), `default`, keys of [rules], or a base with keys over it.

default      my.toml      gap=30m,max_duration=none      my.toml,gap=45m,end_events=["logout"]
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from sessionize.analytics.two_cuts import Side
from sessionize.app.config.errors import config_error
from sessionize.app.config.pipeline import PipelineConfig, load_pipeline, preset_names
from sessionize.app.config.rules_section import RulesSection
from sessionize.app.config.sources import option_layer
from sessionize.app.config.suggest import did_you_mean, hint_of
from sessionize.app.config.values import hours_or_duration, minutes_or_duration, parse_value
from sessionize.errors import ConfigError
from sessionize.formats.dialects import Dialect
from sessionize.session.known_definitions import DEFINITIONS

DEFAULT = "default"


def side_of(text: str, dialect: Dialect) -> Side:
    """The policy that a text means. dialect: of the input, which says what a conversion is where the policy does not.

    Errors: ConfigError for what is neither a pipeline nor keys, and for values that cannot be meant.
    """
    pieces = list(_pieces(text))
    base = DEFAULT if not pieces or "=" in pieces[0] else pieces.pop(0)
    settings: dict[str, object] = {}
    for piece in pieces:
        key, value = _setting(piece, text)
        settings[f"rules.{key}"] = value
    config = _config(base, settings)
    rules = config.event_rules()
    if not config.rules.conversion_events:
        rules = replace(rules, conversion_events=frozenset(dialect.conversion_events))
    return Side(name=text, policy=config.policy(), rules=rules)


def _config(base: str, settings: dict[str, object]) -> PipelineConfig:
    if base in DEFINITIONS:
        settings = {"rules.definition": base} | settings
    elif base != DEFAULT:
        presets = [name for name, _ in preset_names()]
        if base not in presets and not base.endswith(".toml") and not os.path.exists(base):
            names = [*DEFINITIONS, *presets, DEFAULT]
            raise ConfigError(
                "no policy of this name",
                detail=repr(base),
                hint=hint_of(
                    did_you_mean(base, names),
                    f"the names are {', '.join(names)}; or a pipeline file (.toml), or keys such as gap=45m",
                ),
            )
        return load_pipeline(base, overrides=settings)
    layer = option_layer(settings)  # over the defaults alone, whatever presets and the environment say
    try:
        return PipelineConfig.model_validate(layer.nested())
    except ValidationError as error:
        raise config_error(error, layer, PipelineConfig) from None


def _setting(piece: str, text: str) -> tuple[str, Any]:
    name, equals, value = piece.partition("=")
    key = name.strip().removeprefix("rules.").replace("-", "_")
    if not equals:
        raise ConfigError(
            "a policy is a pipeline, and keys of its rules over it",
            detail=f"{piece!r} in {text!r}",
            hint="for example gap=30m,max_duration=none, ga4 or my.toml,gap=45m",
        )
    field = RulesSection.model_fields.get(key)
    if field is None:
        known = sorted(RulesSection.model_fields)
        raise ConfigError(
            f"unknown rule {key!r}",
            detail=f"{piece!r} in {text!r}",
            hint=hint_of(did_you_mean(key, known), f"the rules are {', '.join(known)}"),
        )
    if key == "gap":
        return key, minutes_or_duration(value, name=key)
    if key == "max_duration":
        return key, hours_or_duration(value, name=key)[0]
    meant = parse_value(value)
    return key, [meant] if isinstance(field.default, tuple) and not isinstance(meant, list) else meant


def _pieces(text: str) -> Iterator[str]:
    """The parts between commas, but not within brackets, braces or quotes."""
    begun, depth, quote = "", 0, ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char in "[{":
            depth += 1
        elif char in "]}":
            depth -= 1
        elif char == "," and depth <= 0:
            yield begun.strip()
            begun = ""
            continue
        begun += char
    if begun.strip():
        yield begun.strip()
