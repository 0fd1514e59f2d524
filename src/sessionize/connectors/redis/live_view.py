"""Open sessions as Redis keys that expire a little after the gap, and the last activity of each user.

`<prefix>session:<user>`   the open session as JSON; it expires gap + 5 minutes after its last update
`<prefix>active`           users by the time of their last event in ms (a sorted set)

A key's lifetime starts at its last update and not at its event times, so that a replay of old events shows its
sessions too. A session without new events gets no updates, so its key expires even if nothing removes it.
"""

import json
from collections.abc import Mapping
from datetime import date
from typing import Any

import pyarrow as pa

from sessionize.connectors.redis.errors import map_errors
from sessionize.connectors.redis.settings import Login
from sessionize.errors import ConfigError
from sessionize.formats.sizes import in_pieces
from sessionize.session import columns as col

LIFE_BEYOND_GAP_MS = 5 * 60 * 1000
# Limits of a value, so that one user does not slow down the whole view.
PAGES_MAX = 100  # the last ones, of other lists the first; pages_visited_total is their full number
EVENT_TYPES_MAX = 100  # the most frequent ones; events_by_type_total is their full number
TEXT_CHARACTERS_MAX = 1_024  # of pages and similar text; ids are not cut, their length is limited elsewhere
_CHUNK_USERS = 1_000
_SCAN_KEYS = 2_000


class RedisLiveView:
    """Keeps open sessions in Redis (ports.LiveView), and reads them (ports.OpenSessionReader).

    prefix: of all its keys; it belongs to one writer. gap_ms: the longest silence within a session. user_name: the
    input's name of the user column. Not thread-safe.
    Errors: ConfigError for an invalid gap or prefix, or a missing password; from every method UnavailableError if the
    server is unavailable, OutputError if it denies access.
    """

    def __init__(self, login: Login, *, gap_ms: int, prefix: str = "sessionize:", user_name: str = col.USER) -> None:
        if gap_ms <= 0:
            raise ConfigError("the gap must be longer than zero", detail=f"gap_ms = {gap_ms}", hint="30 min: 1800000")
        if not prefix:
            raise ConfigError(
                "the keys in Redis need a prefix", detail="prefix is empty", hint="name the pipeline, as in 'shop:'"
            )
        self._login = login
        self._life_ms = gap_ms + LIFE_BEYOND_GAP_MS
        self._user_name = user_name
        self._session_prefix = prefix.encode() + b"session:"
        self._active_key = prefix.encode() + b"active"
        self._newest_ms: int | None = None
        self._client = login.client()

    def clear(self) -> None:
        """Remove every key with this prefix and no others (ports.LiveView)."""
        self._newest_ms = None
        with map_errors(self._login):
            self._client.unlink(self._active_key)
            found = []
            for key in self._client.scan_iter(match=_escaped(self._session_prefix) + b"*", count=_SCAN_KEYS):
                found.append(key)
                if len(found) == _CHUNK_USERS:
                    self._client.unlink(*found)
                    found = []
            if found:
                self._client.unlink(*found)

    def update(self, sessions: pa.Table, closed_users: pa.Array, *, now_ms: int) -> None:
        """Update these open sessions, and remove those of closed users (ports.LiveView)."""
        with map_errors(self._login):
            for start in range(0, len(closed_users), _CHUNK_USERS):
                self._remove([user.encode() for user in closed_users.slice(start, _CHUNK_USERS).to_pylist()])
            for piece in in_pieces(sessions, rows_max=_CHUNK_USERS):
                self._show(piece.to_pylist(), now_ms)

    def open_session(self, user: str) -> Mapping[str, Any] | None:
        """A user's open session, with what is long cut short (ports.OpenSessionReader). Thread-safe."""
        with map_errors(self._login):
            value = self._client.get(self._session_prefix + user.encode())
        if value is None:
            return None
        shown: dict[str, Any] = json.loads(value)
        return shown

    def close(self) -> None:
        """Disconnect; the keys stay until they expire."""
        self._client.close()

    def _remove(self, users: list[bytes]) -> None:
        with self._client.pipeline(transaction=False) as commands:
            commands.unlink(*(self._session_prefix + user for user in users))
            commands.zrem(self._active_key, *users)
            commands.execute()

    def _show(self, rows: list[dict[str, Any]], now_ms: int) -> None:
        active = {}
        with self._client.pipeline(transaction=False) as commands:
            for row in rows:
                user = row[self._user_name].encode()
                active[user] = row.get(col.SESSION_END, now_ms)
                commands.set(self._session_prefix + user, _value(row, now_ms), px=self._life_ms)
            commands.zadd(self._active_key, active)
            newest_ms = max(active.values())
            self._newest_ms = newest_ms if self._newest_ms is None else max(self._newest_ms, newest_ms)
            # Users whose keys have expired; compared by event time, like the scores, so that a replay keeps its users.
            commands.zremrangebyscore(self._active_key, "-inf", self._newest_ms - self._life_ms)
            commands.pexpire(self._active_key, self._life_ms)
            commands.execute()


def _value(row: dict[str, Any], now_ms: int) -> bytes:
    shown: dict[str, Any] = {name: value if name == col.SESSION_ID else _short(value) for name, value in row.items()}
    pages = row.get(col.PAGES_VISITED)
    if pages is not None:
        shown[col.PAGES_VISITED] = [_short(page) for page in pages[-PAGES_MAX:]]
        shown[f"{col.PAGES_VISITED}_total"] = len(pages)
    types = row.get(col.EVENTS_BY_TYPE)
    if types is not None:
        kept = types if len(types) <= EVENT_TYPES_MAX else sorted(types, key=lambda t: (-t[1], t[0]))[:EVENT_TYPES_MAX]
        shown[col.EVENTS_BY_TYPE] = {_short(name): count for name, count in kept}
        shown[f"{col.EVENTS_BY_TYPE}_total"] = len(types)
    shown["shown_at_ms"] = now_ms
    return json.dumps(shown, ensure_ascii=False, separators=(",", ":")).encode()


def _short(value: object) -> object:
    """A value for JSON, with long text cut."""
    if isinstance(value, str) and len(value) > TEXT_CHARACTERS_MAX:
        return value[: TEXT_CHARACTERS_MAX - 1] + "…"
    if isinstance(value, date):
        return value.isoformat()
    return [_short(each) for each in value[:PAGES_MAX]] if isinstance(value, list) else value


def _escaped(text: bytes) -> bytes:
    """A Redis pattern that matches only this text."""
    return b"".join(b"\\" + bytes([byte]) if byte in b"*?[]^\\-" else bytes([byte]) for byte in text)
