"""When a session is a bounce: conditions as words, all of which must hold. See docs/spec/sessions.md, rule 12."""

from collections.abc import Iterable

from sessionize.errors import ConfigError
from sessionize.session.durations import format_duration, parse_duration_ms

ONE_EVENT, ONE_PAGE, NO_CONVERSION = "one_event", "one_page", "no_conversion"
_WORDS = (ONE_EVENT, ONE_PAGE, NO_CONVERSION)


def bounce_conditions(words: Iterable[str]) -> tuple[str, ...]:
    """The conditions in one order and form, each once, a duration last. Errors: ConfigError."""
    if isinstance(words, str):
        raise ConfigError("bounce must be a list of conditions", detail=f"bounce = {words!r}", hint=f"[{words!r}]")
    given = [word.strip().lower() for word in words]
    durations = {_duration_ms(word) for word in given if word not in _WORDS}
    if len(durations) > 1:
        raise ConfigError("bounce has two durations", detail=f"bounce = {given}", hint="name one of them")
    return (*(word for word in _WORDS if word in given), *(format_duration(ms) for ms in durations))


def bounce_duration_ms(conditions: Iterable[str]) -> int | None:
    """What a bounce must be shorter than, None where its duration does not count."""
    return next((_duration_ms(word) for word in conditions if word not in _WORDS), None)


def _duration_ms(word: str) -> int:
    try:
        ms = parse_duration_ms(word, name="bounce")
    except ConfigError:
        ms = 0
    if ms <= 0:
        raise ConfigError(
            "unknown condition of a bounce",
            detail=f"bounce = {word!r}",
            hint=f"one of {', '.join(_WORDS)}, or a duration such as 10s",
        )
    return ms
