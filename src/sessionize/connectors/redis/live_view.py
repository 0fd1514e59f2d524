"""Open sessions as keys that live a little longer than the gap, and who was active last.

`<prefix>session:<user>`   the open session as JSON; it expires gap + 5 minutes after it was shown last
`<prefix>active`           users by the time of their last event in ms (a sorted set)

A key's life is counted from the moment it is shown and not from its event times, so that a replay of old events shows
its sessions too; a session without new events is not shown again, and its key goes away even if nobody removes it.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

import pyarrow as pa
import redis

from sessionize.connectors.redis.settings import Login
from sessionize.errors import ConfigError, OutputError, UnavailableError
from sessionize.formats.sizes import in_pieces
from sessionize.session import columns as col

LIFE_BEYOND_GAP_MS = 5 * 60 * 1000
# What a value shows at most, so that one user's does not slow down everybody's view.
PAGES_MAX = 100  # the last ones; pages_visited_total says how many there are
EVENT_TYPES_MAX = 100  # the most frequent ones; events_by_type_total says how many there are
TEXT_CHARACTERS_MAX = 1_024  # of pages and the like; an id is whole, and its length is limited elsewhere
_CHUNK_USERS = 1_000
_SCAN_KEYS = 2_000
_REFUSED = (redis.AuthenticationError, redis.exceptions.AuthorizationError, redis.exceptions.NoPermissionError)
_LATER = (redis.exceptions.ReadOnlyError, redis.exceptions.OutOfMemoryError)
# How the server's answer begins.
_LATER_WORDS = ("OOM", "MISCONF", "READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "BUSY")


class RedisLiveView:
    """Shows open sessions in Redis (ports.LiveView).

    prefix: begins all its keys; belongs to one writer alone. gap_ms: the longest silence within a session.
    user_name: what the input calls the user column. Not for several threads at once.
    Errors: ConfigError for a gap or prefix that cannot be meant, or a password that is not there; from every method
    UnavailableError while the server is away, OutputError when it refuses us.
    """

    def __init__(self, login: Login, *, gap_ms: int, prefix: str = "sessionize:", user_name: str = col.USER) -> None:
        if gap_ms <= 0:
            raise ConfigError("a gap must be longer than nothing", detail=f"gap_ms = {gap_ms}", hint="30 min: 1800000")
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
        """Remove every key of this prefix, and no other (ports.LiveView)."""
        self._newest_ms = None
        with self._failures_told():
            self._client.unlink(self._active_key)
            found = []
            for key in self._client.scan_iter(match=_literally(self._session_prefix) + b"*", count=_SCAN_KEYS):
                found.append(key)
                if len(found) == _CHUNK_USERS:
                    self._client.unlink(*found)
                    found = []
            if found:
                self._client.unlink(*found)

    def update(self, sessions: pa.Table, gone: pa.Array, *, now_ms: int) -> None:
        """Show these sessions as they stand, and no longer those of users who are gone (ports.LiveView)."""
        with self._failures_told():
            for start in range(0, len(gone), _CHUNK_USERS):
                self._remove([user.encode() for user in gone.slice(start, _CHUNK_USERS).to_pylist()])
            for piece in in_pieces(sessions, rows_max=_CHUNK_USERS):
                self._show(piece.to_pylist(), now_ms)

    def close(self) -> None:
        """Disconnect; what is shown stays until it expires."""
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
            # Users whose keys have expired; measured by event times, as they are, so that a replay keeps its own.
            commands.zremrangebyscore(self._active_key, "-inf", self._newest_ms - self._life_ms)
            commands.pexpire(self._active_key, self._life_ms)
            commands.execute()

    @contextmanager
    def _failures_told(self) -> Iterator[None]:
        try:
            yield
        except _REFUSED as error:
            raise OutputError(
                "Redis does not let us in",
                detail=f"{self._login}: {error}",
                hint="check the user, the password (password_env or password_file) and what the user may do",
            ) from error
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise UnavailableError(
                "Redis cannot be reached now",
                detail=f"{self._login}: {error}",
                hint="check that the server runs and can be reached",
            ) from error
        except redis.RedisError as error:
            # In a pipeline the command comes first, with its data, and the answer after it.
            answer = str(error).rpartition("caused error: ")[2]
            if isinstance(error, _LATER) or answer.startswith(_LATER_WORDS):
                raise UnavailableError(
                    "Redis takes no writes now",
                    detail=f"{self._login}: {answer}",
                    hint="look at its memory, its disk and its log, and whether it is a replica",
                ) from error
            raise OutputError(
                "Redis did not take open sessions",
                detail=f"{self._login}: {answer}",
                hint="another program may use keys of this prefix: give this pipeline one of its own",
            ) from error


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
    """A value of a size that can be told, for JSON."""
    if isinstance(value, str) and len(value) > TEXT_CHARACTERS_MAX:
        return value[: TEXT_CHARACTERS_MAX - 1] + "…"
    if isinstance(value, date):
        return value.isoformat()
    return None if isinstance(value, list) else value


def _literally(text: bytes) -> bytes:
    """A pattern of Redis that matches this text alone."""
    return b"".join(b"\\" + bytes([byte]) if byte in b"*?[]^\\-" else bytes([byte]) for byte in text)
