"""Data frames: the kind that goes in comes out, and the rows are the same for every kind."""

from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import sessionize
from sessionize import ConfigError, InputError, Policy, Rules
from sessionize.session.limits import TIME_MS_MAX
from sessionize.testing.comparison import expected_sessions, sorted_rows

T0 = 1_704_082_500_000
ROWS = [
    {"user": "ann", "time": T0, "page": "home", "type": "view", "id": "1"},
    {"user": "bob", "time": T0 + 5, "page": "home", "type": "view", "id": "2"},
    {"user": "ann", "time": T0 + 3_600_000, "page": "pay", "type": "purchase", "id": "3", "amount": 9.5},
    {"user": "ann", "time": T0 + 1_000, "page": "search", "type": "view", "id": "4"},
    {"user": "ann", "time": T0 + 1_000, "page": "search", "type": "view", "id": "4"},
]
DATA = {
    "uid": [r["user"] for r in ROWS],
    "at": [r["time"] for r in ROWS],
    "url": [r["page"] for r in ROWS],
    "what": [r["type"] for r in ROWS],
    "eid": [r["id"] for r in ROWS],
    "paid": [r.get("amount") for r in ROWS],
}
FIELDS = {"user": "uid", "time": "at", "page": "url", "event_type": "what", "event_id": "eid", "value": "paid"}


def relation(table):
    return duckdb.connect().from_arrow(table)


def from_pandas(frame):
    """Column by column: Arrow would take the dicts of events_by_type for structs."""
    plain_columns = [name for name in frame.columns if name != "events_by_type"]
    columns = {name: pa.array([None if v is pd.NA else v for v in frame[name].tolist()]) for name in plain_columns}
    if "events_by_type" in frame.columns:
        pairs = [list(counts.items()) for counts in frame["events_by_type"]]
        columns["events_by_type"] = pa.array(pairs, pa.map_(pa.string(), pa.int64()))
    return pa.table(columns).select(list(frame.columns))


KINDS = {
    "pandas": (lambda t: t.to_pandas(), from_pandas),
    "pandas-arrow": (lambda t: t.to_pandas(types_mapper=pd.ArrowDtype), from_pandas),
    "polars": (pl.from_arrow, lambda f: f.to_arrow()),
    "polars-lazy": (lambda t: pl.from_arrow(t).lazy(), lambda f: f.collect().to_arrow()),
    "pyarrow": (lambda t: t, lambda f: f),
    "duckdb": (relation, lambda f: f.to_arrow_table()),
}
each_kind = pytest.mark.parametrize(("make", "back"), KINDS.values(), ids=KINDS)


@each_kind
def test_sessions_same_kind_same_rows(make, back):
    frame = make(pa.table(DATA))
    made = sessionize.sessions(frame, **FIELDS)
    assert type(made) is type(frame)
    table = back(made)
    assert table.column_names[0] == "uid"
    assert sorted_rows(plain(table).rename_columns({"uid": "user"})) == expected_sessions(ROWS, Policy(), Rules())


def plain(table):
    """Undo what a round trip through another library does to Arrow's types: large strings, maps as lists."""
    from sessionize.session.columns import SESSION_TYPES

    columns = {}
    for name in table.column_names:
        wanted = SESSION_TYPES.get(name, pa.string())
        values = table[name].to_pylist()
        if pa.types.is_map(wanted):
            values = [[(e["key"], e["value"]) if isinstance(e, dict) else tuple(e) for e in entry] for entry in values]
        columns[name] = pa.array(values, wanted)
    return pa.table(columns)


@each_kind
def test_label_keeps_the_frame_and_its_order(make, back):
    frame = make(pa.table(DATA))
    made = sessionize.label(frame, user="uid", time="at", event_id="eid")
    assert type(made) is type(frame)
    table = back(made)
    assert table.column_names == [*DATA, "session_id"]
    assert table["at"].to_pylist() == DATA["at"]
    first, later = f"ann_{T0}", f"ann_{T0 + 3_600_000}"
    assert table["session_id"].to_pylist() == [first, f"bob_{T0 + 5}", later, first, first]


