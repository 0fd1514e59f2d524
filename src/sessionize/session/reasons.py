"""The reasons why a session began and ended, as small codes inside and as names outside.

Codes below RULE_BASE are fixed; RULE_BASE + i is the i-th rule of the run, written `rule:<name>`.
See docs/spec/sessions.md, rule 5.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

NONE = 0
FIRST = 1
INACTIVITY = 2
MAX_DURATION = 3
TIMEOUT = 4
END_OF_INPUT = 5
MAX_EVENTS = 6
RULE_BASE = 8
# Of rules that the cut itself computes (kernel/cutting.py), in the order of Rules.names.
DAY_START = RULE_BASE + 3
SPLIT_ON_CHANGE = RULE_BASE + 4

_NAMES = ("", "first", "inactivity", "max_duration", "timeout", "end_of_input", "max_events", "")


def reason_names(rule_names: tuple[str, ...]) -> pa.Array:
    """The names by code of a run with these rules; code 0 is no reason and has no name."""
    return pa.array([*_NAMES, *(f"rule:{name}" for name in rule_names)], pa.string())


def decode_reasons(codes: npt.NDArray[np.int16], names: pa.Array) -> pa.DictionaryArray:
    """Reason codes as dictionary-encoded text, null for code 0."""
    none = codes == NONE
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=none if none.any() else None), names)
