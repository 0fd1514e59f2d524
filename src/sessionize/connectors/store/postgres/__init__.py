"""PostgreSQL as the serving store of sessions."""

from sessionize.connectors.store.postgres.database import PostgresDatabase
from sessionize.connectors.store.postgres.settings import Login

__all__ = ["Login", "PostgresDatabase"]