def test_pandas_index_is_kept():
    frame = pd.DataFrame(DATA, index=[7, 7, 1, 0, 3])
    made = sessionize.label(frame, user="uid", time="at")
    assert made.index.tolist() == [7, 7, 1, 0, 3]
    assert made["session_id"].notna().all()


@pytest.mark.parametrize(
    "times",
    [
        pa.array([datetime(2024, 1, 1, 4, 15, tzinfo=UTC) + timedelta(milliseconds=t - T0) for t in DATA["at"]],
                 pa.timestamp("us", "UTC")),
        pa.array([t * 1_000_000 for t in DATA["at"]], pa.timestamp("ns")),
        pa.array(DATA["at"], pa.timestamp("ms", "America/New_York")),
    ],
    ids=["us-utc", "ns-naive", "ms-zoned"],
)  # fmt: skip
def test_timestamps_of_any_unit(times):
    made = sessionize.sessions(pa.table({**DATA, "at": times}), user="uid", time="at")
    assert sorted(made["session_start_time_ms"].to_pylist()) == [T0, T0 + 5, T0 + 3_600_000]


def test_finer_than_ms_is_floored_also_before_1970():
    times = pa.array([-1, 1_999], pa.timestamp("us"))
    made = sessionize.sessions(pa.table({"u": ["a", "a"], "t": times}), user="u", time="t")
    assert made["session_start_time_ms"].to_pylist() == [-1]
    assert made["session_end_time_ms"].to_pylist() == [1]


def test_integer_and_categorical_users():
    by_int = sessionize.sessions(pa.table({"u": [1, 2, 1], "t": [0, 0, 5]}), user="u", time="t")
    assert by_int["u"].to_pylist() == ["1", "2"]
    frame = pd.DataFrame({"u": pd.Categorical(["b", "a", "b"]), "t": [0, 0, 5]})
    assert sessionize.sessions(frame, user="u", time="t")["event_count"].tolist() == [1, 2]


def test_options_reach_the_policy():
    frame = pa.table({"u": ["a", "a"], "t": [0, 60_000]})
    assert sessionize.sessions(frame, user="u", time="t", gap="1m").num_rows == 1
    assert sessionize.sessions(frame, user="u", time="t", gap="1m", gap_boundary="inclusive").num_rows == 2
    assert sessionize.sessions(frame, user="u", time="t", gap=timedelta(seconds=59)).num_rows == 2
    assert sessionize.sessions(frame, user="u", time="t", max_duration="1m").num_rows == 2
    ids = sessionize.sessions(frame, user="u", time="t", gap="1s", session_ids="sequential")["session_id"]
    assert ids.to_pylist() == ["a_session_1_0", "a_session_2_0"]


def test_only_some_columns():
    made = sessionize.sessions(pa.table(DATA), user="uid", time="at", columns=["event_count", "session_id"])
    assert made.column_names == ["uid", "session_id", "event_count"]


def test_empty_frame():
    made = sessionize.sessions(
        pa.table({"u": pa.array([], pa.string()), "t": pa.array([], pa.int64())}), user="u", time="t"
    )
    assert made.num_rows == 0
    assert "session_id" in made.column_names
    frame = pl.DataFrame({"u": [], "t": []}, schema={"u": pl.String, "t": pl.Int64})
    assert sessionize.label(frame, user="u", time="t").columns == ["u", "t", "session_id"]


def test_a_custom_boundary_sees_all_columns():
    def at_pay(events):
        return np.array([page == "search" for page in events["url"].to_pylist()])

    frame = pa.table({"uid": ["a"] * 3, "at": [0, 1, 2], "url": ["home", "search", "pay"]})
    made = sessionize.sessions(frame, user="uid", time="at", rules=Rules(boundary=at_pay))
    assert made["start_reason"].to_pylist() == ["inactivity", "rule:at_pay"]


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"user": "nobody"}, InputError, "nobody"),
        ({"user": "at"}, InputError, "two roles"),
        ({"time": "url"}, InputError, "row 0: url = 'home': not an ISO 8601 time"),
        ({"page": "uid2"}, InputError, "uid2"),
        ({"value": "url"}, InputError, "url"),
        ({"gap": "soon"}, ConfigError, "gap"),
        ({"gap": 30}, ConfigError, "unit"),
        ({"columns": ["sessions"]}, ConfigError, "sessions"),
        ({"columns": ["entry_page"]}, ConfigError, "entry_page"),
        ({"rules": Rules(end_events={"x"})}, ConfigError, "event type"),
    ],
)
def test_wrong_use_is_told(change, error, says):
    with pytest.raises(error, match=says):
        sessionize.sessions(pa.table(DATA), **{"user": "uid", "time": "at", **change})


