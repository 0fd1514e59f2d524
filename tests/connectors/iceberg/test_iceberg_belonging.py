"""Whose tables are: noted with the first rows, checked before the first row of another run, and adopted while empty."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from sessionize.connectors.iceberg import (
    EVENTS,
    LATE_EVENTS,
    REJECTED_EVENTS,
    USER_SESSIONS,
    Catalog,
    IcebergEpochSink,
    IcebergSink,
    Owner,
    check_tables,
    events,
    load_table,
    open_catalog,
    open_table,
    pipeline_of,
    rejected_events,
    spec_of,
    table_names,
    user_column_of,
    user_sessions,
)
from sessionize.errors import OutputError, StateError
from sessionize.session.columns import REJECTED_SCHEMA
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules
from sessionize.session.spec import SessionSpec
from sessionize.testing.epoch_sinks import empty_rows, epoch_id, epoch_rows
from tests.connectors.iceberg.writing import data_files, sessions, stored, write_all


def owner(*, pipeline: str = "web", user: str = "user", gap_ms: int = 1_800_000, **more: object) -> Owner:
    spec = SessionSpec.of(Policy(gap_ms=gap_ms), Rules(), pipeline=pipeline, user_column=user, columns=["session_id"])
    made = Owner(spec=spec, sessions=USER_SESSIONS, elsewhere="give another --home", replacing="--overwrite")
    return replace(made, **more)


def sink(catalog: Catalog, by: Owner, table: str = USER_SESSIONS, *, user: str = "user") -> IcebergSink:
    layout = {USER_SESSIONS: user_sessions(user), EVENTS: events(user), REJECTED_EVENTS: rejected_events()}[table]
    return IcebergSink(catalog, layout, table=table, overwrite=by.overwrite, owner=by)


REJECTED = pa.Table.from_pylist(
    [{"raw": b"x", "source": "s", "line_number": 1, "reason": "r", "detail": "d"}], schema=REJECTED_SCHEMA
)
EVENT = pa.table({"user": ["ann"], "event_time_ms": [0]})


def test_each_table_says_whose_it_is(catalog: Catalog) -> None:
    IcebergEpochSink(catalog, owner=owner()).write_epoch(epoch_id(1), epoch_rows(1))
    tables = {name: load_table(catalog, "sessions", name) for name in table_names(catalog, "sessions")}
    assert {name: pipeline_of(table) for name, table in tables.items()} == dict.fromkeys(
        (EVENTS, LATE_EVENTS, REJECTED_EVENTS, USER_SESSIONS), "web"
    )
    assert spec_of(tables[USER_SESSIONS]) == owner().spec
    assert spec_of(tables[EVENTS]) is None
    assert user_column_of(tables[LATE_EVENTS]) == "user"


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (owner(gap_ms=30_000), ["another policy", "rules.gap: 30m there, 30s here", "another --home", "--overwrite"]),
        (owner(pipeline="shop"), ["by another pipeline", "name: web there, shop here", "mix their sessions"]),
        (owner(gap_ms=30_000, replacing=None), ["another policy"]),
    ],
    ids=["policy", "name", "what cannot be replaced"],
)
def test_another_owner_is_refused_before_anything_is_made(catalog: Catalog, other: Owner, says: list[str]) -> None:
    write_all(sink(catalog, owner()), sessions(3))
    with pytest.raises(StateError) as caught:
        IcebergEpochSink(catalog, owner=other)
    assert [part in str(caught.value) for part in says] == [True] * len(says), str(caught.value)
    assert ("--overwrite" in str(caught.value)) == (other.replacing is not None)
    assert table_names(catalog, "sessions") == [USER_SESSIONS]


@pytest.mark.parametrize("table", [EVENTS, REJECTED_EVENTS])
def test_other_tables_belong_to_one_pipeline_and_one_table_of_sessions(catalog: Catalog, table: str) -> None:
    write_all(sink(catalog, owner(), table), EVENT if table == EVENTS else REJECTED)
    sink(catalog, owner(gap_ms=30_000), table)  # by which rules they are cut is not theirs to say
    with pytest.raises(StateError, match="another pipeline"):
        sink(catalog, owner(pipeline="shop"), table)
    with pytest.raises(StateError, match=f"output.table: {USER_SESSIONS} there, visits here"):
        sink(catalog, owner(sessions="visits"), table)


def test_another_user_column_cannot_be_replaced(catalog: Catalog) -> None:
    write_all(sink(catalog, owner()), sessions(3))
    for by in (owner(user="uuid"), owner(user="uuid", overwrite=True)):
        with pytest.raises(StateError, match="user column: user there, uuid here") as caught:
            sink(catalog, by, user="uuid")
        assert "--overwrite" not in str(caught.value)
    with pytest.raises(OutputError, match="another user column"):
        open_table(catalog, "sessions", USER_SESSIONS, user_sessions("uuid"))


def test_replacing_all_rows_replaces_the_record(catalog: Catalog) -> None:
    write_all(sink(catalog, owner()), sessions(3))
    other = owner(pipeline="shop", gap_ms=30_000, overwrite=True)
    opened = sink(catalog, other)
    assert spec_of(opened.table) == owner().spec  # until the commit
    write_all(opened, sessions(2))
    table = load_table(catalog, "sessions", USER_SESSIONS)
    assert (spec_of(table), pipeline_of(table)) == (other.spec, "shop")
    assert stored(catalog).num_rows == 2


def test_what_another_pipelines_stream_writes_cannot_be_replaced(catalog: Catalog) -> None:
    IcebergEpochSink(catalog, owner=owner()).write_epoch(epoch_id(1), epoch_rows(1))
    with pytest.raises(StateError, match="another pipeline"):
        sink(catalog, owner(pipeline="shop", overwrite=True))
    sink(catalog, owner(gap_ms=30_000, overwrite=True))


def test_tables_of_before_take_the_record_with_the_next_rows(catalog: Catalog) -> None:
    write_all(IcebergSink(catalog, user_sessions(), table=USER_SESSIONS), sessions(3))
    opened = sink(catalog, owner())
    assert spec_of(opened.table) is None  # a run that fails claims nothing
    write_all(opened, sessions(2))
    table = load_table(catalog, "sessions", USER_SESSIONS)
    assert (spec_of(table), pipeline_of(table)) == (owner().spec, "web")


def test_the_columns_of_all_runs_are_kept(catalog: Catalog) -> None:
    write_all(sink(catalog, owner()), sessions(3))
    more = replace(owner().spec, columns=("event_count", "session_id"), dialect="other")
    write_all(sink(catalog, owner(spec=more)), sessions(3))
    spec = spec_of(load_table(catalog, "sessions", USER_SESSIONS))
    assert spec == replace(owner().spec, columns=("session_id", "event_count"))


def test_a_record_that_cannot_be_read_is_an_error(catalog: Catalog) -> None:
    write_all(sink(catalog, owner()), sessions(3))
    table = load_table(catalog, "sessions", USER_SESSIONS)
    with table.transaction() as change:
        change.set_properties({"sessionize.spec": '{"version": 99}'})
    with pytest.raises(StateError, match=r"cannot be read[^$]*version 99"):
        sink(catalog, owner())


@pytest.mark.parametrize("first", [owner(user="uid"), owner(pipeline="shop"), owner(gap_ms=5)])
def test_tables_without_a_row_bind_nobody(catalog: Catalog, first: Owner) -> None:
    sink(catalog, first, user=first.spec.user_column).write(sessions(3, user=first.spec.user_column))  # and is killed
    wanted = [(USER_SESSIONS, user_sessions()), (EVENTS, events())]
    check_tables(catalog, "sessions", wanted, owner=owner())
    write_all(sink(catalog, owner()), sessions(3))
    table = load_table(catalog, "sessions", USER_SESSIONS)
    assert (spec_of(table), user_column_of(table)) == (owner().spec, "user")
    assert [field.name for field in table.schema().fields][:2] == ["user", "session_id"]


def test_an_empty_table_that_fits_stays_as_it_is(catalog: Catalog) -> None:
    first = sink(catalog, owner()).table
    assert sink(catalog, owner()).table.metadata.table_uuid == first.metadata.table_uuid


def test_the_epochs_of_ones_own_outlive_a_mended_name(catalog: Catalog) -> None:
    """An epoch of nothing but duplicates is only noted, in the table of the sessions."""
    IcebergEpochSink(catalog, user_name="uid", owner=owner(user="uid")).write_epoch(epoch_id(1), empty_rows())
    with pytest.raises(StateError, match="another pipeline"):
        sink(catalog, owner(pipeline="shop"))
    assert IcebergEpochSink(catalog, owner=owner()).last_epoch("writer") == 1


def test_whoever_comes_between_is_refused_by_the_commit(catalog: Catalog, tmp_path: Path) -> None:
    """Both found a table without rows; the first one finds the other's when it commits."""
    slow = sink(catalog, owner())
    slow.write(sessions(3))
    write_all(sink(open_catalog(tmp_path), owner(pipeline="shop")), sessions(2))
    with pytest.raises(StateError, match="deleted and made anew"):
        slow.commit()
    slow.abort()
    assert stored(catalog).num_rows == 2
    named = load_table(catalog, "sessions", USER_SESSIONS).scan().plan_files()
    assert len(data_files(tmp_path)) == len(list(named))


def test_a_table_that_got_another_record_meanwhile_is_left_alone(catalog: Catalog, tmp_path: Path) -> None:
    write_all(IcebergSink(catalog, user_sessions(), table=USER_SESSIONS), sessions(3))  # of before: nobody's so far
    slow, quick = sink(catalog, owner()), sink(open_catalog(tmp_path), owner(pipeline="shop"))
    slow.write(sessions(4))
    write_all(quick, sessions(2))
    with pytest.raises(StateError, match="name: shop there, web here"):
        slow.commit()
    slow.abort()
    assert stored(catalog).num_rows == 5
