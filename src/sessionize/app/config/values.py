"""Values as people type them in one line of text: `--set KEY=VALUE`, the environment, and options with a unit
of their own. The same grammar everywhere: a TOML value, or else the bare text itself.
"""

import re
import tomllib
from datetime import date, time
from typing import Literal

from sessionize.errors import ConfigError
from sessionize.session.durations import MS_OF_UNIT, format_duration, parse_duration_ms

# What to do with files whose content is in the tables already, or comes twice in one run.
KnownFiles = Literal["refuse", "again", "skip"]
_KEY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*(b|kb|mb|gb|tb|kib|mib|gib|tib)", re.IGNORECASE)
_BYTES_OF_UNIT = {
    "b": 1,
    **{unit: 1000**power for power, unit in enumerate(("kb", "mb", "gb", "tb"), start=1)},
    **{unit: 1024**power for power, unit in enumerate(("kib", "mib", "gib", "tib"), start=1)},
}
_HOURS_WITHOUT_DOUBT = 24


def parse_set_option(text: str) -> tuple[str, object]:
    """Split `KEY=VALUE` into the dotted key and its value: `rules.gap=45m` -> ("rules.gap", "45m").

    Errors: ConfigError where there is no `=` or no usable key before it.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not _KEY.fullmatch(key):
        begun = _KEY.match(key)
        shown = "" if begun is None or "." not in begun[0] else begun[0]
        raise ConfigError(
            "a setting needs a key and a value",
            # the key as far as it is one: the rest may be a secret
            detail=f"--set {shown if shown == text != '' else shown + '…'}",
            hint="write KEY=VALUE, for example --set rules.max_duration_mode=rolling",
        )
    return key, parse_value(value)


def parse_value(text: str) -> object:
    """Read one value: true, 12, 0.5, "text", ["a", "b"] as in TOML; anything else is the text as it stands.

    Dates stay text, for no key takes a date.
    """
    bare = text.strip()
    try:
        # the value stands alone on its line: what would open a second line or key is text
        table = tomllib.loads(f"value = {bare}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return bare
    value = table["value"]
    cut_short = "#" in bare and not isinstance(value, str | list | dict)
    return bare if len(table) > 1 or cut_short or isinstance(value, date | time) else value


def format_value(value: object) -> str:
    """Write a value as TOML, the way back of parse_value: `true`, `12`, `"30m"`, `["login"]`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + "".join(_escaped(char) for char in value) + '"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(format_value(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{format_value(k)} = {format_value(v)}" for k, v in value.items()) + "}"
    return str(value)


def parse_size_bytes(text: object) -> int:
    """Turn "1GB" (10**9), "512 MiB" (2**20 each) and the like into bytes.

    Errors: ConfigError for anything else; a number without a unit is refused.
    """
    match = _SIZE.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        number = isinstance(text, int | float) and not isinstance(text, bool)
        unitless = number or (isinstance(text, str) and re.fullmatch(r"\d+(\.\d+)?", text.strip()))
        raise ConfigError(
            "invalid size: missing unit" if unitless else "invalid size",
            detail=f"size = {text!r}",
            hint="for example 500MB, 1GB or 2GiB",
        )
    return int(float(match[1]) * _BYTES_OF_UNIT[match[2].lower()])


def minutes_or_duration(text: str, *, name: str) -> str:
    """Read a gap: minutes, or a duration with its unit. "30" -> "30m", for rules.gap. Errors: ConfigError."""
    return format_duration(parse_duration_ms(text, name=name, bare_unit="m"))


def hours_or_duration(text: str, *, name: str) -> tuple[str, str | None]:
    """Read a maximum: hours, a duration with its unit, or "none". "2" -> ("2h", None), for rules.max_duration.

    The second part is a warning for a bare number above 24 hours, which often was meant as minutes.
    Errors: ConfigError.
    """
    if text.strip().lower() == "none":
        return "none", None
    ms = parse_duration_ms(text, name=name, bare_unit="h")
    bare = not re.search("[dhms]", text.lower())
    doubtful = bare and ms > _HOURS_WITHOUT_DOUBT * MS_OF_UNIT["h"]
    number = f"{ms / MS_OF_UNIT['h']:.15g}"
    return format_duration(ms), f"{number} hours; did you mean {number}m?" if doubtful else None


def without_secrets(words: str) -> str:
    """Words of a command line as they may be shown: of KEY=VALUE the key, of user:password@host the host."""
    return re.sub(r"=\s*[^\s)]+", "=…", re.sub(r"[^\s/(]*:[^\s/]*@", "…@", words))


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char == "\n":
        return "\\n"
    return f"\\u{ord(char):04x}" if ord(char) < 0x20 or ord(char) == 0x7F else char
