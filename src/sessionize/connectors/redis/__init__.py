"""Open sessions in Redis, for live views."""

from sessionize.connectors.redis.settings import Login  # first, because it reports a missing extra

# isort: split
from sessionize.connectors.redis.live_view import RedisLiveView

__all__ = ["Login", "RedisLiveView"]
