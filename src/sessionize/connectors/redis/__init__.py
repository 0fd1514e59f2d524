"""Open sessions in Redis, for live views."""

from sessionize.connectors.redis.login import Login
from sessionize.connectors.redis.view import RedisLiveView

__all__ = ["Login", "RedisLiveView"]
