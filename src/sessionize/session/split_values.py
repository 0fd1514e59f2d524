"""The values that count for split_on_change: text, null where it is missing or ignored.

See docs/spec/sessions.md, rule 4.
"""

import re

import pyarrow as pa
import pyarrow.compute as pc

from sessionize.errors import ConfigError
from sessionize.session.rules import Rules


def split_values(events: pa.Table, rules: Rules) -> dict[str, pa.ChunkedArray]:
    """The values of each field, in the order of Rules.split_fields; dictionary-encoded text.

    Errors: ConfigError where the events lack a field.
    """
    ignored = ignored_pattern(rules)
    return {name: _values(events, name, ignored) for name in rules.split_fields}


def ignored_pattern(rules: Rules) -> str:
    """A regular expression (RE2) that the whole of a value has to match in order not to count."""
    parts = [".*".join(re.escape(text) for text in value.split("*")) for value in sorted(rules.split_ignore)]
    return rf"(?s)\A(?:{'|'.join(['', *parts])})\z"


def _values(events: pa.Table, name: str, ignored: str) -> pa.ChunkedArray:
    if not events.num_rows:
        return pa.chunked_array([], _TYPE)
    if name not in events.column_names:
        raise ConfigError(
            "split_on_change needs a field that the events lack",
            detail=f"field {name!r}; columns: {', '.join(events.column_names)}",
            hint="map the field, or remove it from split_on_change",
        )
    return pa.chunked_array([_counting(chunk, ignored) for chunk in events[name].chunks], _TYPE)


_TYPE = pa.dictionary(pa.int32(), pa.string())


def _counting(chunk: pa.Array, ignored: str) -> pa.Array:
    coded = chunk if isinstance(chunk, pa.DictionaryArray) else chunk.dictionary_encode()
    texts = coded.dictionary.cast(pa.string())
    counts = pc.fill_null(pc.invert(pc.match_substring_regex(texts, ignored)), False)
    kept = pc.if_else(counts, texts, None)
    # null in the dictionary is null in the rows once it is decoded
    return kept.take(coded.indices).dictionary_encode()
