"""Damaged gzip gives what it can, and says where it ended."""

import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize.formats.content.gunzip import GzipStream

TEXT = b"".join(b'{"user":"u%d","time":%d}\n' % (n, n) for n in range(5_000))


def read(data: bytes, *, size: int = 1000) -> tuple[bytes, GzipStream]:
    stream = GzipStream(io.BytesIO(data))
    buffer = memoryview(bytearray(size))
    parts = []
    while count := stream.readinto(buffer):
        parts.append(bytes(buffer[:count]))
    assert stream.readinto(buffer) == 0
    return b"".join(parts), stream


@given(st.lists(st.binary(max_size=500), min_size=1, max_size=3), st.integers(1, 600), st.integers(0, 5))
def test_members_and_padding(members: list[bytes], size: int, zeros: int) -> None:
    data = b"".join(gzip.compress(m) + b"\0" * zeros for m in members)
    text, stream = read(data, size=size)
    assert text == b"".join(members)
    assert stream.fault is None
    assert stream.read_bytes == len(data)


@pytest.mark.parametrize("cut", [1, 2, 5, 9, 10, 11, 100, 5_000, -1, -4, -8, -9])
def test_truncated(cut: int) -> None:
    whole = gzip.compress(TEXT)
    text, stream = read(whole[:cut])
    assert TEXT.startswith(text)
    assert stream.fault is not None
    assert stream.fault.reason == "truncated_gzip"
    assert f"{len(whole[:cut]):,}" in stream.fault.detail


def test_truncated_in_the_second_member() -> None:
    text, stream = read(gzip.compress(b"first\n") + gzip.compress(b"second\n")[:12])
    assert text.startswith(b"first\n")
    assert stream.fault is not None
    assert stream.fault.reason == "truncated_gzip"


@pytest.mark.parametrize("place", [3_000, -6])
def test_a_flipped_byte(place: int) -> None:
    data = bytearray(gzip.compress(TEXT))
    data[place] ^= 0xFF
    text, stream = read(bytes(data))
    assert stream.fault is not None
    assert stream.fault.reason == "corrupt_gzip"
    assert text[:500] == TEXT[:500]


def test_something_else_behind_the_end() -> None:
    text, stream = read(gzip.compress(TEXT) + b"more")
    assert text == TEXT
    assert stream.fault is not None
    assert stream.fault.reason == "corrupt_gzip"


def test_nothing() -> None:
    text, stream = read(b"")
    assert text == b""
    assert stream.fault is not None
    assert stream.fault.reason == "truncated_gzip"  # what is compressed to nothing still has 20 bytes


def test_a_bomb_comes_out_in_small_parts() -> None:
    stream = GzipStream(io.BytesIO(gzip.compress(bytes(10_000_000))))
    buffer = memoryview(bytearray(1000))
    assert 0 < stream.readinto(buffer) <= 1000
    assert len(stream._input) < 20_000  # what waits is still compressed


def test_much_padding() -> None:
    """Hundreds of megabytes of zeros, as a disk image or a tape leaves them behind."""
    ends = [gzip.compress(b"a"), *[bytes(1 << 18)] * 2_000, gzip.compress(b"b"), b""]

    class Parts:
        def read(self, size: int, /) -> bytes:
            return ends.pop(0)

    stream, buffer = GzipStream(Parts()), memoryview(bytearray(10))
    assert [bytes(buffer[: stream.readinto(buffer)]) for _ in range(3)] == [b"a", b"b", b""]
    assert stream.fault is None
