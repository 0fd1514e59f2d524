"""The columns of events as outputs take them: the input's name of the user, and room for columns that are added."""

from collections.abc import Sequence

import pyarrow as pa

from sessionize.session import columns as col


def with_user_name(events: pa.Table, user_name: str) -> pa.Table:
    """The events with the user column called what the input calls it."""
    return events.rename_columns([user_name if name == col.USER else name for name in events.column_names])


def with_room(events: pa.Table, names: Sequence[str]) -> pa.Table:
    """The events without columns of these names: fields of the input that are called so get "input_" before it."""
    taken = set(events.column_names)
    if taken.isdisjoint(names):
        return events
    renamed = []
    for name in events.column_names:
        new = name
        while new in names or (new != name and new in taken):
            new = f"input_{new}"
        renamed.append(new)
        taken.add(new)
    return events.rename_columns(renamed)
