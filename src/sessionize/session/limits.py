"""The limits of a valid event, shared by the decoders, the frames and the core.

Every output can store an event within them, so no sink refuses a row of an accepted event.
Source: docs/spec/sessions.md, rule 10.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

TIME_MS_MIN = -62_135_596_800_000  # 0001-01-01T00:00:00.000Z
TIME_MS_MAX = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z
# From 1990 up to 2100: the times of events by a clock that is set. Others are valid, and worth a warning.
LIKELY_TIME_MS = (631_152_000_000, 4_102_444_800_000)
USER_BYTES_MAX = 1_024  # in UTF-8
VALUE_MAX = 1e9  # of either sign; the number of such values in a session is unlimited

IntArray = npt.NDArray[np.int64]


def all_usable(users: pa.Array) -> bool:
    """Whether all are valid users: not null, 1 to USER_BYTES_MAX bytes, and not blank.

    users: string or large_string. About a nanosecond each.
    """
    if not len(users):
        return True
    if users.null_count:
        return False
    ends = text_ends(users)
    size = np.diff(ends)
    if size.min() < 1 or size.max() > USER_BYTES_MAX:
        return False
    # A blank user begins with a blank, which is at most 0x20, or beyond ASCII and then negative here.
    data = np.frombuffer(users.buffers()[2], np.int8)
    if data[ends[0] : ends[-1]].min() > 0x20 or data[ends[:-1]].min() > 0x20:
        return True
    return not pc.any(pc.utf8_is_space(users)).as_py()


def is_utf8(texts: pa.Array) -> bool:
    """Whether all of them are UTF-8; pure ASCII is detected at once. texts: string or large_string."""
    data = texts.buffers()[2]
    if not len(texts) or data is None:
        return True
    ends = text_ends(texts)
    # a slice has the buffers of the whole array, so only its part is checked
    if np.frombuffer(data, np.int8)[ends[0] : ends[-1]].min(initial=0) >= 0:
        return True
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise
        return False
    return True


def text_ends(texts: pa.Array) -> IntArray | npt.NDArray[np.int32]:
    """[n + 1] offsets into the bytes of n texts: string or large_string."""
    wide = pa.types.is_large_string(texts.type)
    ends: IntArray = np.frombuffer(texts.buffers()[1], np.int64 if wide else np.int32)
    return ends[texts.offset : texts.offset + len(texts) + 1]
