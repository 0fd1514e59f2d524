"""Bars on a terminal, as wide as it is: a line for each number, in eighths of a character where it can show them."""

import sys
from collections.abc import Sequence

_EIGHTHS = " ▏▎▍▌▋▊▉"
_WIDTH_MAX = 60
_WIDTH_MIN = 6


def bar(share: float, width: int, *, plain: bool = False) -> str:
    """A bar for a share of the width; what is more than nothing can be seen. plain: of # alone."""
    share = min(max(share, 0.0), 1.0)
    if plain:
        return "#" * max(round(share * width), 1 if share else 0)
    eighths = max(round(share * width * 8), 1 if share else 0)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (_EIGHTHS[rest] if rest else "")


def print_bars(head: tuple[str, str], rows: Sequence[tuple[str, int, str]]) -> None:
    """Rows of (name, number, remark) on stdout, with the share of each in all. head: of names and numbers."""
    from rich.text import Text

    from sessionize.cli import output as out

    console = out.console()
    total, most = max(sum(number for _, number, _ in rows), 1), max((number for _, number, _ in rows), default=0)
    names = max(len(head[0]), *(len(name) for name, _, _ in rows))
    numbers = max(len(head[1]), *(len(f"{number:,}") for _, number, _ in rows))
    remarks = max(len(remark) for _, _, remark in rows)
    width = min(_WIDTH_MAX, console.width - names - numbers - remarks - 13)
    if width < _WIDTH_MIN:  # the remarks give way first, then the bars
        remarks, width = 0, min(_WIDTH_MAX, console.width - names - numbers - 12)
    plain = not _shows_blocks()
    console.print(Text(f"{head[0]:>{names}}  {head[1]:>{numbers}}", style="dim"))
    for name, number, remark in rows:
        line = Text(f"{out.shown(name):>{names}}  {number:>{numbers},} {100 * number / total:5.1f} %")
        if width >= _WIDTH_MIN:
            line.append("  " + bar(number / most if most else 0, width, plain=plain).ljust(width), style="blue")
        if remark and remarks:
            line.append(f" {remark}", style="bold yellow")
        line.rstrip()
        console.print(line, no_wrap=True, overflow="ignore", crop=True)


def _shows_blocks() -> bool:
    """Whether what stdout is encoded in has the characters."""
    try:
        (_EIGHTHS + "█←").encode(sys.stdout.encoding or "ascii")
    except (LookupError, UnicodeError):
        return False
    return True
