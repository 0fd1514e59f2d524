"""What operators ask for of columns of any type: a value, or null, and never an error."""

import datetime as dt
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize import Policy
from sessionize.kernel import emit, large_text, reorder
from sessionize.kernel.payload import PAYLOAD_TYPES, as_type
from sessionize.kernel.processor import EventProcessor
from sessionize.session.definition import SessionDefinition
from sessionize.testing.hostile import texts
from tests.kernel.counting import Counts, Seen

GAP = SessionDefinition(policy=Policy(gap_ms=10, max_duration_ms=None))
KINDS = sorted(PAYLOAD_TYPES, key=str)
_WIDE = st.one_of(st.sampled_from([0, -1, 1, 2**63 - 1, -(2**63), 2**53 + 1]), st.integers(-(2**63), 2**63 - 1))
_NARROW = st.one_of(st.sampled_from([0, -1, 5_000_000, 2**31 - 1, -(2**31)]), st.integers(-(2**31), 2**31 - 1))
# Types whose numbers mean something else: made of the numbers, as Python has no such dates and times.
_OF_64 = [
    pa.date64(), pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("ns", "UTC"), pa.timestamp("us", "Asia/Tokyo"),
    pa.timestamp("us", "No/Such"), pa.duration("s"), pa.duration("ns"), pa.time64("us"), pa.time64("ns"), pa.float64(),
    pa.uint64(), pa.int64(),
]  # fmt: skip
_OF_32 = [pa.date32(), pa.time32("s"), pa.time32("ms"), pa.float32(), pa.uint32()]
_BINARY = [pa.binary(), pa.large_binary(), pa.binary_view()]
_TEXT = [pa.string(), pa.large_string(), pa.string_view()]


def _viewed(numbers: list[int | None], plain: pa.DataType, kind: pa.DataType) -> pa.Array:
    return pa.array(numbers, plain).view(kind)


def _arrays() -> st.SearchStrategy[pa.Array]:
    def some(values: Any) -> Any:
        return st.lists(st.one_of(st.none(), values), max_size=5)

    encoded = texts.map(lambda text: text.encode("utf-8", "surrogatepass"))
    return st.one_of(
        st.builds(_viewed, some(_WIDE), st.just(pa.int64()), st.sampled_from(_OF_64)),
        st.builds(_viewed, some(_NARROW), st.just(pa.int32()), st.sampled_from(_OF_32)),
        st.builds(pa.array, some(st.one_of(encoded, st.binary(max_size=3))), st.sampled_from(_BINARY)),
        st.builds(pa.array, some(texts), st.sampled_from(_TEXT)),
        st.builds(pa.array, some(st.binary(min_size=2, max_size=2)), st.just(pa.binary(2))),
        st.builds(pa.array, some(st.tuples(_NARROW, _NARROW, _NARROW)), st.just(pa.month_day_nano_interval())),
        st.builds(pa.array, some(st.decimals(-(10**30), 10**30, places=3)), st.just(pa.decimal128(38, 3))),
        st.builds(pa.array, some(st.lists(texts, max_size=2)), st.just(pa.list_(pa.string()))),
        st.builds(pa.array, some(st.fixed_dictionaries({"x": texts})), st.just(pa.struct([("x", pa.string())]))),
        some(st.binary(min_size=16, max_size=16)).map(
            lambda rows: pa.ExtensionArray.from_storage(pa.uuid(), pa.array(rows, pa.binary(16)))
        ),
        st.integers(0, 3).map(pa.nulls),
    )  # fmt: skip


def _coded(array: pa.Array) -> pa.Array:
    """With a dictionary, where the type may have one."""
    try:
        return array.dictionary_encode()
    except pa.ArrowException:
        return array


@given(st.one_of(_arrays(), _arrays().map(_coded)), st.sampled_from(KINDS), st.booleans())
def test_no_value_of_any_type_is_an_error(array: pa.Array, kind: pa.DataType, chunked: bool) -> None:
    column = pa.chunked_array([array, array[:1]] if chunked else [array])
    made = as_type(pa.table({"x": column}), "x", kind)
    assert (made.type, len(made)) == (kind, len(column))
    made.validate(full=True)
    alone = [as_type(pa.table({"x": column.slice(at, 1)}), "x", kind) for at in range(len(column))]
    assert repr([value for one in alone for value in one.to_pylist()]) == repr(made.to_pylist())  # as nan is not nan


@pytest.mark.parametrize("column", ["product", "value"])
def test_a_date_beyond_what_python_has_stops_no_run(column: str) -> None:
    processor = EventProcessor(GAP, [Counts(), Seen()])
    far = pa.array([5_000_000, None, 1], pa.date32())
    events = {"user": ["a"] * 3, "event_time_ms": [1, 2, 3], column: far}
    if column == "product":
        processor.push(pa.table(events))
        found = processor.flush()["event_counts"]["product"].to_pylist()
        assert sorted(map(str, found)) == ["15659-07-15", str(dt.date(1970, 1, 2)), "None"]
    else:
        made = as_type(pa.table(events), column, pa.float64())
        assert made.to_pylist() == [None, None, None]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
@pytest.mark.parametrize("rows_max", [1, 3])
def test_text_that_has_no_room_in_an_array_comes_in_several(
    monkeypatch: pytest.MonkeyPatch, kind: pa.DataType, rows_max: int
) -> None:
    """No array of text is larger than the limit, as one of two gigabytes cannot be made."""
    for module in (emit, large_text, reorder):
        monkeypatch.setattr(module, "TEXT_BYTES_MAX", 100 * rows_max)
    largest = list[int]()

    class Watching(Counts):
        def take(self, events: Any) -> None:
            for column in events.table(self.columns).columns:
                if pa.types.is_string(column.type):
                    largest.extend(chunk.nbytes for chunk in column.chunks if len(chunk) > 1)
            super().take(events)

    processor = EventProcessor(GAP, [Watching(), Seen()])
    for part in range(3):
        products = pa.array([f"{part}{at}".ljust(80, "x") for at in range(6)]).cast(kind)
        ids = pa.array([f"{part}-{at}".ljust(80, "y") for at in range(6)]).cast(kind)
        times = [9, 9, 2, 2, 1, 30]
        processor.push(pa.table({"user": ["a"] * 6, "event_time_ms": times, "product": products, "event_id": ids}))
    made = [processor.advance(at).get("event_counts") for at in (2, 10)] + [processor.flush()["event_counts"]]
    found = {row["product"]: row["count"] for table in made if table is not None for row in table.to_pylist()}
    assert found == {f"{part}{at}".ljust(80, "x"): 1 for part in range(3) for at in range(6)}
    assert max(largest, default=0) <= 100 * rows_max
