"""The tables as readers find them, how they grow, and rows and text in their form."""

import json
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.sql import SQL, Composed, Identifier

from sessionize.connectors.sql_store import StoreOwner, StoreSink, original_text, stored_key, stored_text
from sessionize.connectors.sql_store.database import Database
from sessionize.connectors.sql_store.postgres import Login, PostgresDatabase
from sessionize.connectors.sql_store.rows import json_texts
from sessionize.connectors.sql_store.sqlite import SqliteDatabase
from sessionize.connectors.sql_store.text import KEY_BYTES_MAX, stored_keys, stored_texts
from sessionize.errors import StateError
from sessionize.session import columns as col
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules
from sessionize.session.spec import SessionSpec
from sessionize.testing.epoch_sinks import empty_rows, epoch_id, epoch_rows, events, keys, sessions
from sessionize.testing.services.postgres import PostgresServer

TEXTS = st.text(alphabet=st.sampled_from(["\0", "␀", "␛", "a", "é"]), max_size=8)


class Store:
    """A database and a way to ask it."""

    def __init__(self, make: Callable[[], Database], ask: Callable[[str], list[tuple[Any, ...]]]) -> None:
        self.make = make
        self.ask = ask


@pytest.fixture(params=["postgres", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "sqlite":
        path = tmp_path / "store.db"

        def ask_sqlite(query: str) -> list[tuple[Any, ...]]:
            with closing(sqlite3.connect(path)) as connection:
                return connection.execute(query).fetchall()

        return Store(lambda: SqliteDatabase(path), ask_sqlite)
    server: PostgresServer = request.getfixturevalue("postgres")
    schema: str = request.getfixturevalue("schema")
    login = Login(dsn=server.dsn, password_env=request.getfixturevalue("password_env"))

    def ask_postgres(query: str) -> list[tuple[Any, ...]]:
        with server.connect() as connection:
            connection.execute(SQL("SET search_path = {}").format(Identifier(schema)))
            return connection.cursor().execute(query.encode()).fetchall()

    return Store(lambda: PostgresDatabase(login, schema=schema), ask_postgres)


def test_a_session_is_found_by_its_columns(store: Store) -> None:
    with closing(StoreSink(store.make(), user_name="uuid")) as sink:
        rows = epoch_rows(1, ["ann"], pages=["home", "cart"])
        with_users = ("user_sessions", "late_events", "events")
        named = {name: rows.tables[name].rename_columns({"user": "uuid"}) for name in with_users}
        sink.write_epoch(epoch_id(1), rows.with_tables(named))
    found = store.ask(
        "SELECT uuid, session_id, session_duration_seconds, event_count, entry_page, revenue, end_reason, revision,"
        " CAST(session_date AS text) FROM user_sessions WHERE has_conversion"
    )
    assert found == [("ann", "ann_1700003600000", 120.0, 3, "home", 12.5, "inactivity", 0, "2023-11-14")]
    assert store.ask("SELECT uuid, event_time_ms, value, properties FROM late_events") == [
        ("ann", 1_700_003_600_000 - 86_400_000, 0.5, '{"a": 1}')
    ]
    assert store.ask("SELECT epoch, plan FROM sessionize_epochs WHERE writer = 'writer'") == [(1, "plan-1")]


def test_json_can_be_asked(store: Store) -> None:
    with closing(StoreSink(store.make())) as sink:
        sink.write_epoch(epoch_id(1), epoch_rows(1, ["ann"], pages=["home", 'say "x"\\']))
    assert store.ask("SELECT pages_visited ->> 1, CAST(events_by_type ->> 'view' AS integer) FROM user_sessions") == [
        ('say "x"\\', 2)
    ]


def test_users_and_conversions_are_indexed(store: Store) -> None:
    with closing(StoreSink(store.make())) as sink:
        sink.write_epoch(epoch_id(1), empty_rows())
    if isinstance(store.make(), SqliteDatabase):
        found = [sql for (sql,) in store.ask("SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")]
    else:
        found = [sql for (sql,) in store.ask("SELECT indexdef FROM pg_indexes WHERE schemaname = current_schema()")]
    told = " ".join(sql.replace('"', "") for sql in found)
    assert "(user, session_start_time_ms DESC)" in told
    assert "WHERE has_conversion" in told


def test_postgres_shows_times_also_after_a_new_column(postgres: PostgresServer, schema: str, password_env: str) -> None:
    database = PostgresDatabase(Login(dsn=postgres.dsn, password_env=password_env), schema=schema)
    with closing(StoreSink(database)) as sink:
        sink.write_epoch(epoch_id(1), empty_rows())
        rows = sessions(["ann"], start_ms=1_500).append_column("score", pa.array([7]))
        sink.replace(keys(rows), rows, token="t")
    query: Composed = SQL(
        "SELECT extract(epoch FROM session_start_at)::text, extract(epoch FROM session_end_at)::text, score FROM {}"
    ).format(Identifier(schema, "user_sessions_timed"))
    with postgres.connect() as connection:
        assert connection.execute(query).fetchall() == [("1.500000", "121.500000", 7)]


def test_a_new_column_of_a_later_version(store: Store) -> None:
    """The older writer goes on beside it; what it does not know stays empty."""
    new = sessions(["new"])
    further = {"score": [1.5], "device": ["phone\0"], "tags": [["a", "b"]], "first_day": pa.array([0], pa.date32())}
    for name, values in further.items():
        new = new.append_column(name, pa.array(values))
    with closing(StoreSink(store.make())) as older, closing(StoreSink(store.make())) as newer:
        older.write_epoch(epoch_id(1), empty_rows().with_tables({"user_sessions": sessions(["old"])}))
        newer.write_epoch(epoch_id(1, writer="newer"), empty_rows().with_tables({"user_sessions": new}))
        older.write_epoch(epoch_id(2), empty_rows().with_tables({"user_sessions": sessions(["older"])}))
    found = store.ask('SELECT "user", score, device, CAST(first_day AS text), tags FROM user_sessions ORDER BY "user"')
    assert found[0][:4] == ("new", 1.5, "phone␀", "1970-01-01")
    assert found[0][4] in (["a", "b"], '["a", "b"]')
    assert found[1:] == [("old", None, None, None, None), ("older", None, None, None, None)]


def test_few_columns_are_enough(store: Store) -> None:
    few = ("user", "session_id", "session_start_time_ms", "session_end_time_ms")
    with closing(StoreSink(store.make())) as sink:
        sink.write_epoch(epoch_id(1), empty_rows().with_tables({"user_sessions": sessions(["ann"]).select(few)}))
    assert store.ask('SELECT "user", entry_page, revenue, revision FROM user_sessions') == [("ann", None, None, 0)]


def test_fields_of_late_events_without_a_column_are_in_properties(store: Store) -> None:
    late = (
        events(["a", "b"]).append_column("further", pa.array([1, None])).append_column("page x", pa.array(["é", "\0"]))
    )
    with closing(StoreSink(store.make())) as sink:
        sink.write_epoch(epoch_id(1), empty_rows().with_tables({"late_events": late}))
        text = events(["c"]).drop_columns(["properties"]).append_column("further", pa.array(["text"]))
        sink.write_epoch(epoch_id(2), empty_rows().with_tables({"late_events": text}))
    found = store.ask('SELECT "user", properties FROM late_events ORDER BY "user"')
    assert [(user, json.loads(properties)) for user, properties in found] == [
        ("a", {"a": 1, "further": 1, "page x": "é"}),
        ("b", {"a": 1, "page x": "\0"}),
        ("c", {"further": "text"}),
    ]


def test_users_too_long_for_an_index_stay_apart(store: Store) -> None:
    """Incompressible on purpose: an index of PostgreSQL compresses the rest."""
    filling = "".join(chr(0x4E00 + (i * 7919) % 20_000) for i in range(1_000))
    users = [filling + end for end in "ab"]
    rows = sessions(users)
    with closing(StoreSink(store.make())) as sink:
        sink.write_epoch(epoch_id(1), empty_rows().with_tables({"user_sessions": rows}))
        sink.replace(keys(rows.slice(0, 1)), rows.slice(0, 0), token="t")
    assert store.ask('SELECT "user" FROM user_sessions') == [(stored_key(users[1]),)]


def test_one_epoch_by_two_writers_of_one_name_at_once(store: Store) -> None:
    problems: list[BaseException] = []
    together = threading.Barrier(4)

    def write() -> None:
        try:
            with closing(StoreSink(store.make())) as sink:
                together.wait(timeout=60)
                for number in range(1, 6):
                    sink.write_epoch(epoch_id(number), epoch_rows(number))
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert problems == []
    assert store.ask("SELECT count(*) FROM user_sessions") == [(10,)]
    assert store.ask("SELECT count(*) FROM late_events") == [(10,)]


@given(TEXTS, TEXTS)
def test_text_comes_back_and_stays_apart(one: str, other: str) -> None:
    assert original_text(stored_text(one)) == one
    assert "\0" not in stored_text(one)
    assert (stored_text(one) == stored_text(other)) == (one == other)


@given(st.lists(st.none() | TEXTS | st.text()))
def test_columns_of_text_as_one_by_one(texts: list[str | None]) -> None:
    array = pa.array(texts, pa.string())
    assert stored_texts(array).to_pylist() == [None if text is None else stored_text(text) for text in texts]
    assert stored_keys(array).to_pylist() == [None if text is None else stored_key(text) for text in texts]


def test_keys_are_cut_only_when_they_have_to_be() -> None:
    assert stored_key("a" * KEY_BYTES_MAX) == "a" * KEY_BYTES_MAX
    assert len(stored_key("a" * (KEY_BYTES_MAX + 1)).encode()) < KEY_BYTES_MAX
    assert stored_key("a" * 2_000) != stored_key("a" * 2_001)
    long = pa.array(["b", None, "a" * 2_000])
    assert stored_keys(long).to_pylist() == ["b", None, stored_key("a" * 2_000)]


PAGES = st.lists(st.none() | st.lists(st.none() | st.text(max_size=5) | TEXTS, max_size=4), max_size=8)
COUNTS = st.lists(st.none() | st.dictionaries(st.text(max_size=5) | TEXTS, st.integers(-9, 9) | st.none()), max_size=8)


@given(PAGES, st.integers(0, 3))
def test_lists_as_json(lists: list[list[str | None] | None], skipped: int) -> None:
    array = pa.array(lists, pa.list_(pa.string())).slice(skipped)
    found = [None if text is None else json.loads(text) for text in json_texts(array).to_pylist()]
    assert found == [None if pages is None else [_stored(page) for page in pages] for pages in lists[skipped:]]


@given(COUNTS, st.integers(0, 3))
def test_maps_as_json(maps: list[dict[str, int | None] | None], skipped: int) -> None:
    array = pa.array(maps, col.SESSION_TYPES[col.EVENTS_BY_TYPE]).slice(skipped)
    found = [None if text is None else json.loads(text) for text in json_texts(array).to_pylist()]
    assert found == [None if m is None else {stored_text(k): v for k, v in m.items()} for m in maps[skipped:]]


def test_other_values_as_json() -> None:
    structs = pa.array([{"a\0": ["␀", None], "b": {"c": 1.5}}, None])
    assert [text and json.loads(text) for text in json_texts(structs).to_pylist()] == [
        {"a␀": ["␛␀", None], "b": {"c": 1.5}},
        None,
    ]
    flags = pa.array([[("on", True)]], pa.map_(pa.string(), pa.bool_()))
    assert json_texts(flags).to_pylist() == ['{"on": true}']


def _stored(text: str | None) -> str | None:
    return None if text is None else stored_text(text)


# ---- whose the rows are ----


def owner(name: str = "web", gap_ms: int = 1_800_000, user_column: str = "user") -> StoreOwner:
    spec = SessionSpec.of(Policy(gap_ms=gap_ms), Rules(), pipeline=name, user_column=user_column)
    return StoreOwner(spec=spec, where="the store", elsewhere="name another one")


def all_rows(store: Store) -> list[list[tuple[Any, ...]]]:
    tables = ("user_sessions", "late_events", "rejected_events", "sessionize_replacements", "sessionize_pipeline")
    return [sorted(store.ask(f"SELECT * FROM {table}"), key=repr) for table in tables]


def writes(sink: StoreSink) -> list[Callable[[], object]]:
    """All that changes a store."""
    rows = epoch_rows(2, ["a"])
    revised = rows.tables["user_sessions"].append_column(col.REVISION, pa.array([1], pa.int32()))
    return [
        lambda: sink.last_epoch("other"),
        lambda: sink.prepare(rows.tables["user_sessions"].schema),
        lambda: sink.write_epoch(epoch_id(1, writer="other"), rows),
        lambda: sink.replace(keys(rows.tables["user_sessions"]), revised, token="t"),
        lambda: sink.bring_back(rows.tables["rejected_events"], rows.tables["late_events"], token="t"),
        sink.check,
    ]


@pytest.mark.parametrize("write", range(6))
@pytest.mark.parametrize(
    ("other", "says", "values"),
    [
        (owner(name="shop"), "another pipeline", "name: web there, shop here"),
        (owner(gap_ms=60_000), "another policy", "rules.gap: 30m there, 1m here"),
    ],
    ids=["pipeline", "rules"],
)
def test_the_rows_of_another_pipeline_or_of_other_rules_stay(
    store: Store, other: StoreOwner, says: str, values: str, write: int
) -> None:
    with closing(StoreSink(store.make(), owner=owner())) as sink:
        sink.write_epoch(epoch_id(1), epoch_rows(1))
    before = all_rows(store)

    with closing(StoreSink(store.make(), owner=other)) as sink, pytest.raises(StateError, match=says) as caught:
        writes(sink)[write]()

    assert caught.value.detail == f"the store: {values}"
    assert "name another one" in str(caught.value.hint)
    assert all_rows(store) == before
    with closing(StoreSink(store.make(), owner=owner())) as sink:
        assert sink.last_epoch("writer") == 1
        sink.write_epoch(epoch_id(2), epoch_rows(2))


def test_a_pipeline_that_was_there_second_is_refused_though_it_looked_first(store: Store) -> None:
    with closing(StoreSink(store.make(), owner=owner())) as one, closing(StoreSink(store.make())) as old:
        old.last_epoch("writer")
        other = StoreSink(store.make(), owner=owner(name="shop"))
        assert (one.last_epoch("one"), other.last_epoch("other")) == (0, 0)
        one.write_epoch(epoch_id(1, writer="one"), epoch_rows(1))
        before = all_rows(store)
        with closing(other), pytest.raises(StateError, match="another pipeline"):
            other.write_epoch(epoch_id(1, writer="other"), epoch_rows(1))
        assert all_rows(store) == before


def test_a_store_of_an_earlier_version_takes_the_first_pipeline_that_writes(store: Store) -> None:
    with closing(StoreSink(store.make())) as sink:
        sink.write_epoch(epoch_id(1), epoch_rows(1))
        sink.last_epoch("writer")
    with closing(StoreSink(store.make(), owner=owner())) as sink:
        assert sink.last_epoch("writer") == 1
        sink.write_epoch(epoch_id(2), epoch_rows(2))
    with closing(StoreSink(store.make(), owner=owner(name="shop"))) as sink, pytest.raises(StateError):
        sink.last_epoch("writer")


def test_a_store_without_rows_binds_nobody(store: Store) -> None:
    with closing(StoreSink(store.make(), owner=owner())) as sink:
        sink.write_epoch(epoch_id(1), empty_rows())
    with closing(StoreSink(store.make(), owner=owner(name="shop"))) as sink:
        sink.write_epoch(epoch_id(1, writer="shop"), epoch_rows(1))
    with closing(StoreSink(store.make(), owner=owner())) as sink, pytest.raises(StateError, match="another pipeline"):
        sink.write_epoch(epoch_id(2), epoch_rows(1))


def test_looking_makes_nothing(tmp_path: Path, postgres: PostgresServer, schema: str, password_env: str) -> None:
    path = tmp_path / "deep/store.db"
    with closing(StoreSink(SqliteDatabase(path), owner=owner())) as sink:
        sink.check()
    assert not path.parent.exists()
    login = Login(dsn=postgres.dsn, password_env=password_env)
    with closing(StoreSink(PostgresDatabase(login, schema=schema), owner=owner())) as sink:
        sink.check()
    with postgres.connect() as connection:
        assert connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)).fetchone() is None


def test_a_record_that_cannot_be_read_is_an_error(store: Store) -> None:
    with closing(StoreSink(store.make(), owner=owner())) as sink:
        sink.write_epoch(epoch_id(1), epoch_rows(1))
    with closing(store.make()) as database, database.transaction() as transaction:
        transaction.record("{}")
    with closing(StoreSink(store.make(), owner=owner())) as sink, pytest.raises(StateError, match="cannot be read"):
        sink.last_epoch("writer")
