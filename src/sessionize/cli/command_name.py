"""The name of this program, as it has to be typed to run it again from here."""

import os
import shutil
import sys


def command_name() -> str:
    """How this program was called: `sessionize`, a path, or `python -m sessionize`."""
    name = sys.argv[0]
    if name.endswith("__main__.py"):
        return f"{os.path.basename(sys.executable)} -m sessionize"
    found = shutil.which("sessionize")
    return "sessionize" if found and os.path.samefile(found, name) else os.path.relpath(name)
