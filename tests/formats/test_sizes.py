"""The common length of strings."""

import pyarrow as pa
import pytest

from sessionize.formats.sizes import common_size_bytes


@pytest.mark.parametrize(
    ("strings", "size_bytes"),
    [
        ([], None),
        (["ab", "cd"], 2),
        (["é", "ab"], 2),
        (["", ""], 0),
        (["ab", "c"], None),
        (["ab", "c", "def"], None),  # right on average
        (["ab", None], None),
    ],
)
def test_common_size(strings: list[str | None], size_bytes: int | None) -> None:
    assert common_size_bytes(pa.array(strings, pa.string())) == size_bytes


def test_of_a_slice() -> None:
    assert common_size_bytes(pa.array(["abc", "de", "fg", "h"]).slice(1, 2)) == 2
