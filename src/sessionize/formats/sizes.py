"""The lengths of strings, without looking at any of them."""

import numpy as np
import pyarrow as pa


def common_size_bytes(strings: pa.StringArray) -> int | None:
    """The length of all strings; None where lengths differ, a string is null, or there are none."""
    if not len(strings) or strings.null_count:
        return None
    offsets = np.frombuffer(strings.buffers()[1], np.int32)[strings.offset : strings.offset + len(strings) + 1]
    size = int(offsets[1] - offsets[0])
    if int(offsets[-1] - offsets[0]) != size * len(strings):
        return None
    return size if bool(np.all(np.diff(offsets) == size)) else None
