"""The records as bytes: each profile's format, to the field."""

import io
import json
import re
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize.connectors.generator import PROFILE_NAMES, GeneratorSettings, sample, write_lines
from sessionize.connectors.generator.catalogue import PRODUCTS
from sessionize.connectors.generator.json_encoder import iso_times

EVENT_ID = re.compile(r"[0-9a-f]{4}(-[0-9a-f]{4}){3}")
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
PRICES = {p.product_id: (p.category, float(p.price)) for p in PRODUCTS}


def written(profile, **run):
    out = io.BytesIO()
    accounting = write_lines(GeneratorSettings(profile=profile, **({"users": 30, "events": 5_000} | run)), out)
    return [json.loads(line) for line in out.getvalue().splitlines()], accounting


def iso_ms(text):
    assert ISO.fullmatch(text)
    return round(datetime.fromisoformat(text).timestamp() * 1_000)


def test_clickstream_records():
    records, accounting = written("clickstream")
    times = []
    for record in records:
        assert list(record) == ["event_id", "page_name", "event_timestamp", "booking_details", "uuid", "event_details"]
        details = record["event_details"]
        assert list(details) == ["event_name", "event_type", "event_value"]
        assert record["page_name"] in {"home", "search", "selection", "review", "booking", "logout"}
        assert details["event_name"] == f"user-{record['page_name']}"
        assert EVENT_ID.fullmatch(record["event_id"])
        assert re.fullmatch(r"user-([1-9]|[12]\d|30)", record["uuid"])
        assert re.fullmatch(r"\d{13}", record["event_timestamp"])
        booked = details["event_type"] == "booking"
        assert re.fullmatch(r"BK-[0-9a-f]{4}" if booked else "", record["booking_details"])
        assert not booked or record["page_name"] == "booking"
        times.append(int(record["event_timestamp"]))
    assert (min(times), max(times)) == (accounting.first_ms, accounting.last_ms)
    kinds = {r["event_details"]["event_type"] for r in records}
    assert kinds == {"page-view", "user-action", "booking"}


def test_user_events_records():
    records, accounting = written("user-events")
    for record in records:
        names = ["eventId", "userId", "eventType", "timestamp", "pageUrl"]
        bought = record["eventType"] == "PURCHASE"
        assert list(record) == [*names, "amount"] if bought else names
        assert not bought or (isinstance(record["amount"], float) and record["amount"] > 0)
        assert isinstance(record["timestamp"], int)
        assert record["pageUrl"].startswith("/")
    times = [r["timestamp"] for r in records]
    assert (min(times), max(times)) == (accounting.first_ms, accounting.last_ms)
    kinds = {r["eventType"] for r in records}
    assert kinds == {"PAGE_VIEW", "SEARCH", "CLICK", "ADD_TO_CART", "PURCHASE"}


def test_user_activity_records():
    records, accounting = written("user_activity")
    assert {tuple(r) for r in records} == {("user_id", "event_time", "event_type", "page_url")}
    times = [iso_ms(r["event_time"]) for r in records]
    assert (min(times), max(times)) == (accounting.first_ms, accounting.last_ms)
    assert {r["event_type"] for r in records} == {"session_start", "page_view", "click", "session_end"}


def test_clicks_records():
    records, accounting = written("clicks")
    assert {tuple(r) for r in records} == {("user_id", "timestamp", "url")}
    times = [iso_ms(r["timestamp"]) for r in records]
    assert (min(times), max(times)) == (accounting.first_ms, accounting.last_ms)
    assert all(r["url"].startswith("https://shop.example/") for r in records)


def test_ecommerce_records():
    records, accounting = written("ecommerce")
    for record in records:
        names = ["event_id", "user_id", "event_timestamp", "event_type", "product_id", "category", "price"]
        assert list(record) == names
        assert PRICES[record["product_id"]] == (record["category"], record["price"])
    times = [iso_ms(r["event_timestamp"]) for r in records]
    assert (min(times), max(times)) == (accounting.first_ms, accounting.last_ms)
    assert {r["event_type"] for r in records} == {"view", "add_to_cart", "purchase"}
    assert {r["product_id"] for r in records} == {f"PROD_{n:03d}" for n in range(1, 51)}


def test_prices_are_plausible_and_differ():
    prices = [price for _, price in PRICES.values()]
    assert min(prices) > 1
    assert max(prices) < 1_000
    assert len(set(prices)) > 30


@pytest.mark.parametrize("profile", PROFILE_NAMES)
def test_users_in_the_totals_are_those_in_the_records(profile):
    records, accounting = written(profile, users=3_000, events=500)
    names = {r.get("uuid") or r.get("userId") or r.get("user_id") for r in records}
    assert len(names) == accounting.users > 20


@given(st.lists(st.integers(-60_000_000_000_000, 250_000_000_000_000), min_size=1, max_size=50))
def test_iso_times_are_what_datetime_says(times):
    written = iso_times(np.array(times, dtype=np.int64)).tobytes().decode()
    for number, time_ms in enumerate(times):
        text = written[24 * number : 24 * number + 24]
        moment = np.datetime64(time_ms, "ms").item().replace(tzinfo=UTC)
        assert text == f"{moment:%H:%M:%S}.{time_ms % 1_000:03d}Z".join([f"{moment.date().isoformat()}T", ""])


@pytest.mark.parametrize("profile", PROFILE_NAMES)
def test_a_sample_is_one_visit(profile):
    records = sample(profile, n=8)
    assert len(records) == 8
    assert records == sample(profile, n=8)
    assert records != sample(profile, n=8, seed=1)
    users = {r.get("uuid") or r.get("userId") or r.get("user_id") for r in records}
    assert users == {"user-1"}


def test_a_sample_of_one():
    assert len(sample("clickstream", n=1)) == 1
