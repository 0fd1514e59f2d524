"""Text as the store keeps it: all of Unicode but NUL, which PostgreSQL takes neither in text nor in JSONB.

NUL becomes the visible ␀ (U+2400). So that nothing is lost and different users stay different, a ␀ that stood there
becomes ␛␀, and ␛ (U+241B) becomes ␛␛. Both databases keep the same text; SQLite's own functions stop at a NUL anyway.
"""

import hashlib
import re

import pyarrow as pa
import pyarrow.compute as pc

_NUL_SHOWN = "␀"
_ESCAPE = "␛"
_STORED = re.compile(f"{_ESCAPE}(.)|{_NUL_SHOWN}", re.DOTALL)

# An index entry of PostgreSQL has room for 2,704 bytes, and a key has two texts. The users of events are at most 1,024
# bytes long, so only those with very many of the characters above come near.
KEY_BYTES_MAX = 1_280
_KEY_CHARACTERS_KEPT = 200


def stored_text(text: str) -> str:
    """The text as the store keeps it; most texts are unchanged."""
    return text.replace(_ESCAPE, _ESCAPE * 2).replace(_NUL_SHOWN, _ESCAPE + _NUL_SHOWN).replace("\0", _NUL_SHOWN)


def original_text(stored: str) -> str:
    """The text that is kept as `stored`."""
    return _STORED.sub(lambda match: match[1] or "\0", stored)


def stored_key(text: str) -> str:
    """A user or session id as the store keeps it: one too long for an index ends in its SHA-256 instead."""
    stored = stored_text(text)
    if len(stored.encode()) <= KEY_BYTES_MAX:
        return stored
    return f"{stored[:_KEY_CHARACTERS_KEPT]}…{hashlib.sha256(text.encode()).hexdigest()}"


def stored_texts(texts: pa.Array) -> pa.Array:
    """stored_text of each."""
    if not pc.any(pc.match_substring_regex(texts, rf"[\x00{_NUL_SHOWN}{_ESCAPE}]")).as_py():
        return texts
    return pa.array([None if text is None else stored_text(text) for text in texts.to_pylist()], pa.string())


def stored_keys(texts: pa.Array) -> pa.Array:
    """stored_key of each."""
    stored = stored_texts(texts)
    if (pc.max(pc.binary_length(stored)).as_py() or 0) <= KEY_BYTES_MAX:
        return stored
    return pa.array([None if text is None else stored_key(text) for text in texts.to_pylist()], pa.string())
