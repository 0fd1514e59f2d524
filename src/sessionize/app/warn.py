"""What a use case calls with a text for people: a command prints it, an API may return it."""

from collections.abc import Callable

Warn = Callable[[str], None]
