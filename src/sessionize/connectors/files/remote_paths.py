"""Resolves addresses (files, folders, patterns) to files, as source_paths does with local paths."""

from sessionize.connectors.files.opening import KNOWN_ENDINGS, named
from sessionize.connectors.object_stores import Found, below, find
from sessionize.connectors.remote_addresses import address_of
from sessionize.errors import InputError


def remote_files(text: str) -> tuple[list[Found], list[str]]:
    """The files of an address, and those in a folder whose name tells nothing.

    Errors: InputError for what is not there, or yields no file; ConfigError, UnavailableError.
    """
    address = address_of(text)
    found = find(address)
    if found is not None:
        if not found:
            raise InputError("a pattern matches no file", detail=f"pattern {text!r}", hint="check its names")
        return found, []
    root = address.path.rstrip("/")
    files: list[Found] = []
    others: list[str] = []
    for each in below(address):
        inner = each.address.path.removeprefix(root).strip("/")
        if "_delta_log" in inner.split("/"):
            raise InputError("a folder has a Delta table in it", detail=text, hint=f"name it: delta:{text}")
        if any(part.startswith((".", "_")) for part in inner.split("/")) or not each.size_bytes:
            continue
        if named(inner) is None:
            others.append(each.address.text)
        else:
            files.append(each)
    if not files:
        there = f"; found only {', '.join(others[:5])}" if others else ""
        raise InputError("a folder has no file to read", detail=f"folder {text}{there}", hint=KNOWN_ENDINGS)
    return files, others
