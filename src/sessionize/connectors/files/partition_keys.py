"""Keys of Hive partitions: a folder user_id=u1 gives each row of its files the column user_id."""

import os
from urllib.parse import unquote

_NULL = "__HIVE_DEFAULT_PARTITION__"


def partition_keys(path: str) -> dict[str, str | None]:
    """The keys in the names of a path's folders, as text; the innermost counts where a name comes twice."""
    found: dict[str, str | None] = {}
    for folder in os.path.dirname(path).split(os.sep):
        name, equals, value = folder.partition("=")
        if equals and name:
            text = unquote(value)
            found[unquote(name)] = None if text == _NULL else text
    return found
