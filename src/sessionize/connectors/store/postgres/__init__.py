"""PostgreSQL as the store."""

from sessionize.connectors.store.postgres.database import PostgresDatabase
from sessionize.connectors.store.postgres.login import Login

__all__ = ["Login", "PostgresDatabase"]