@pytest.mark.parametrize("column", ["uid", "at"])
def test_nulls_are_told(column):
    broken = pa.table({**DATA, column: pa.array([None, *DATA[column][1:]])})
    with pytest.raises(InputError, match="needs a user and a time"):
        sessionize.sessions(broken, user="uid", time="at")


def test_other_things_are_no_frames():
    with pytest.raises(InputError, match="kind of frame"):
        sessionize.sessions([1, 2], user="u", time="t")


def test_label_does_not_overwrite():
    with pytest.raises(InputError, match="already"):
        sessionize.label(pa.table({**DATA, "session_id": DATA["uid"]}), user="uid", time="at")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"at": [T0, T0, TIME_MS_MAX + 1, T0, T0]}, "row 2: at = 253402300800000: outside the years 0001 to 9999"),
        ({"at": pa.array([0, 2**61, 0, 0, 0], pa.timestamp("s"))}, "row 1: at = "),
        ({"at": pa.array([T0, -(2**60), T0, T0, T0], pa.timestamp("ms"))}, "row 1: at = -1152921504606846976"),
        ({"uid": ["a", "b", "c", "", "e"]}, "row 3: uid = ''"),
        ({"uid": ["a", "b", "c", "d", "e" * 1_025]}, "row 4: uid = 'e+…' has 1,025 bytes, at most 1,024"),
        ({"paid": [None, None, float("inf"), None, None]}, "row 2: paid = inf"),
        ({"paid": [None, None, -1.1e9, None, None]}, "row 2: paid = -1100000000"),
    ],
)
def test_what_no_event_can_have_is_named_with_its_row_and_column(change, says):
    with pytest.raises(InputError, match=says):
        sessionize.sessions(pa.table({**DATA, **change}), **FIELDS)
    if "paid" not in change:
        with pytest.raises(InputError, match=says):
            sessionize.label(pa.table({**DATA, **change}), user="uid", time="at")


@pytest.mark.parametrize("name", ["session_id", "event_count", "Entry_Page", "revision"])
def test_a_user_column_is_not_called_like_one_of_ours(name):
    frame = pd.DataFrame({name: ["a"], "at": [T0]})
    with pytest.raises(ConfigError, match="two columns of a table would have the same name"):
        sessionize.sessions(frame, user=name, time="at")
    labelled = sessionize.label(frame, user=name, time="at", column="ours")  # nothing of the frame is lost here
    assert (labelled[name].tolist(), labelled["ours"].tolist()) == (["a"], [f"a_{T0}"])


OWN = {
    "first_page": {"first": "url"},
    "spent": {"sum": "paid", "where": "what = 'purchase'"},
    "pages": {"distinct": "url"},
    "per_event": {"expression": "spent / event_count"},
}
OWN_VALUES = {
    "first_page": ["home", "pay", "home"],
    "spent": [None, 9.5, None],
    "pages": [["home", "search"], ["pay"], ["home"]],
    "per_event": [None, 9.5, None],
}


