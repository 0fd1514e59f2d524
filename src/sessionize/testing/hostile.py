"""Hypothesis strategies for records at the ends of what is accepted, and beyond: odd text, times, values and names.

Made by somebody who wants to stop a pipeline with one record. HOSTILE is the dialect that reads them.
"""

import json
from typing import Any

from hypothesis import strategies as st

from sessionize.formats.dialects import Dialect
from sessionize.session.limits import TIME_MS_MAX, TIME_MS_MIN, USER_BYTES_MAX, VALUE_MAX
from sessionize.session.time import MS_PER_DAY

HOSTILE = Dialect.mapping(
    user="u",
    time="t",
    event_id="id",
    event_type="type",
    page="page",
    value="value",
    product="product",
    category="category",
    time_format="ms",
)

_ODD = (
    "", "\0", "a\0b", "\u202eabc", "\u2028", "\n", "\r\n", '"', "\\", "'", "''", "%", "␀", "␛", "␛␀", "\ufeff", "\x7f",
    "\U0010ffff", "é" * 300, "x" * 70_000, "NULL", "nan", "{}", "[1]", "a,b;c\t", "<b>", "$1", "\x1b[31m", "ß", "İ",
    "K",
)  # fmt: skip
_USERS = (
    "a", "b", "\0", "a\0", "\0" * USER_BYTES_MAX, "é" * (USER_BYTES_MAX // 2), "x" * USER_BYTES_MAX, " a", "\u202e",
    "␀", "␛", "␛␀", "'", '"', "\\", "a/b", "../x", "%00", "NULL", "*", "?", "\u200b", "purchase",
)  # fmt: skip
_NAMES = (
    "x", "X", "session_id", "event_date", "user_hash_bucket", "revision", "processing_time", "user", "properties",
    "event_time_ms", "a.b", "a b", "", "é", "\0", "1", "select", "x" * 300, "filename", "file", "__filename",
    "__batch_index", "rowid", "ID", "Page", "ß", "ss", "İ", "K", "k", "-", "%", "$", "shortened_fields",
    "__index_level_0__",
)  # fmt: skip

texts = st.one_of(st.sampled_from(_ODD), st.text(max_size=5))
users = st.one_of(st.sampled_from(_USERS), st.text(min_size=1, max_size=3).filter(lambda text: not text.isspace()))
times = st.one_of(
    st.integers(-5, 60),
    st.sampled_from(
        [
            TIME_MS_MIN,
            TIME_MS_MIN + 1,
            TIME_MS_MAX,
            TIME_MS_MAX - 1,
            MS_PER_DAY - 1,
            MS_PER_DAY,
            -1,
            -MS_PER_DAY,
        ]
    ),
)
values = st.one_of(
    st.sampled_from([None, VALUE_MAX, -VALUE_MAX, 0, -0.0, 5e-324, 0.1, 10**9, "1e9", " 5 ", ""]),
    st.floats(-VALUE_MAX, VALUE_MAX),
)
_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([2**53 + 1, 2**63 - 1, 2**63, -(2**70), 0.5]),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
)
_MAPPED = frozenset({"u", "t", "id", "type", "page", "value", "product", "category"})
further = st.dictionaries(
    st.one_of(st.sampled_from(_NAMES), st.text(max_size=4)).filter(lambda name: name not in _MAPPED),
    st.one_of(_scalars, st.lists(_scalars, max_size=3), st.dictionaries(texts, _scalars, max_size=3)),
    max_size=4,
)
types = st.one_of(st.sampled_from(["purchase", "PURCHASE", "view", None]), texts)
_NOT_EVENTS = (
    b"{", b"", b"\xff\xfe", b"\0", b"null", b"[]", b'{"u":null}', b'{"u":"a"}', b'{"u":"a","t":"\\u0000"}',
    b'{"u":"' + b"z" * 2_000 + b'","t":1}', b'{"u":"a","t":1,"value":"x"}', b'{"u":"a","t":1,"value":1e999}',
    b'{"u":"\\ud800","t":1}', b'{"u":" ","t":1}', b'{"u":"a","t":253402300800000}', b'{"u":"a","t":1,"page":{}}',
    b'{"u":"a","t":1,"x":' + b"[" * 600 + b"]" * 600 + b"}",
)  # fmt: skip


def records() -> st.SearchStrategy[dict[str, Any]]:
    """Records that are accepted, as the fields of HOSTILE and some further ones."""
    optional = {"id": texts, "type": types, "page": texts, "value": values, "product": texts, "category": texts}
    known = st.fixed_dictionaries({"u": users, "t": times}, optional=optional)
    return st.builds(lambda mapped, other: {**other, **mapped}, known, further)


def lines(*, rejected: bool = True) -> st.SearchStrategy[bytes]:
    """Records as lines of JSON, spelt in two ways; rejected: also such as are no events."""
    spelt = st.builds(lambda record, ascii_: json.dumps(record, ensure_ascii=ascii_), records(), st.booleans())
    good = spelt.map(lambda text: text.encode("utf-8", "surrogatepass"))
    return st.one_of(good, good, good, st.sampled_from(_NOT_EVENTS)) if rejected else good
