"""The serving store: sessions in PostgreSQL or SQLite, upserted by epochs. Import a database from its own module."""

from sessionize.connectors.sql_store.epoch_sink import StoreSink
from sessionize.connectors.sql_store.ownership import StoreOwner
from sessionize.connectors.sql_store.tables import (
    EPOCHS,
    LATE_EVENTS,
    REJECTED_EVENTS,
    REPLACEMENTS,
    USER_SESSIONS,
)
from sessionize.connectors.sql_store.text import original_text, stored_key, stored_text

__all__ = [
    "EPOCHS",
    "LATE_EVENTS",
    "REJECTED_EVENTS",
    "REPLACEMENTS",
    "USER_SESSIONS",
    "StoreOwner",
    "StoreSink",
    "original_text",
    "stored_key",
    "stored_text",
]
