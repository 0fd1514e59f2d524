"""Rows that are larger than their topic takes, against a real broker: shortened or skipped, and told, once an epoch."""

import json
import random
import uuid

import pyarrow as pa
import pytest

from sessionize.connectors.kafka.epoch_sink import KafkaEpochSink
from sessionize.connectors.kafka.message_size import SentRow
from sessionize.connectors.kafka.oversized import CLIENT_BYTES_MAX, Fitting, Unfit
from sessionize.ports import EpochId, EpochOutput
from sessionize.session import columns as col
from sessionize.session.output_tables import SESSIONS
from sessionize.testing.epoch_outputs import output
from sessionize.testing.services.kafka import KafkaServers

LIMIT = 50_000
COLUMNS = (col.USER, col.SESSION_ID, col.EVENT_COUNT, col.PAGES_VISITED, col.ENTRY_PAGE, col.EVENTS_BY_TYPE)
SCHEMA = col.SessionColumns(COLUMNS).schema("uid")


@pytest.fixture
def name() -> str:
    return f"o-{uuid.uuid4().hex[:10]}"


def noise(size: int, seed: int = 1) -> str:
    """Text that does not compress below half of its size."""
    return random.Random(seed).randbytes(size // 2).hex()


def session(user: str, *, pages: list[str], entry: str = "/") -> dict[str, object]:
    return {
        "uid": user,
        "session_id": f"{user}_1",
        "event_count": len(pages),
        "pages_visited": pages,
        "entry_page": entry,
        "events_by_type": [("click", 2)],
    }


def epoch_rows(sessions: list[dict[str, object]], **more: pa.Table) -> EpochOutput:
    return output(user_sessions=pa.Table.from_pylist(sessions, schema=SCHEMA), **more)


class Run:
    """A sink to topics that take little, and what it tells."""

    def __init__(self, kafka: KafkaServers, name: str, limit: int = LIMIT, **options: object) -> None:
        self.kafka, self.name, self.told = kafka, name, list[Unfit]()
        self.topics = {"user_sessions": f"{name}-s", "events": f"{name}-e", "rejected_events": f"{name}-r"}
        for topic in self.topics.values():
            kafka.create_topic(topic, 1, {"max.message.bytes": str(limit)})
        self.sink = KafkaEpochSink(
            kafka.servers, self.topics, writer=name, user_name="uid", on_unfit=self.told.append, **options
        )

    def write(self, number: int, rows: EpochOutput) -> None:
        self.sink.write_epoch(EpochId(self.name, number, "plan"), rows)

    def sent(self, topic: str = "s") -> list[dict[str, object]]:
        return [json.loads(value) for value in self.kafka.committed(f"{self.name}-{topic}")]


def test_a_session_goes_out_without_its_lists_and_others_as_they_are(kafka, name):
    run = Run(kafka, name)
    large = session("whale", pages=[noise(2_000, n) for n in range(60)])
    rows = epoch_rows([session("anna", pages=["/a"]), large, session("bob", pages=["/b"])])
    run.write(1, rows)
    run.write(1, rows)  # again, as after a crash
    anna, whale, bob = run.sent()
    assert (anna["pages_visited"], bob["pages_visited"]) == (["/a"], ["/b"])
    assert "shortened_fields" not in anna
    assert whale == {
        "uid": "whale",
        "session_id": "whale_1",
        "event_count": 60,
        "pages_visited": None,
        "entry_page": "/",
        "events_by_type": None,
        "shortened_fields": ["pages_visited", "events_by_type"],
    }
    (unfit,) = run.told
    assert (unfit.topic, unfit.shortened, unfit.count, unfit.limit_bytes) == (f"{name}-s", True, 1, LIMIT)
    assert [(row.key, row.session) for row in unfit.shown] == [("whale", "whale_1")]
    assert unfit.shown[0].size_bytes > 120_000
    run.sink.close()


def test_what_compresses_to_the_limit_stays_whole(kafka, name):
    run = Run(kafka, name)
    run.write(1, epoch_rows([session("long", pages=["/same/page/again/and/again"] * 20_000)]))
    assert len(run.sent()[0]["pages_visited"]) == 20_000
    assert run.told == []
    run.sink.close()


def test_a_row_that_is_too_large_without_its_lists_is_skipped_and_the_epoch_goes_on(kafka, name):
    run = Run(kafka, name)
    skipped = [session(f"u{n:02}" + "x" * 1_000, pages=["/"], entry=noise(60_000 + n * 2, n)) for n in range(12)]
    run.write(1, epoch_rows([*skipped, session("anna", pages=["/a"])]))
    run.write(2, epoch_rows([session("bob", pages=["/b"])]))
    assert [row["uid"] for row in run.sent()] == ["anna", "bob"]
    (unfit,) = run.told
    assert (unfit.shortened, unfit.count, len(unfit.shown)) == (False, 12, 10)
    shown = unfit.shown[-1].as_log()
    assert len(str(shown)) < 1_000
    assert str(shown["key"]).startswith("u11xxx")
    run.sink.close()


def test_events_lose_their_further_fields_and_rejected_records_their_bytes(kafka, name):
    run = Run(kafka, name)
    events = pa.table(
        {
            "uid": ["whale", "anna", "odd"],
            "event_time_ms": pa.array([1, 2, 3]),
            "page": ["/a", "/b", "/c"],
            "properties": [json.dumps({"text": noise(90_000)}), None, None],
            "note": ["", "fine", noise(90_000)],
        }
    )
    raw = random.Random(3).randbytes(60_000)
    rejected = pa.Table.from_pylist(
        [{"raw": raw, "source": "in[0]", "line_number": 7, "reason": "invalid_utf8", "detail": "not UTF-8"}],
        schema=col.REJECTED_SCHEMA,
    )
    run.write(1, epoch_rows([], events=events, rejected_events=rejected))
    whale, anna, odd = run.sent("e")
    assert whale == {"uid": "whale", "event_time_ms": 1, "page": "/a", "shortened_fields": ["properties", "note"]}
    assert anna["note"] == "fine"
    assert (odd["page"], odd["shortened_fields"]) == ("/c", ["note"])
    (record,) = run.sent("r")
    assert (record["line_number"], record["raw"], record["raw_base64"]) == (7, None, None)
    assert (record["raw_size_bytes"], record["shortened_fields"]) == (60_000, ["raw_base64"])
    run.sink.close()


def test_a_limit_that_is_lowered_meanwhile_is_learned(kafka, name):
    """The epoch is sent again with rows that fit, and nothing of the first try is seen."""
    run = Run(kafka, name, limit=500_000)
    large = session("whale", pages=[noise(2_000, n) for n in range(60)])
    small = [session(f"u{n}", pages=[noise(1_000, n)]) for n in range(200)]
    run.write(1, epoch_rows([large]))
    kafka.configure_topic(f"{name}-s", {"max.message.bytes": "40000"})
    run.write(2, epoch_rows([*small, large]))
    first, *others, last = run.sent()
    assert len(first["pages_visited"]) == 60
    assert len(others) == 200
    assert (last["pages_visited"], last["shortened_fields"]) == (None, ["pages_visited", "events_by_type"])
    run.sink.close()


def test_a_client_that_sends_little_is_a_limit_too(kafka, name):
    run = Run(kafka, name, limit=900_000, security={"message.max.bytes": 100_000, "batch.size": 50_000})
    run.write(1, epoch_rows([session("whale", pages=[noise(2_000, n) for n in range(60)])]))
    assert run.sent()[0]["pages_visited"] is None
    assert run.told[0].limit_bytes == 100_000
    run.sink.close()


@pytest.mark.parametrize("takes", [30_000, 3_000_000])
def test_a_limit_that_nobody_tells_is_found_by_trying(takes: int):
    """Not everybody may ask a server for its settings."""
    fitting = Fitting(stops=False, security={}, ask=dict)
    large = json.dumps(session("whale", pages=[noise(40_000, n) for n in range(200)])).encode()
    tries = 0
    while True:
        tries += 1
        fitting.begin()
        sent = fitting.fitted(SESSIONS, "s", "whale", large)
        if sent is None or len(sent) <= takes:
            break
        assert fitting.learned(SentRow.of("s", b"whale", sent))
    assert sent is not None
    assert json.loads(sent)["pages_visited"] is None
    assert tries == 2
    assert fitting.batch_bytes_max <= len(large) < CLIENT_BYTES_MAX
    for _ in range(40):
        fitting.begin()
        sent = fitting.fitted(
            SESSIONS, "s", "anna", json.dumps(session("anna", pages=[], entry="x" * 100_000)).encode()
        )
        if sent is None or len(sent) <= takes:
            break
        assert fitting.learned(SentRow.of("s", b"anna", sent))
    assert (sent is None) == (takes < 100_000)


def test_stop_changes_no_row():
    fitting = Fitting(stops=True, security={}, ask=lambda: {"s": 10})
    assert fitting.fitted(SESSIONS, "s", "k", b"{}" * 100) == b"{}" * 100
    assert not fitting.learned(SentRow("s", "k", None, 200))
