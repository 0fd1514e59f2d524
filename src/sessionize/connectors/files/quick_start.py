"""Prevents a needless import of pandas at startup.

If pandas is installed, pyarrow imports it (0.2 s, more than all of our imports) when it first converts a list, only to
check whether the list is a pandas object.
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
    """Make pyarrow check for pandas now and find none, for the rest of this process.

    Only for processes that run no user code: Table.to_pandas then reports that pandas is missing. Plain imports of
    pandas still work.
    """
    if "pandas" not in sys.modules:
        finder = _NoPandas()
        sys.meta_path.insert(0, finder)
        try:
            pa.array([])
        finally:
            sys.meta_path.remove(finder)
