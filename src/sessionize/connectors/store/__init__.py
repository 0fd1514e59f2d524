"""The serving store: sessions in PostgreSQL or SQLite, upserted by epochs. Import a database from its own module."""

from sessionize.connectors.store.epoch_sink import StoreSink
from sessionize.connectors.store.ownership import StoreOwner
from sessionize.connectors.store.tables import (
    EPOCHS,
    LATE_EVENTS,
    REJECTED_EVENTS,
    REPLACEMENTS,
    USER_SESSIONS,
)
from sessionize.connectors.store.text import original_text, stored_key, stored_text

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
