"""One set of limits: what a decoder takes, the core takes, and what one refuses, the other does."""

import csv
import io
import json
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from sessionize import InputError, Sessionizer
from sessionize.formats.csv_text.decoder import CsvLines
from sessionize.formats.dialects import Dialect
from sessionize.formats.json_lines import JsonLines
from sessionize.formats.tabular import Tabular
from sessionize.formats.tabular_layout import Layout
from sessionize.formats.validation import Decoded
from sessionize.session.limits import TIME_MS_MAX, TIME_MS_MIN, USER_BYTES_MAX
from sessionize.testing.comparison import sorted_rows

DIALECT = replace(
    Dialect.mapping(user="user", time="time", event_type="type", value="value", time_format="ms"), strict=True
)
FINE = {"user": "ann", "time": 1, "type": "purchase", "value": 1.5}
RTL, ZERO_WIDTH = "\u202e", "\u200b"
USERS = [
    ("x" * USER_BYTES_MAX, True),
    ("x" * (USER_BYTES_MAX + 1), False),
    ("é" * (USER_BYTES_MAX // 2), True),
    ("é" * (USER_BYTES_MAX // 2) + "x", False),
    ("x" * 1_000_000, False),
    ("", False),
    (" ", False),
    ("\t\u00a0\u2003\u3000", False),
    (" a ", True),
    (f"{RTL}ann", True),
    (ZERO_WIDTH, True),
    ("\x00", True),
    ("a\x00b", True),
    ("\x1f", False),  # a blank to Unicode, like the tab
    ("\ufeffann", True),
    ("\U0010ffff", True),
    ("NULL", True),
    ("☃", True),
]
TIMES = [
    (TIME_MS_MIN, True),
    (TIME_MS_MAX, True),
    (TIME_MS_MIN - 1, False),
    (TIME_MS_MAX + 1, False),
    (-(2**63), False),
    (2**63 - 1, False),
    (0, True),
    (-1, True),
]
VALUES = [
    (1e9, True),
    (-1e9, True),
    (1_000_000_000.0000001, False),
    (10**9, True),
    (10**9 + 1, False),
    (2**53 + 1, False),
    (2**63 - 1, False),
    (-(2**63), False),
    (1.7976931348623157e308, False),
    (5e-324, True),
    (-0.0, True),
    (0, True),
    (0.0000005, True),
]
CASES = [
    *({**FINE, "user": user, "fine": fine} for user, fine in USERS),
    *({**FINE, "time": time, "fine": fine} for time, fine in TIMES),
    *({**FINE, "value": value, "fine": fine} for value, fine in VALUES),
]


def from_json(row: dict[str, Any]) -> Decoded:
    decoder = JsonLines(DIALECT)
    decoder.add(json.dumps(row).encode(), source="a line")
    return decoder.take()


def from_csv(row: dict[str, Any]) -> Decoded:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([row.keys(), row.values()])
    header, _, line = text.getvalue().encode().partition(b"\n")
    decoder = CsvLines(header, DIALECT, source="a file")
    decoder.add(line, source="a file")
    decoder.flush()
    return decoder.take()


def from_table(row: dict[str, Any]) -> Decoded:
    table = pa.table({name: [value] for name, value in row.items()})
    layout = Layout.of(table.schema, DIALECT, source="a table", columns=None, extras=False)
    return Tabular(layout, DIALECT, latest_ms=None).decode(table, source="a table", line_number=int)


def pushed(row: dict[str, Any]) -> pa.Table | None:
    core = Sessionizer()
    names = {"user": "user", "time": "event_time_ms", "type": "event_type", "value": "value"}
    try:
        core.push(pa.table({names[name]: [value] for name, value in row.items()}))
    except InputError:
        return None
    return core.flush()


def shown(case: Any) -> str:
    return ascii(next(f"{name} {case[name]!r}"[:40] for name in FINE if case[name] != FINE[name]))


@pytest.mark.parametrize("decode", [from_json, from_csv, from_table])
@pytest.mark.parametrize("case", CASES, ids=shown)
def test_decoders_and_the_core_take_the_same(case: dict[str, Any], decode: Any):
    row = {name: case[name] for name in FINE}
    decoded, sessions = decode(row), pushed(row)
    assert (decoded.events.num_rows, decoded.rejected.num_rows) == ((1, 0) if case["fine"] else (0, 1))
    assert (sessions is not None) == case["fine"]
    if sessions is not None:
        core = Sessionizer()
        core.push(decoded.events)
        assert sorted_rows(core.flush()) == sorted_rows(sessions)
        assert sorted_rows(sessions)[0]["revenue"] == round(row["value"] * 1_000_000) / 1_000_000
