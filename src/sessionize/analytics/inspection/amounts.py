"""Guesses how amounts are written: which decimal mark, and what stands between thousands."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_CURRENCY = re.compile(r"^[$€£¥]\s*|\s*(?:[$€£¥]|EUR|USD|GBP|CHF)$")
_PLAIN = re.compile(r"[+-]?\d+")
_DOT = re.compile(r"[+-]?\d*\.\d+(?:[eE][+-]?\d+)?")
_DOT_GROUPS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+\.\d*|[+-]?\d{1,3}(?:,\d{3}){2,}")
_COMMA = re.compile(r"[+-]?\d+,(?:\d{1,2}|\d{4,})|[+-]?0,\d{3}")
_COMMA_GROUPS = re.compile(r"[+-]?\d{1,3}(?:[. '\u00a0\u202f]\d{3})+,\d*|[+-]?\d{1,3}(?:\.\d{3}){2,}")
_EITHER = re.compile(r"[+-]?\d{1,3},\d{3}")


@dataclass(frozen=True, slots=True)
class AmountGuess:
    """share: of the values that are amounts. decimal: the mark that has to be said, None for a plain dot.

    unusable: values that are left out with it, examples first. ambiguous: whether both marks are possible.
    """

    share: float
    decimal: str | None = None
    unusable: tuple[str, ...] = ()
    ambiguous: bool = False


def guess_amounts(values: Sequence[Any]) -> AmountGuess | None:
    """How these values are amounts; None if most of them are none."""
    if not values:
        return None
    comma = dot = grouped = either = plain = 0
    kinds: list[tuple[str, str]] = []
    for value in values[:1_000]:
        if isinstance(value, bool):
            continue
        if isinstance(value, int | float):
            plain += 1
            continue
        if not isinstance(value, str):
            continue
        text = value.strip()
        bare = _CURRENCY.sub("", text)
        kind = _kind(bare)
        comma, dot = comma + (kind == "comma"), dot + (kind in ("dot", "groups"))
        grouped, either, plain = grouped + (kind == "groups"), either + (kind == "either"), plain + (kind == "plain")
        kinds.append((text, "currency" if bare != text and kind else kind))
    share = (comma + dot + either + plain) / len(values[:1_000])
    if not comma + dot + either + plain:
        return None
    decimal = "," if comma > dot else "." if grouped or (either and dot) or (either and not comma) else None
    wrong = {",": ("dot", "groups"), ".": ("comma",), None: ("comma", "either", "groups")}[decimal]
    unusable = tuple(text for text, kind in kinds if kind in wrong or kind in ("currency", ""))
    return AmountGuess(share, decimal, unusable, ambiguous=bool(either) and not comma + dot)


def _kind(text: str) -> str:
    for name, form in (
        ("plain", _PLAIN),
        ("groups", _DOT_GROUPS),
        ("comma", _COMMA_GROUPS),
        ("comma", _COMMA),
        ("either", _EITHER),
        ("dot", _DOT),
    ):
        if form.fullmatch(text):
            return name
    return ""
