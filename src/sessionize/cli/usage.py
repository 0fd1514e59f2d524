"""The usage line of a command: arguments in capital letters, in brackets where they may be left out."""

import re
from typing import Any

from typer.core import TyperCommand

_NEEDED = re.compile(r"\{([^{}]*)\}(\.\.\.)?")


class Command(TyperCommand):
    """A command whose usage line has no braces: FILES..., [PIPELINE]."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """As the base class says; some versions of typer write an argument that has to be given as {NAME}."""
        return [_NEEDED.sub(r"\1\2", piece) for piece in super().collect_usage_pieces(ctx)]
