"""A session column of one's own of each kind and type, over the events of the strategies, for every engine to make."""

from collections.abc import Mapping
from typing import Any

from sessionize.session.columns import EVENT_TYPES, SessionColumns, event_types
from sessionize.session.own_columns import read_columns
from sessionize.testing.strategies import FURTHER_FIELDS

FIELDS: dict[str, str] = {**event_types(EVENT_TYPES), **FURTHER_FIELDS}
EVERY_KIND: dict[str, dict[str, Any]] = {
    "first_source": {"first": "source"},
    "last_source": {"last": "source", "where": "event_type <> 'view'"},
    "min_source": {"min": "source"},
    "max_source": {"max": "source", "where": "price > 0"},
    "first_price": {"first": "price"},
    "last_price": {"last": "price"},
    "min_price": {"min": "price"},
    "max_price": {"max": "price"},
    "sum_price": {"sum": "price"},
    "mean_price": {"mean": "price"},
    "prices": {"count": "price"},
    "distinct_prices": {"count_distinct": "price"},
    "first_qty": {"first": "qty"},
    "min_qty": {"min": "qty"},
    "max_qty": {"max": "qty"},
    "sum_qty": {"sum": "qty"},
    "mean_qty": {"mean": "qty"},
    "qtys": {"distinct": "qty", "limit": 2},
    "first_flag": {"first": "flag"},
    "last_flag": {"last": "flag"},
    "flags": {"distinct": "flag"},
    "sources": {"distinct": "source", "limit": 2},
    "all_sources": {"distinct": "source"},
    "source_count": {"count_distinct": "source"},
    "purchases": {"count": True, "where": "lower(event_type) = 'purchase' or value >= 1.5"},
    "amount": {"sum": "price * qty", "where": "flag or flag is null"},
    "halves": {"mean": "value / 2"},
    "ids": {"distinct": "event_id"},
    "last_time": {"max": "event_time_ms"},
    "landing": {"first": "coalesce(nullif(page, 'out'), source)"},
    "per_event": {"expression": "sum_price / event_count"},
    "is_bounce": {"expression": "event_count = 1 and not has_conversion"},
    "label": {"expression": "case when purchases > 1 then 'many' when purchases = 1 then exit_page else 'none' end"},
    "per_second": {"expression": "event_count / session_duration_seconds"},
}


def columns_of(definition: Mapping[str, Any], fields: Mapping[str, str] = FIELDS) -> SessionColumns:
    """All built-in columns and these. fields: of the events, with their types."""
    return SessionColumns().with_own(read_columns(definition), fields, "user")


OWN = columns_of(EVERY_KIND)
