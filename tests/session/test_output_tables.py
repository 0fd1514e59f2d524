"""The specs of the output tables: what they say, and what is refused."""

from dataclasses import replace

import pyarrow as pa
import pytest

from sessionize.errors import ConfigError, OutputError, StateError
from sessionize.ports import EpochId
from sessionize.session import columns as col
from sessionize.session.output_tables import (
    EVENTS,
    LATE_EVENTS,
    OUTPUT_TABLES,
    REJECTED_EVENTS,
    SESSIONS,
    Destinations,
    TableSpec,
)
from sessionize.testing.epoch_outputs import epoch_rows
from sessionize.testing.further_tables import ALERTS, FURTHER_TABLES, READINGS


def test_the_order_in_which_tables_are_written_is_fixed() -> None:
    """Sessions last; the record of epochs lies with the last table, so no further one may come after it."""
    names = [spec.name for spec in OUTPUT_TABLES]
    assert names[-5:] == ["rejected_events", "late_events", "events", "enriched_events", "user_sessions"]
    assert len(set(names)) == len(names)


def test_a_spec_names_the_user_column_as_the_input_does() -> None:
    spec = SESSIONS.for_user("uuid")
    assert spec.schema.names == ["uuid", *SESSIONS.schema.names[1:]]
    assert (spec.user_column, spec.message_key, spec.key) == ("uuid", "uuid", ("uuid", "session_id"))
    assert spec.removed_by == ("uuid", "session_id")
    assert spec.sort_by == ("session_date", "user_hash_bucket", "uuid", "session_start_time_ms")
    assert {spec.bounds[0], spec.indexes[0].columns[0][0], spec.derived[1].source} == {"uuid"}
    assert spec.schema.field("uuid") == pa.field("uuid", pa.string(), nullable=False)
    assert "uuid" in EVENTS.for_user("uuid").short_columns
    assert "user" not in EVENTS.for_user("uuid").short_columns
    assert REJECTED_EVENTS.for_user("uuid") is REJECTED_EVENTS
    assert spec.for_user("user") == SESSIONS


def test_revised_tables_have_a_revision_and_laid_out_ones_what_is_derived() -> None:
    assert SESSIONS.columns.names == [*SESSIONS.schema.names, "revision"]
    assert EVENTS.columns.names == [*col.EVENT_TYPES, "event_date", "user_hash_bucket"]
    assert REJECTED_EVENTS.columns == col.REJECTED_SCHEMA
    assert [spec.keeps_fields for spec in (EVENTS, LATE_EVENTS, SESSIONS)] == [True, True, False]


def test_who_wants_no_key_gets_the_users_or_the_first_of_the_keys_for_messages() -> None:
    assert [spec.message_key for spec in (ALERTS, READINGS, SESSIONS)] == ["user", None, "user"]
    assert replace(ALERTS, user_column=None, message_key=None).message_key == "alert_id"


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Alerts"},
        {"name": "a; DROP TABLE x"},
        {"name": ""},
        {"key": ("id",)},
        {"user_column": "uuid"},
        {"message_key": "id"},
        {"partition_by": ("day",)},
        {"sort_by": ("day",)},
        {"bounds": ("day",)},
        {"not_null": ("day",)},
        {"opaque": ("raw",)},
        {"removed_by": ("revision",)},
    ],
    ids=lambda wrong: "-".join(wrong),
)
def test_a_spec_that_contradicts_itself_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        TableSpec(**{"name": "alerts", "schema": pa.schema([("user", pa.string())]), **wrong})


def test_destinations_go_by_the_order_of_the_specs_and_pass_over_what_has_none() -> None:
    to = Destinations({"user_sessions": "s", "late_events": "l"}, FURTHER_TABLES, "uuid")
    assert [(each.spec.name, each.to, each.spec.user_column) for each in to] == [
        ("late_events", "l", "uuid"),
        ("user_sessions", "s", "uuid"),
    ]
    rows = epoch_rows(1, ["a"])
    assert [each.to for each, _ in to.rows(rows.tables)] == ["l", "s"]
    assert [each.to for each, _ in to.rows({**rows.tables, "late_events": rows.tables["late_events"].slice(0, 0)})] == [
        "s"
    ]
    assert to.rows({}) == []
    assert [each is rows.tables[to.spec.name] for to, each in to.rows(rows.tables)] == [True, True]
    with pytest.raises(ConfigError, match="not known"):
        Destinations({"sessions": "s"})
    with pytest.raises(OutputError, match="not known") as caught:
        to.rows({"window": rows.tables["events"]})
    assert "'window'" in str(caught.value.detail)


def test_an_epoch_is_known_up_to_the_last_one_and_refused_under_another_plan() -> None:
    last = EpochId("w", 3, "c")
    assert not EpochId("w", 1, "a").is_known(None, where="here")
    assert [EpochId("w", number, "c").is_known(last, where="here") for number in (2, 3, 4)] == [True, True, False]
    assert EpochId("w", 2, "other").is_known(last, where="here")  # its plan is not recorded any more
    with pytest.raises(StateError, match="another plan") as caught:
        EpochId("w", 3, "x").is_known(last, where="here")
    assert "here" in str(caught.value.detail)
    assert caught.value.hint


def test_of_one_epoch_the_last_row_of_a_key_is_written() -> None:
    to = Destinations({"alerts": "a", "readings": "r"}, FURTHER_TABLES, "uuid")
    ids, levels = ["x", None, "y", "x", None], [1, 2, 3, 4, 5]
    alerts = pa.table({"uuid": ["a"] * 5, "alert_id": pa.array(ids).dictionary_encode(), "level": levels})
    readings = pa.table({"small": pa.array([1, 1], pa.int16())})
    found = {each.to: rows for each, rows in to.rows({"alerts": alerts, "readings": readings})}
    assert found["a"]["level"].to_pylist() == [2, 3, 4, 5]  # what has no key takes no other row's place
    assert found["r"] is readings
    (_, sessions), *_ = Destinations({"user_sessions": "s"}, FURTHER_TABLES).rows(
        {"user_sessions": pa.table({"user": ["a", "b", "a"], "session_id": ["1", "1", "1"], "event_count": [1, 2, 3]})}
    )
    assert sessions["event_count"].to_pylist() == [1, 2, 3]  # a mistake, which a database refuses and nobody hides
