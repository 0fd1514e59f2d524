"""Events in memory: users coded whatever form they come in, and split into parts."""

from collections import defaultdict
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize.engine.batch.event_buffer import EventBuffer
from sessionize.engine.batch.shards import Shards

Users = list[str]
FORMS = ("plain", "dictionary", "null in dictionary", "chunks")


def as_column(users: Users, form: str) -> pa.ChunkedArray:
    plain = pa.array(users, pa.string())
    if form == "dictionary":
        return pa.chunked_array([plain.dictionary_encode()])
    if form == "null in dictionary":
        values = pa.concat_arrays([pa.array([None], pa.string()), plain])
        return pa.chunked_array(
            [pa.DictionaryArray.from_arrays(pa.array(range(1, len(users) + 1), pa.int32()), values)]
        )
    return pa.chunked_array([plain[:1], plain[1:]] if form == "chunks" else [plain])


def tables_of(batches: list[tuple[Users, str]]) -> list[pa.Table]:
    made, row = [], 0
    for users, form in batches:
        rows = list(range(row, row + len(users)))
        page = pa.array([f"/{n % 3}" if n % 4 else None for n in rows], pa.string()).dictionary_encode()
        value = pa.array([n / 2 if n % 5 else None for n in rows], pa.float64())
        made.append(pa.table({"event_time_ms": rows, "user": as_column(users, form), "page": page, "value": value}))
        row += len(users)
    return made


some_users = st.lists(st.sampled_from(["u1", "u2", "u3", "u4", "u5"]) | st.text(max_size=3), min_size=1, max_size=12)
same_length = st.lists(st.sampled_from(["aa", "bb", "cc", "dd"]), min_size=1, max_size=12)
batches = st.lists(st.tuples(same_length | some_users, st.sampled_from(FORMS)), max_size=5)


def held_of(tables: list[pa.Table]) -> EventBuffer:
    held = EventBuffer()
    for table in tables:
        held.add(table)
    return held


def plain(tables: list[pa.Table]) -> list[dict[str, Any]]:
    return [row for table in tables for row in table.to_pylist()]


@given(batches)
def test_tables_come_back_as_they_were(parts: list[tuple[Users, str]]) -> None:
    tables = tables_of(parts)
    held = held_of(tables)
    assert (len(held), held.rows) == (len(tables), sum(t.num_rows for t in tables))
    assert plain(list(held.tables())) == plain(tables)
    names = held.names().to_pylist()
    assert len(set(names)) == len(names)
    back = list(held.tables())
    assert len({table["user"].chunk(0).dictionary.buffers()[2].address for table in back if names != [""]}) <= 1


@given(batches, st.integers(1, 20))
def test_every_user_is_in_one_part_in_the_order_of_the_input(parts: list[tuple[Users, str]], rows: int) -> None:
    tables = tables_of(parts)
    shards = Shards(held_of(tables), rows_per_shard=rows)
    assert len(shards) >= sum(t.num_rows for t in tables) / rows / 2
    in_parts: dict[str, list[dict[str, Any]]] = {}
    for number in range(len(shards)):
        events = shards.part(number)
        users = events["user"].unique().to_pylist() if events.num_rows else []
        assert not in_parts.keys() & set(users)
        in_parts |= by_user(plain([events]))
    assert in_parts == by_user(plain(tables))


def by_user(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row["user"]].append(row)
    return dict(found)


def test_users_keep_their_numbers_when_others_of_other_lengths_come() -> None:
    parts = [
        (["bb", "aa"], "plain"),
        (["aa", "cc"], "plain"),
        (["name-of-many-words", "a"], "plain"),
        (["cc"], "plain"),
    ]
    held = held_of(tables_of(parts))
    names = held.names().to_pylist()
    assert names[:3] == ["bb", "aa", "cc"]
    assert sorted(names[3:]) == ["a", "name-of-many-words"]


@pytest.mark.parametrize("form", ["plain", "dictionary"])
@pytest.mark.parametrize("length", [36, 7])
def test_a_name_takes_memory_once_however_often_it_comes(form: str, length: int) -> None:
    users = [f"{n % 100:0{length}d}" for n in range(10_000)]
    users[0] += "" if length == 36 else "-longer"  # not all of one length
    table = pa.table({"event_time_ms": list(range(10_000)), "user": as_column(users, form)})
    held = held_of([table] * 5)
    least = 5 * 10_000 * (8 + 4)
    assert least < held.size_bytes < least + 200 * (length + 16)
