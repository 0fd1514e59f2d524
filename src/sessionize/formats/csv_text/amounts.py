"""Amounts as people write them, with a decimal comma or with marks between thousands, as plain numbers."""

import pyarrow as pa
import pyarrow.compute as pc

_BETWEEN = {",": r"[. \x{a0}\x{202f}']", ".": r"[, \x{a0}\x{202f}']"}


def as_written(texts: pa.ChunkedArray, decimal: str) -> pa.ChunkedArray:
    """The texts with "." as decimal mark and nothing between thousands.

    Marks between thousands stand before each group of three digits. A text that is not of this form gets the other mark
    in place of ".", so that 1.5 with a decimal comma is no number, instead of a wrong one.
    """
    between = _BETWEEN[decimal]
    form = rf"^\s*[+-]?[0-9]{{1,3}}(?:{between}[0-9]{{3}})+(?:[{decimal}][0-9]*)?\s*$"
    is_grouped = pc.match_substring_regex(texts, form)
    texts = pc.if_else(is_grouped, pc.replace_substring_regex(texts, between, ""), texts)
    if decimal == ".":
        return texts
    swapped = pc.replace_substring(pc.replace_substring(texts, ",", "\0"), ".", ",")
    return pc.replace_substring(swapped, "\0", ".")
