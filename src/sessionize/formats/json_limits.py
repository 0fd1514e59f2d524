"""Limits of one JSON record: fields and nesting depth. One line could otherwise take a gigabyte and a minute.

Only lines long enough to exceed a limit are checked; ordinary events are shorter.
"""

import re

import msgspec
import numpy as np
import numpy.typing as npt

from sessionize.formats.lines import LineIndex
from sessionize.formats.rejects import TOO_DEEP, TOO_MANY_FIELDS, Fault

FIELDS_MAX = 10_000  # at the top level of one record
# Far below the decoders' own limits, which may even depend on the caller.
NESTING_MAX = 500
_DEEP_BYTES = 2 * NESTING_MAX  # no shorter line can be nested too deeply
_WIDE_BYTES = 5 * FIELDS_MAX  # no shorter line can have too many fields: "":1,
_BLOCK_BYTES = 1 << 16
_FEW_LINES = 16  # so many are checked one by one
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_FIELDS: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])


def may_exceed(lines: LineIndex) -> bool:
    """A quick test whether any line needs the exact check."""
    if lines.longest < _DEEP_BYTES:
        return False
    size = lines.ends - lines.starts
    long = np.flatnonzero(size >= _DEEP_BYTES)
    if len(long) > _FEW_LINES:
        long = long[(size[long] >= _WIDE_BYTES) | _may_be_deep(lines, long)]
    return any(_has_many_brackets(line) or _has_many_colons(line) for line in (bytes(lines[n]) for n in long.tolist()))


def excess(line: bytes) -> Fault | None:
    """The limit that a line exceeds, if any. line: a valid JSON object."""
    if len(line) < _DEEP_BYTES:
        return None
    if _has_many_brackets(line):
        depth = _depth(line)
        if depth > NESTING_MAX:
            return Fault(TOO_DEEP, f"the record is nested {depth:,} levels deep, at most {NESTING_MAX:,} are allowed")
    if _has_many_colons(line):
        count = len(_FIELDS.decode(line))
        if count > FIELDS_MAX:
            return Fault(TOO_MANY_FIELDS, f"the record has {count:,} fields, at most {FIELDS_MAX:,} are allowed")
    return None


def _may_be_deep(lines: LineIndex, chosen: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """bool[chosen]: which lines may have more than NESTING_MAX opening brackets. Counts whole words of 64 bytes."""
    bits = np.zeros(-(-len(lines.text) // 64) * 8, np.uint8)
    for start in range(0, len(lines.text), _BLOCK_BYTES):  # in blocks, so that no step allocates new memory
        opened = lines.text[start : start + _BLOCK_BYTES] & 0xDF  # [ and { differ only in this bit
        packed = np.packbits(opened == ord("["))
        bits[start >> 3 : (start >> 3) + len(packed)] = packed
    so_far = np.append(0, np.cumsum(np.bitwise_count(bits.view(np.uint64)), dtype=np.int64))
    many: npt.NDArray[np.bool_] = (
        so_far[(lines.ends[chosen] >> 6) + 1] - so_far[lines.starts[chosen] >> 6] > NESTING_MAX
    )
    return many


def _has_many_brackets(line: bytes) -> bool:
    return line.count(b"{") + line.count(b"[") > NESTING_MAX


def _has_many_colons(line: bytes) -> bool:
    return len(line) >= _WIDE_BYTES and line.count(b":") > FIELDS_MAX


def _depth(line: bytes) -> int:
    text = np.frombuffer(_STRING.sub(b"", line), np.uint8) | 0x20
    opened = (text == ord("{")).astype(np.int32)
    opened -= text == ord("}")
    return int(np.cumsum(opened).max())
