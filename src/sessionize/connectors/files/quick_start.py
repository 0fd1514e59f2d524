"""Starting without pandas.

Where pandas is installed, pyarrow imports it (0.2 s, more than all of ours) the first time it is given a list, only to
ask whether the list is a pandas object.
"""

import sys
from importlib.abc import MetaPathFinder
from typing import Any

import pyarrow as pa


class _NoPandas(MetaPathFinder):
    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is not wanted now", name="pandas")


def without_pandas() -> None:
    """Let pyarrow ask its question now and find no pandas, for the rest of this process.

    Only for a process that runs no code of the user's: Table.to_pandas will say that pandas is missing. Plain imports
    of pandas work as ever.
    """
    if "pandas" not in sys.modules:
        finder = _NoPandas()
        sys.meta_path.insert(0, finder)
        try:
            pa.array([])
        finally:
            sys.meta_path.remove(finder)