@pytest.mark.parametrize("make", [pa.table, pd.DataFrame, pl.DataFrame, lambda data: pl.DataFrame(data).lazy()])
@pytest.mark.parametrize("mapped", [FIELDS, {"user": "uid", "time": "at", "event_id": "eid"}])
def test_own_columns_name_the_columns_of_the_frame(make, mapped):
    """Under their own names, whether or not they are mapped to a canonical column."""
    made = sessionize.sessions(make(DATA), **mapped, columns=OWN)
    table = made.collect().to_arrow() if isinstance(made, pl.LazyFrame) else pa.table(made)
    found = table.select(list(OWN)).to_pylist()
    assert found == [dict(zip(OWN_VALUES, values, strict=True)) for values in zip(*OWN_VALUES.values(), strict=True)]
    assert table.column_names[-4:] == list(OWN)
    if mapped is FIELDS:
        by_role = {
            **OWN,
            "first_page": {"first": "page"},
            "spent": {"sum": "value", "where": "event_type = 'purchase'"},
        }
        again = sessionize.sessions(pa.table(DATA), **mapped, columns=by_role)
        assert again.select(list(OWN)).to_pylist() == found


def test_own_columns_take_what_a_frame_has_under_a_canonical_name():
    frame = pa.table({"uid": ["a", "a"], "at": [1, 2], "page": [None, "x"], "value": [1, 2]})
    made = sessionize.sessions(frame, user="uid", time="at", columns={"p": {"first": "page"}, "v": {"sum": "value"}})
    assert made.select(["p", "v"]).to_pylist() == [{"p": "x", "v": 3.0}]
    assert "pages_visited" not in made.column_names


@pytest.mark.parametrize(
    ("columns", "error", "told"),
    [
        ({"x": {"first": "prise"}}, InputError, ["prise", "uid, at, url"]),
        ({"x": {"first": "when"}}, ConfigError, ["session_columns.x.first", "timestamp", "text, a number"]),
        ({"x": {"sum": "url"}}, ConfigError, ["session_columns.x.sum", "url is text", "number or integer"]),
        ({"x": {"min": "paid > 1"}}, ConfigError, ["session_columns.x.min", "boolean"]),
        ({"x": {"count": True, "where": "url"}}, ConfigError, ["session_columns.x.where", "no condition"]),
        ({"x": {"count": True, "where": "url = 1"}}, ConfigError, ["session_columns.x.where", "url is text"]),
        ({"x": {"count": True, "where": "url = "}}, ConfigError, ["session_columns.x.where", "character"]),
        ({"x": {"expression": "spent + 1"}}, ConfigError, ["session_columns.x.expression", "'spent'", "event_count"]),
        ({"Event_Count": {"count": True}}, ConfigError, ["session_columns.Event_Count", "alike"]),
        ({"UID": {"count": True}}, ConfigError, ["session_columns.UID", "user column"]),
        ({"revision": {"count": True}}, ConfigError, ["session_columns.revision"]),
        ({"a": {"count": True}, "A": {"count": True}}, ConfigError, ["session_columns.A", "another column"]),
        ({"x": {"first": "url", "last": "url"}}, ConfigError, ["session_columns.x", "first, last", "one way"]),
        ({"x": {}}, ConfigError, ["session_columns.x", "one way"]),
        ({"x": "first"}, ConfigError, ["session_columns.x", "table of keys"]),
        ({"x": {"first": True}}, ConfigError, ["session_columns.x.first", "name of a field"]),
        ({"x": {"first": "url", "limit": 3}}, ConfigError, ["session_columns.x", "only distinct"]),
        ({"x": {"distinct": "url", "limit": 0}}, ConfigError, ["session_columns.x", "1 to 10000"]),
        ({"x": {"distinct": "url", "limit": True}}, ConfigError, ["session_columns.x.limit", "whole number"]),
        ({"x": {"distinct": "paid"}}, ConfigError, ["session_columns.x.distinct", "number"]),
        ({"x": {"first": "url", "where": 1}}, ConfigError, ["session_columns.x.where", "in quotes"]),
        ({"x y": {"count": True}}, ConfigError, ["x y", "letters"]),
        ({f"c{i}": {"count": True} for i in range(101)}, ConfigError, ["at most 100"]),
    ],
)
def test_own_columns_that_cannot_be_made_name_themselves(columns, error, told):
    frame = pa.table({**DATA, "when": pa.array([0] * 5, pa.timestamp("ms"))})
    with pytest.raises(error) as raised:
        sessionize.sessions(frame, user="uid", time="at", columns=columns)
    text = str(raised.value)
    assert [word for word in told if word not in text] == [], text
