"""The rules of a SessionDefinition as one SQL query, for people whose events are in a warehouse.

`sessions_sql` and `labels_sql` build the query as a sqlglot tree, step by step (steps.py), and write it in a dialect
(dialects.py). Source of every step: docs/spec/sessions.md. Names and values of the user's are nodes of the tree, never
pieces of text.
"""

from sessionize.sql.dialects import DIALECTS, UNTESTED, dialect_named
from sessionize.sql.event_table import EventTable, TimeKind
from sessionize.sql.query import labels_sql, sessions_sql

__all__ = ["DIALECTS", "UNTESTED", "EventTable", "TimeKind", "dialect_named", "labels_sql", "sessions_sql"]
