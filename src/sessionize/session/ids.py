"""Names of sessions and buckets of users: pure functions, so that every engine and every replay agrees.

See docs/spec/sessions.md, rule 6.
"""

import mmh3
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.session.columns import BUCKET_COUNT

IntArray = npt.NDArray[np.int64]


def start_ids(users: pa.Array, start_ms: IntArray, repeat: IntArray | None) -> pa.Array:
    """`<user>_<start in ms>`, one per session.

    repeat int64[n]: how many sessions of the same user began earlier at this very millisecond (a rule can cut between
    simultaneous events); where it is not zero, `.<repeat>` follows. None when it is zero everywhere.
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
    """int32[n] in 0..99: what the Iceberg transform bucket[100] gives for the user as a string.

    Source: the Iceberg specification, appendix B: 32-bit murmur3 (x86, seed 0) of the UTF-8 bytes, sign bit cleared.
    """
    names = users.combine_chunks() if isinstance(users, pa.ChunkedArray) else users
    if pa.types.is_dictionary(names.type):
        table = user_hash_buckets(names.dictionary).to_numpy()
        return pa.array(table[names.indices.to_numpy(zero_copy_only=False)])
    hashes = np.fromiter((mmh3.hash(u, 0, False) for u in names.to_pylist()), np.int64, len(names))
    return pa.array(((hashes & 0x7FFFFFFF) % BUCKET_COUNT).astype(np.int32))
