"""Open sessions in Redis, for live views."""

from sessionize.connectors.redis.live_view import RedisLiveView
from sessionize.connectors.redis.settings import Login

__all__ = ["Login", "RedisLiveView"]
