"""The dialects of public producers: the samples of docs/dialects.md and real-looking records, in JSON and in tables."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sessionize.connectors.files.source import FileSource
from sessionize.formats.dialects import DIALECTS, Dialect
from sessionize.formats.json_lines import JsonLines
from sessionize.formats.paths.language import Join
from sessionize.formats.tabular import Tabular
from sessionize.formats.tabular_layout import Layout
from sessionize.formats.validation import Decoded

DOCS = Path(__file__).parents[2] / "docs" / "dialects.md"
SAMPLES = dict(re.findall(r"^## (\S+)\n.*?```json\n(.*?)\n```", DOCS.read_text("utf-8"), re.DOTALL | re.MULTILINE))
# 2026-03-02 10:00
AT_10 = 1772445600000
EXPECTED: dict[str, dict[str, Any]] = {
    "clickstream": {"user": "u1", "event_id": "e1", "page": "selection", "event_type": "user-action"},
    "user-events": {"user": "u1", "event_type": "PURCHASE", "page": "/checkout", "value": 99.5},
    "user_activity": {"user": "u1", "event_type": "page_view", "page": "/home"},
    "clicks": {"user": "u1", "page": "/a"},
    "ecommerce": {"user": "17", "value": 19.9, "category": "shoes", "product": "P1"},
    "segment": {
        "user": "u1",
        "event_id": "m1",
        "event_type": "Order Completed",
        "page": "/done",
        "value": 12.5,
        "utm_source": "mail",
        "utm_campaign": "spring",
        "referrer": "https://example.org/",
    },
    "snowplow": {
        "user": "d1",
        "event_id": "e1",
        "page": "https://example.org/a",
        "utm_source": "mail",
        "country": "DE",
    },
    "ga4": {
        "user": "12.34",
        "event_type": "purchase",
        "page": "https://example.org/a",
        "value": 12.5,
        "utm_source": "newsletter",
        "ga_session_id": 1772445600,
        "country": "Germany",
        "device": "mobile",
    },
    "cloudevents": {"user": "u1", "event_id": "e1", "event_type": "com.example.click", "page": "/a", "source": "/web"},
    "matomo": {"user": "9f3a", "event_type": "action", "page": "https://example.org/a", "country": "de"},
    "combined": {"user": "192.0.2.7", "page": "/a", "status": 200, "bytes": 128, "user_agent": "Browser/9"},
    "w3c": {"user": "192.0.2.7", "page": "/a.gif", "status": 200, "user_agent": "Browser/5.0", "query": None},
}


def of_json(records: list[dict[str, Any]], name: str, **paths: Any) -> Decoded:
    decoder = JsonLines(DIALECTS[name].overridden(**paths))
    decoder.add("\n".join(map(json.dumps, records)).encode(), source="f")
    return decoder.take()


def of_table(records: list[dict[str, Any]], name: str, **paths: Any) -> Decoded:
    table, dialect = pa.Table.from_pylist(records), DIALECTS[name].overridden(**paths)
    layout = Layout.of(table.schema, dialect, source="f", columns=None, extras=False)
    return Tabular(layout, dialect).decode(table, source="f", line_number=int)


BOTH = pytest.mark.parametrize("decode", [of_json, of_table])


def test_every_dialect_has_its_sample() -> None:
    assert set(SAMPLES) == set(DIALECTS) == set(EXPECTED)


@BOTH
@pytest.mark.parametrize("name", DIALECTS)
def test_the_sample_of_the_docs(decode: Any, name: str) -> None:
    decoded = decode([json.loads(SAMPLES[name])], name)
    (row,) = decoded.events.to_pylist()
    assert {column: row[column] for column in EXPECTED[name]} == EXPECTED[name]
    assert row["event_time_ms"] // 1000 * 1000 == AT_10
    assert not any(decoded.nulled.values())


@BOTH
def test_ga4_before_and_after_the_login(decode: Any) -> None:
    """field-cases/ga4_export.ndjson"""

    def event(micros: int, user: str | None, **params: Any) -> dict[str, Any]:
        kinds = {str: "string_value", float: "double_value"}
        empty = {"string_value": None, "int_value": None, "double_value": None}
        listed = [{"key": k, "value": {**empty, kinds[type(v)]: v}} for k, v in params.items()]
        return {"event_timestamp": str(micros), "event_name": "x", "user_pseudo_id": "12.34", "user_id": user,
                "event_params": listed}  # fmt: skip

    records = [
        event(1714521600123456, None, page_location="https://example.org/a", source="newsletter"),
        event(1714522600123456, "u9", value=12.5),
        event(1714523000000000, "", page_location="/b"),
    ]
    rows = decode(records, "ga4").events.to_pylist()
    assert [row["user"] for row in rows] == ["12.34", "u9", "12.34"]
    assert [row["event_time_ms"] for row in rows] == [1714521600123, 1714522600123, 1714523000000]
    assert [row["page"] for row in rows] == ["https://example.org/a", None, "/b"]
    assert [row["value"] for row in rows] == [None, 12.5, None]
    assert [row["utm_source"] for row in rows] == ["newsletter", None, None]


@BOTH
def test_segment_identifies_its_users(decode: Any) -> None:
    """field-cases/segment.ndjson: the first of userId and anonymousId; an offset in the time."""
    records: list[dict[str, Any]] = [
        {"anonymousId": "a1", "userId": None, "type": "page", "timestamp": "2024-05-01T10:00:00.000Z", "event": None},
        {
            "anonymousId": "a1",
            "userId": "u1",
            "type": "identify",
            "timestamp": "2024-05-01T10:01:00.000Z",
            "event": None,
        },
        {
            "anonymousId": "a2",
            "userId": None,
            "type": "track",
            "timestamp": "2024-05-01T12:02:00.000+02:00",
            "event": "E",
        },
    ]
    rows = decode(records, "segment").events.to_pylist()
    assert [row["user"] for row in rows] == ["a1", "u1", "a2"]
    assert [row["event_type"] for row in rows] == ["page", "identify", "E"]
    assert [row["event_time_ms"] for row in rows] == [1714557600000, 1714557660000, 1714557720000]


@BOTH
def test_an_option_takes_the_place_of_one_field(decode: Any) -> None:
    record = json.loads(SAMPLES["combined"])
    decoded = decode([record], "combined", user=Join(("ip", "user_agent")), event_id="bytes")
    assert decoded.events["user"].to_pylist() == ["192.0.2.7|Browser/9"]
    assert decoded.events["event_id"].to_pylist() == ["128"]
    assert decoded.events["event_time_ms"].to_pylist() == [AT_10]


def test_an_overridden_join_is_none() -> None:
    dialect = Dialect.mapping(user=Join(("a", "b")), time=Join(("c", "d"))).overridden(time="stamp", user="cs(Cookie)")
    assert dialect.joined == frozenset()
    assert (dialect.user_name, dialect.paths("event_time_ms")) == ("cs(Cookie)", ("stamp",))


SNOWPLOW = DIALECTS["snowplow"].header
ENRICHED = dict.fromkeys(SNOWPLOW, "") | {
    "event_id": "e1", "domain_userid": "d1", "derived_tstamp": "2026-03-02 10:00:00.000", "page_url": "/a",
    "event_name": "page_view", "geo_country": "DE",
}  # fmt: skip


@pytest.mark.parametrize("header", [False, True])
def test_enriched_tsv_of_snowplow_with_and_without_a_header(tmp_path: Path, header: bool) -> None:
    lines = [list(SNOWPLOW)] * header + [list(ENRICHED.values())] * 2
    path = tmp_path / "enriched.tsv"
    path.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
    (batch,) = FileSource([path], dialect=DIALECTS["snowplow"]).batches()
    rows = batch.events.to_pylist()
    assert [(row["user"], row["event_time_ms"], row["page"], row["country"]) for row in rows] == [
        ("d1", AT_10, "/a", "DE")
    ] * 2
    assert not len(batch.rejected)


def test_a_w3c_log_by_address_and_browser(tmp_path: Path) -> None:
    """field-cases/w3c_extended.log: the fields change inside the file; + is a space in the browser."""
    path = tmp_path / "w3c.log"
    path.write_text(
        "#Version: 1.0\n#Fields: date time c-ip cs-method cs-uri-stem cs(User-Agent) sc-status\n"
        "2010-09-21 23:59:59 198.51.100.4 GET /a.gif Browser/5.0+(Windows) 200\n"
        "#Fields: date time c-ip cs-uri-stem cs(User-Agent)\n"
        "2010-09-22 00:40:00 198.51.100.4 /c.gif Browser/5.0+(Windows)\n",
        encoding="utf-8",
    )
    dialect = DIALECTS["w3c"].overridden(user=Join(("c-ip", "cs(User-Agent)")))
    rows = [row for batch in FileSource([path], dialect=dialect).batches() for row in batch.events.to_pylist()]
    assert [row["user"] for row in rows] == ["198.51.100.4|Browser/5.0 (Windows)"] * 2
    assert [row["event_time_ms"] for row in rows] == [1285113599000, 1285116000000]
    assert [row["status"] for row in rows] == [200, None]
