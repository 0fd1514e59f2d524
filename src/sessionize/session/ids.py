"""Session ids and user buckets: pure functions, so that every engine and every replay agrees.

See docs/spec/sessions.md, rule 6.
"""

import mmh3
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.session.columns import BUCKET_COUNT

IntArray = npt.NDArray[np.int64]

HASHED_TOGETHER_BYTES_MAX = 256  # longer names are hashed one by one


def start_ids(users: pa.Array, start_ms: IntArray, repeat: IntArray | None) -> pa.Array:
    """`<user>_<start in ms>`, one per session.

    repeat int64[n]: the number of earlier sessions of the user that began in the same millisecond (a rule can cut
    between simultaneous events); if it is not zero, `.<repeat>` follows. None if it is zero everywhere.
    """
    ids = pc.binary_join_element_wise(users, pc.cast(pa.array(start_ms), pa.string()), "_")
    if repeat is None:
        return ids
    suffix = pa.array([f".{k}" if k else "" for k in repeat.tolist()], pa.string())
    return pc.binary_join_element_wise(ids, suffix, "")


def sequential_ids(users: pa.Array, chain: IntArray, piece: IntArray) -> pa.Array:
    """`<user>_session_<chain>_<piece>`: chains count from 1 for each user, pieces of a chain from 0."""
    return pc.binary_join_element_wise(
        users,
        pa.scalar("session"),
        pc.cast(pa.array(chain), pa.string()),
        pc.cast(pa.array(piece), pa.string()),
        "_",
    )


def running_ids(users: pa.Array, number: IntArray) -> pa.Array:
    """`<user>-<n>`: sessions count from 1 for each user."""
    return pc.binary_join_element_wise(users, pc.cast(pa.array(number), pa.string()), "-")


def user_hash_buckets(users: pa.Array) -> pa.Array:
    """int32[n] in 0..99: the Iceberg transform bucket[100] of the user as a string.

    Source: the Iceberg specification, appendix B: 32-bit murmur3 (x86, seed 0) of the UTF-8 bytes, sign bit cleared.
    """
    names = users.combine_chunks() if isinstance(users, pa.ChunkedArray) else users
    if pa.types.is_dictionary(names.type):
        table = user_hash_buckets(names.dictionary).to_numpy()
        return pa.array(table[names.indices.to_numpy(zero_copy_only=False)])
    return pa.array(((_murmur3(names.cast(pa.large_string())) & 0x7FFFFFFF) % BUCKET_COUNT).astype(np.int32))


def _murmur3(names: pa.LargeStringArray) -> npt.NDArray[np.uint32]:
    """uint32[n]: 32-bit murmur3 (x86, seed 0) of the UTF-8 bytes of each name, all names at once."""
    if not len(names):
        return np.empty(0, np.uint32)
    _, offsets, data = names.buffers()
    bounds = np.frombuffer(offsets, np.int64)[names.offset : names.offset + len(names) + 1]
    start, size = bounds[:-1], np.diff(bounds)
    text = np.frombuffer(data, np.uint8) if data is not None and data.size >= 4 else np.zeros(0, np.uint8)
    if not len(text):  # too short for a word
        text = np.concatenate((np.frombuffer(data or b"", np.uint8), np.zeros(4, np.uint8)))
    words = np.ndarray(len(text) - 3, "<u4", text, strides=(1,))  # the four bytes from each position on
    hashes = np.zeros(len(names), np.uint32)
    whole = size & ~3
    shortest, longest = int(whole.min()), int(whole.max())
    for at in range(0, min(longest, HASHED_TOGETHER_BYTES_MAX), 4):
        rows = slice(None) if shortest > at else np.flatnonzero(whole > at)
        mixed = _rotated(hashes[rows] ^ _scrambled(words[start[rows] + at]), 13)
        hashes[rows] = mixed * np.uint32(5) + np.uint32(0xE6546B64)
    rows = np.flatnonzero(size & 3)
    if len(rows):
        begin, rest = (start + whole)[rows], (size & 3)[rows]
        there = np.minimum(begin, len(words) - 1)  # the last word may extend past the end: read it further left
        tail = np.right_shift(words[there], (8 * (begin - there)).astype(np.uint32), dtype=np.uint32)
        mask = np.left_shift(np.uint32(1), (8 * rest).astype(np.uint32), dtype=np.uint32) - np.uint32(1)
        hashes[rows] ^= _scrambled(np.bitwise_and(tail, mask, dtype=np.uint32))
    hashes ^= size.astype(np.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        hashes ^= hashes >> np.uint32(shift)
        hashes *= np.uint32(factor)
    for row in np.flatnonzero(size > HASHED_TOGETHER_BYTES_MAX).tolist():
        hashes[row] = mmh3.hash(names[row].as_py(), 0, False)
    return hashes


def _scrambled(word: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    return _rotated(word * np.uint32(0xCC9E2D51), 15) * np.uint32(0x1B873593)


def _rotated(word: npt.NDArray[np.uint32], bits: int) -> npt.NDArray[np.uint32]:
    return (word << np.uint32(bits)) | (word >> np.uint32(32 - bits))
