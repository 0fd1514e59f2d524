"""Events in memory, their users coded against one dictionary as they come.

Coding is done batch by batch, while the next batches are still being read, so that whoever splits or sorts the events
afterwards works on integers and never has to merge dictionaries.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sessionize.engine.schema_union import SchemaUnion
from sessionize.kernel.interner import Interner
from sessionize.session import columns as col

CodeArray = npt.NDArray[np.int32]


class EventBuffer:
    """Tables of events in the order they came. codes and names hold for all of them."""

    def __init__(self) -> None:
        self._users = Interner()
        self._tables: list[pa.Table] = []  # the user column holds codes
        self.size_bytes = 0

    def __len__(self) -> int:
        """How many tables."""
        return len(self._tables)

    @property
    def rows(self) -> int:
        """Events held."""
        return sum(table.num_rows for table in self._tables)

    @property
    def has_dictionaries(self) -> bool:
        """Whether columns other than the user's are dictionary-encoded."""
        return bool(self._tables) and any(pa.types.is_dictionary(kind) for kind in self._tables[0].schema.types)

    def add(self, table: pa.Table) -> pa.Table:
        """Hold a table of events; returns it as it is held, with an int32 code in place of each user."""
        before = len(self._users)
        codes = pa.array(self._codes(table[col.USER]))
        coded = table.set_column(table.schema.get_field_index(col.USER), col.USER, codes)
        self.size_bytes += coded.nbytes + round((len(self._users) - before) * _bytes_per_name(table[col.USER]))
        self._tables.append(coded)
        return coded

    def _codes(self, users: pa.ChunkedArray) -> CodeArray:
        if not pa.types.is_dictionary(users.type) or users.num_chunks != 1 or users.chunk(0).dictionary.null_count:
            return self._users.encode(users)
        # the dictionary as a column of its own: this way nobody asks whether its values are distinct
        code_of_value = self._users.encode(users.chunk(0).dictionary)
        codes: CodeArray = code_of_value.take(users.chunk(0).indices.to_numpy())
        return codes

    def align(self, union: SchemaUnion) -> None:
        """Give every table all the columns of the union."""
        self._tables = union.aligned(self._tables)

    def names(self) -> pa.Array:
        """The users by code, as plain text."""
        names = self._users.values(np.arange(len(self._users), dtype=np.int32))
        return names.dictionary_decode() if pa.types.is_dictionary(names.type) else names

    def tables(self) -> Iterator[pa.Table]:
        """The tables with the users in them; all share one dictionary."""
        names = self.names()
        for table in self._tables:
            at = table.schema.get_field_index(col.USER)
            users = [pa.DictionaryArray.from_arrays(codes, names) for codes in table[col.USER].chunks]
            yield table.set_column(at, col.USER, pa.chunked_array(users, pa.dictionary(pa.int32(), pa.string())))

    def release(self) -> Iterator[pa.Table]:
        """The tables with codes for users, each forgotten as it is handed out."""
        while self._tables:
            yield self._tables.pop(0)


def _bytes_per_name(users: pa.ChunkedArray) -> float:
    """About what one name takes: only those not held already count, however often they come."""
    texts = [c.dictionary if pa.types.is_dictionary(users.type) else c for c in users.chunks]
    size_bytes: int = sum(t.nbytes for t in texts)
    return size_bytes / max(sum(len(t) for t in texts), 1)
