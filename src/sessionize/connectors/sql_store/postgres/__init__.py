"""PostgreSQL as the serving store of sessions."""

from sessionize.connectors.sql_store.postgres.database import PostgresDatabase
from sessionize.connectors.sql_store.postgres.settings import Login

__all__ = ["Login", "PostgresDatabase"]
