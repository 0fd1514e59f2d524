"""sessionize: clickstream events into user sessions, with the same rows out of every engine."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sessionize.errors import ConfigError, InputError, MissingExtraError, OutputError, SessionizeError, StateError
    from sessionize.frames import label, sessions
    from sessionize.kernel.sessionizer import Sessionizer
    from sessionize.session.gap_by import GapBy
    from sessionize.session.known_definitions import definition
    from sessionize.session.policy import Policy
    from sessionize.session.rules import Rules

__all__ = [
    "ConfigError",
    "GapBy",
    "InputError",
    "MissingExtraError",
    "OutputError",
    "Policy",
    "Rules",
    "SessionizeError",
    "Sessionizer",
    "StateError",
    "definition",
    "label",
    "sessions",
]

# Where each public name lives. Loaded on first use, so that the command line starts without numpy and pyarrow.
_HOME = {
    "ConfigError": "sessionize.errors",
    "GapBy": "sessionize.session.gap_by",
    "InputError": "sessionize.errors",
    "MissingExtraError": "sessionize.errors",
    "OutputError": "sessionize.errors",
    "Policy": "sessionize.session.policy",
    "Rules": "sessionize.session.rules",
    "SessionizeError": "sessionize.errors",
    "Sessionizer": "sessionize.kernel.sessionizer",
    "StateError": "sessionize.errors",
    "definition": "sessionize.session.known_definitions",
    "label": "sessionize.frames",
    "sessions": "sessionize.frames",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("sessionize")
    if name not in _HOME:
        raise AttributeError(f"module 'sessionize' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
