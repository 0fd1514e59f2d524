"""What others see of open sessions in Redis, and what happens when it is away."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sessionize.connectors.redis import Login, RedisLiveView
from sessionize.connectors.redis.live_view import EVENT_TYPES_MAX, LIFE_BEYOND_GAP_MS, PAGES_MAX, TEXT_CHARACTERS_MAX
from sessionize.errors import ConfigError, OutputError, UnavailableError
from sessionize.session import columns as col
from sessionize.testing.epoch_sinks import sessions
from sessionize.testing.services.valkey import ValkeyServer
from sessionize.testing.session_readers import OpenSessionReaderContract, OpenView

GAP_MS = 30 * 60 * 1000
NOW_MS = 1_800_000_000_000
NOBODY = pa.array([], pa.string())
ODD_USERS = ["a b", "dé", "日本", "a\0b", "*", "a*", "[x]", "\\", "line\nfeed", "{slot}", "\x7f", "x" * 1_000]


@pytest.fixture
def login(valkey: ValkeyServer, password_env: str) -> Login:
    return Login(url=valkey.url, password_env=password_env)


@pytest.fixture
def view(login: Login, prefix: str) -> Iterator[RedisLiveView]:
    view = RedisLiveView(login, gap_ms=GAP_MS, prefix=prefix)
    yield view
    view.close()


class TestRedisLiveView(OpenSessionReaderContract):
    @pytest.fixture
    def view(self, view: RedisLiveView) -> OpenView:
        return view


def keys(valkey: ValkeyServer) -> set[bytes]:
    with valkey.client() as client:
        return set(client.keys("*"))


def shown(valkey: ValkeyServer, prefix: str, user: str) -> dict[str, Any] | None:
    with valkey.client() as client:
        value = client.get(f"{prefix}session:{user}".encode())
    return None if value is None else json.loads(value)


def users_shown(valkey: ValkeyServer, prefix: str, users: list[str]) -> list[str]:
    return [value["user"] for user in users if (value := shown(valkey, prefix, user)) is not None]


def active(valkey: ValkeyServer, prefix: str) -> dict[str, float]:
    with valkey.client() as client:
        return {user.decode(): score for user, score in client.zrange(f"{prefix}active", 0, -1, withscores=True)}


def test_an_open_session_is_shown_with_all_its_columns(valkey: ValkeyServer, view: RedisLiveView, prefix: str) -> None:
    view.update(sessions(["ann"], start_ms=1_000, pages=["home", "cart"]), NOBODY, now_ms=NOW_MS)

    value = shown(valkey, prefix, "ann")
    assert value is not None
    assert value.pop("shown_at_ms") == NOW_MS
    assert (value.pop("pages_visited_total"), value.pop("events_by_type_total")) == (2, 2)
    assert tuple(value) == col.SESSION_COLUMNS
    assert value["pages_visited"] == ["home", "cart"]
    assert value["events_by_type"] == {"purchase": 1, "view": 2}
    assert value["session_date"] == "1970-01-01"
    assert active(valkey, prefix) == {"ann": 121_000.0}


def test_keys_live_for_the_gap_and_five_minutes(valkey: ValkeyServer, view: RedisLiveView, prefix: str) -> None:
    view.update(sessions(["ann"], start_ms=1_000), NOBODY, now_ms=NOW_MS)

    with valkey.client() as client:
        lives = [client.pttl(f"{prefix}{name}") for name in ("session:ann", "active")]
    assert all(GAP_MS + LIFE_BEYOND_GAP_MS - 30_000 < life <= GAP_MS + LIFE_BEYOND_GAP_MS for life in lives)


def test_a_session_that_grows_and_goes(valkey: ValkeyServer, view: RedisLiveView, prefix: str) -> None:
    view.update(sessions(["ann", "ben"], start_ms=1_000), NOBODY, now_ms=NOW_MS)
    view.update(sessions(["ann"], start_ms=5_000), pa.array(["ben", "never there"]), now_ms=NOW_MS + 1)

    value = shown(valkey, prefix, "ann")
    assert value is not None
    assert (value["session_start_time_ms"], value["shown_at_ms"]) == (5_000, NOW_MS + 1)
    assert shown(valkey, prefix, "ben") is None
    assert active(valkey, prefix) == {"ann": 125_000.0}


def test_a_user_who_is_gone_and_there_again_is_there(valkey: ValkeyServer, view: RedisLiveView, prefix: str) -> None:
    view.update(sessions(["ann"], start_ms=1_000), NOBODY, now_ms=NOW_MS)
    view.update(sessions(["ann"], start_ms=7_000), pa.array(["ann"]), now_ms=NOW_MS)

    assert shown(valkey, prefix, "ann") is not None
    assert active(valkey, prefix) == {"ann": 127_000.0}


def test_users_silent_for_too_long_are_not_active(valkey: ValkeyServer, view: RedisLiveView, prefix: str) -> None:
    view.update(sessions(["old", "older"], start_ms=0), NOBODY, now_ms=NOW_MS)
    view.update(sessions(["new"], start_ms=GAP_MS + LIFE_BEYOND_GAP_MS - 1), NOBODY, now_ms=NOW_MS)
    assert set(active(valkey, prefix)) == {"old", "older", "new"}

    view.update(sessions(["newest"], start_ms=GAP_MS + LIFE_BEYOND_GAP_MS), NOBODY, now_ms=NOW_MS)
    assert set(active(valkey, prefix)) == {"new", "newest"}


def test_odd_users_are_shown_and_removed_each_for_itself(
    valkey: ValkeyServer, view: RedisLiveView, prefix: str
) -> None:
    view.update(sessions(ODD_USERS), NOBODY, now_ms=NOW_MS)
    assert users_shown(valkey, prefix, ODD_USERS) == ODD_USERS
    assert set(active(valkey, prefix)) == set(ODD_USERS)

    view.update(sessions([]), pa.array(["*", "[x]"]), now_ms=NOW_MS)
    left = [user for user in ODD_USERS if user not in ("*", "[x]")]
    assert users_shown(valkey, prefix, left) == left
    assert set(active(valkey, prefix)) == set(left)


def test_clear_removes_its_own_keys_alone(valkey: ValkeyServer, login: Login, view: RedisLiveView, prefix: str) -> None:
    view.update(sessions([*ODD_USERS, *(f"user-{i}" for i in range(2_500))]), NOBODY, now_ms=NOW_MS)
    others = [prefix.replace("[e]", "e"), prefix.replace("*", "xx"), "a" + prefix, prefix + "more:"]
    for other in others:
        second = RedisLiveView(login, gap_ms=GAP_MS, prefix=other)
        second.update(sessions(["ann"]), NOBODY, now_ms=NOW_MS)
        second.close()
    with valkey.client() as client:
        client.set(f"{prefix}of somebody else", 1)

    view.clear()

    theirs = {f"{other}{name}".encode() for other in others for name in ("session:ann", "active")}
    mine = {key for key in keys(valkey) if key.startswith(prefix.encode())}
    assert theirs <= keys(valkey)
    assert mine - theirs == {f"{prefix}of somebody else".encode()}


def test_values_are_limited(valkey: ValkeyServer, view: RedisLiveView, prefix: str) -> None:
    pages = [f"page {i}" for i in range(5_000)] + ["long" * 1_000]
    rows = sessions(["ann"], pages=pages)
    types = pa.array([[(f"type {i}", i) for i in range(500)]], col.SESSION_TYPES[col.EVENTS_BY_TYPE])
    rows = rows.set_column(rows.schema.get_field_index(col.EVENTS_BY_TYPE), col.EVENTS_BY_TYPE, types)
    view.update(rows, NOBODY, now_ms=NOW_MS)

    value = shown(valkey, prefix, "ann")
    assert value is not None
    assert value["pages_visited"][:-1] == pages[-PAGES_MAX:-1]
    assert len(value["pages_visited"][-1]) == len(value["exit_page"]) == TEXT_CHARACTERS_MAX
    assert value["pages_visited_total"] == 5_001
    assert value["events_by_type"] == {f"type {i}": i for i in range(500 - EVENT_TYPES_MAX, 500)}
    assert value["events_by_type_total"] == 500


def test_few_columns_and_another_name_for_the_user(valkey: ValkeyServer, login: Login, prefix: str) -> None:
    view = RedisLiveView(login, gap_ms=GAP_MS, prefix=prefix, user_name="uuid")
    view.update(pa.table({"uuid": ["ann"], "session_id": ["ann_1"]}), NOBODY, now_ms=NOW_MS)
    view.close()

    assert shown(valkey, prefix, "ann") == {"uuid": "ann", "session_id": "ann_1", "shown_at_ms": NOW_MS}
    assert active(valkey, prefix) == {"ann": float(NOW_MS)}


def test_many_users_take_little_time(valkey: ValkeyServer, view: RedisLiveView, prefix: str) -> None:
    rows = sessions([f"user-{i}" for i in range(10_000)], pages=["home", "search", "cart"])
    began = time.process_time()
    view.update(rows, NOBODY, now_ms=NOW_MS)

    assert time.process_time() - began < 4
    assert len(active(valkey, prefix)) == 10_000


def test_away_and_back(password_env: str, valkey: ValkeyServer) -> None:
    with ValkeyServer(password=valkey.password) as server:
        view = RedisLiveView(Login(url=server.url, password_env=password_env), gap_ms=GAP_MS, prefix="p:")
        view.update(sessions(["ann"]), NOBODY, now_ms=NOW_MS)
        server.stop()
        for call in (view.clear, lambda: view.update(sessions(["ann"]), pa.array(["ben"]), now_ms=NOW_MS)):
            with pytest.raises(UnavailableError, match="cannot be reached") as caught:
                call()
            assert caught.value.hint
        server.start()
        view.update(sessions(["ben"]), NOBODY, now_ms=NOW_MS)
        assert {b"p:session:ben", b"p:active"} <= keys(server)
        server.restart()
        view.clear()
        assert keys(server) == set()
        view.close()


def test_a_server_without_memory_is_not_for_good(valkey: ValkeyServer, view: RedisLiveView) -> None:
    with valkey.client() as client:
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(UnavailableError, match="does not accept writes"):
                view.update(sessions(["ann"]), NOBODY, now_ms=NOW_MS)
        finally:
            client.config_set("maxmemory", 0)
    view.update(sessions(["ann"]), NOBODY, now_ms=NOW_MS)


@pytest.mark.parametrize("password", [None, "wrong one"])
def test_wrong_passwords_are_refused_and_not_shown(
    valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch, password: str | None
) -> None:
    if password is not None:
        monkeypatch.setenv("WRONG", password)
    view = RedisLiveView(Login(url=valkey.url, password_env=None if password is None else "WRONG"), gap_ms=GAP_MS)
    with pytest.raises(OutputError, match="Redis refuses access") as caught:
        view.update(sessions(["ann"]), NOBODY, now_ms=NOW_MS)
    view.close()
    assert "wrong one" not in str(caught.value)
    assert "password" in str(caught.value.hint)


def test_a_key_of_another_program_is_told(valkey: ValkeyServer, view: RedisLiveView, prefix: str) -> None:
    with valkey.client() as client:
        client.set(f"{prefix}active", "a text")
    with pytest.raises(OutputError, match="rejected open sessions") as caught:
        view.update(sessions(["OOM caused error: OOM"]), NOBODY, now_ms=NOW_MS)
    assert "prefix" in str(caught.value.hint)


@pytest.mark.parametrize(
    "url", ["redis://:hidden@localhost", "redis://u:hidden@localhost/0", "redis://localhost?password=hidden", "hidden"]
)
def test_addresses_with_passwords_or_without_sense(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Login(url=url)
    assert "hidden" not in str(caught.value)
    assert caught.value.hint


def test_the_password_is_read_from_a_file(valkey: ValkeyServer, tmp_path: Path, prefix: str) -> None:
    file = tmp_path / "password"
    login = Login(url=valkey.url, password_file=file)
    with pytest.raises(ConfigError, match="cannot be read"):
        RedisLiveView(login, gap_ms=GAP_MS)
    file.write_text(f"{valkey.password}\n", encoding="utf-8")
    view = RedisLiveView(login, gap_ms=GAP_MS, prefix=prefix)
    view.update(sessions(["ann"]), NOBODY, now_ms=NOW_MS)
    view.close()
    assert active(valkey, prefix)
    with pytest.raises(ConfigError, match="two places"):
        Login(url=valkey.url, password_file=file, password_env="ALSO")


def test_options_that_cannot_be_meant(login: Login) -> None:
    with pytest.raises(ConfigError, match="prefix"):
        RedisLiveView(login, gap_ms=GAP_MS, prefix="")
    with pytest.raises(ConfigError, match="gap"):
        RedisLiveView(login, gap_ms=0)


def test_without_the_extra_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['redis'] = None; import sessionize.connectors.redis"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "sessionize.errors.MissingExtraError" in done.stderr
    assert "sessionize[redis]" in done.stderr


def test_lists_of_own_columns_are_shown_and_cut_short(view: RedisLiveView, valkey: ValkeyServer, prefix: str) -> None:
    """The first values, as many as of pages; long texts are cut as everywhere."""
    many = [f"{number}" for number in range(PAGES_MAX + 50)]
    rows = sessions(["a", "b"])
    for name, values in {"few": [["x" * 2_000, None], []], "many": [many, None], "n": [2, None]}.items():
        rows = rows.append_column(name, pa.array(values))
    view.update(rows, NOBODY, now_ms=NOW_MS)
    a, b = (shown(valkey, prefix, user) for user in "ab")
    assert a is not None
    assert b is not None
    assert (a["few"], a["many"], a["n"]) == (["x" * (TEXT_CHARACTERS_MAX - 1) + "…", None], many[:PAGES_MAX], 2)
    assert (b["few"], b["many"], b["n"]) == ([], None, None)
