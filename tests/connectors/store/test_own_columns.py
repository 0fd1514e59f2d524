"""The record of a store has the session columns of one's own of all runs, and a name means the same in all of them."""

from contextlib import closing
from typing import Any

import pyarrow as pa
import pytest

from sessionize.connectors.sql_store import StoreOwner, StoreSink
from sessionize.errors import StateError
from sessionize.ports import EpochOutput
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules
from sessionize.session.spec import SessionSpec
from sessionize.testing.epoch_sinks import epoch_id, epoch_rows
from sessionize.testing.own_column_examples import columns_of
from tests.connectors.store.test_store_tables import Store, store

__all__ = ["store"]  # a fixture


def owner(**own: dict[str, Any]) -> StoreOwner:
    columns = columns_of(own)
    spec = SessionSpec(pipeline="web", user_column="user", policy=Policy(), columns=columns.names, own=columns.own)
    return StoreOwner(spec=spec, where="the store", elsewhere="name another one")


def rows(number: int, **own: list[Any]) -> EpochOutput:
    made = epoch_rows(number, ["a"])
    sessions = made.tables["user_sessions"]
    for name, values in own.items():
        sessions = sessions.append_column(name, pa.array(values))
    return made.with_tables({"user_sessions": sessions})


def test_the_record_learns_columns_and_keeps_what_they_mean(store: Store) -> None:
    with closing(StoreSink(store.make(), owner=owner())) as sink:
        sink.write_epoch(epoch_id(1), rows(1))
    with closing(StoreSink(store.make(), owner=owner(s={"first": "source"}))) as sink:
        sink.write_epoch(epoch_id(2), rows(2, s=["x"]))
        sink.write_epoch(epoch_id(3), rows(3, s=["y"]))
    with closing(StoreSink(store.make(), owner=owner(n={"count": True}))) as sink:
        sink.write_epoch(epoch_id(4), rows(4, n=[1]))
    found = store.ask("SELECT s, n FROM user_sessions ORDER BY session_start_time_ms")
    assert [tuple(row) for row in found] == [(None, None), ("x", None), ("y", None), (None, 1)]
    ((record,),) = store.ask("SELECT spec FROM sessionize_pipeline")
    assert [each.name for each in SessionSpec.from_json(record).own.columns] == ["s", "n"]
    for other in (owner(s={"last": "source"}), owner(n={"count": True, "where": "flag"})):
        with (
            closing(StoreSink(store.make(), owner=other)) as sink,
            pytest.raises(StateError, match="other session columns") as caught,
        ):
            sink.write_epoch(epoch_id(5), rows(5))
        assert "session_columns." in str(caught.value.detail)
    assert len(store.ask("SELECT 1 FROM user_sessions")) == 4


def test_a_store_without_own_columns_keeps_its_record_as_it_was(store: Store) -> None:
    spec = SessionSpec.of(
        Policy(), Rules(conversion_events=frozenset()), pipeline="web", user_column="user", columns=["user"]
    )
    with closing(StoreSink(store.make(), owner=StoreOwner(spec=spec, where="w", elsewhere="e"))) as sink:
        sink.write_epoch(epoch_id(1), rows(1))
    with closing(StoreSink(store.make(), owner=owner())) as sink:
        sink.write_epoch(epoch_id(2), rows(2))
    assert store.ask("SELECT spec FROM sessionize_pipeline") == [(spec.to_json(),)]
