"""Did you mean: the closest known name to one that is not known, for error messages."""

from collections.abc import Iterable
from difflib import get_close_matches


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known name most like word, without regard to case, `-` or `_`; None when nothing comes near.

    For dotted keys a match of the last part counts too: `gap` finds `rules.gap`.
    """
    names = list(known)
    by_plain = {_plain(name): name for name in names}
    near = get_close_matches(_plain(word), by_plain, n=1, cutoff=0.6)
    if near:
        return by_plain[near[0]]
    leaf = _plain(word.rpartition(".")[2])
    return next((name for name in names if _plain(name.rpartition(".")[2]) == leaf), None)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean X?`, or an empty text when nothing comes near."""
    name = closest(word, known)
    return "" if name is None else f"did you mean {name}?"


def hint_of(*parts: str) -> str:
    """Join the parts of a hint that are not empty."""
    return "; ".join(part for part in parts if part).replace("?; ", "? ")


def _plain(word: str) -> str:
    return word.lower().replace("-", "").replace("_", "")
