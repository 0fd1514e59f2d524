"""`check`: each check fails for the damage it is for, and no other does; sound data pass; files, tables, reports."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessionize.analytics.event_quality import odd_days
from sessionize.analytics.row_differences import column_differs
from sessionize.analytics.session_quality import Expectation, judged
from sessionize.errors import ConfigError, InputError
from sessionize.kernel.sessionizer import Sessionizer
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules
from sessionize.testing import strategies
from sessionize.testing.comparison import events_table
from tests.questions.commands import answer, asked, read_page

DAY_MS = 86_400_000
START_MS = 1_767_225_600_000
FIELDS = ("--user", "user", "--time", "ts", "--event-id", "id", "--event-type", "kind", "--page", "page")
WORDS = (*FIELDS, "--max-future", "none")
HOSTILE = "<b onclick=x>&\"'"

RECORDS = {"completeness: records have user and time"}
READABLE = {"validity: records can be read"}
ONCE = {"uniqueness: events come once"}
CLOCK = {"validity: times are plausible"}
IN_TIME = {"order: events come in time"}
DAYS = {"volume: days have a usual number of events"}
WHOLE = {"completeness: sessions have id, times and count"}
STORED_ONCE = {"uniqueness: sessions are stored once"}
VALUES = {"validity: values of sessions agree"}
MAXIMUM = {"invariants: no session reaches the maximum duration"}
NEAR = {"invariants: no sessions are nearer than the gap unless a rule cut"}
COUNTS = {"invariants: counts add up to the archive"}
ACCURACY = {"accuracy: sessions equal a recomputation"}

Lines = list[dict[str, Any]]
Rows = list[dict[str, Any]]


def sound_events() -> Lines:
    """Twelve days of 40 users with two visits a day of five events each, in time order."""
    rng, made = random.Random(7), list[dict[str, Any]]()
    for day in range(12):
        for user in range(40):
            for visit in (8, 20):
                at = START_MS + day * DAY_MS + visit * 3_600_000 + user * 7_000 + rng.randrange(60_000)
                for step in range(5):
                    made.append({"user": f"u{user}", "ts": at, "kind": "view", "page": f"/{step % 3}"})
                    at += rng.randrange(1_000, 600_000)
    made.sort(key=lambda event: event["ts"])
    return [{**event, "id": f"e{number}"} for number, event in enumerate(made)]


def as_line(event: object) -> str:
    return event if isinstance(event, str) else json.dumps(event)


def write_events(path: Path, events: Lines) -> Path:
    path.write_text("".join(f"{as_line(event)}\n" for event in events))
    return path


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lines, pa.Table]:
    folder = tmp_path_factory.mktemp("sound")
    events = sound_events()
    path = write_events(folder / "events.ndjson", events)
    asked("batch", path, *WORDS, "-o", folder / "sessions.parquet")
    return events, pq.read_table(folder / "sessions.parquet")


def failed(found: dict[str, Any]) -> set[str]:
    return {f"{each['group']}: {each['name']}" for each in found["checks"] if each["status"] == "failed"}


def spoil(events: Lines, share: float, change: Callable[[dict[str, Any]], Any]) -> Lines:
    every = round(1 / share)
    return [change(dict(event)) if number % every == 1 else event for number, event in enumerate(events)]


EVENT_DAMAGE: dict[str, tuple[Callable[[Lines], Lines], set[str]]] = {
    "nothing": (lambda events: events, set()),
    "no user": (lambda events: spoil(events, 0.01, lambda e: {**e, "user": None}), RECORDS),
    "no time": (lambda events: spoil(events, 0.01, lambda e: {k: v for k, v in e.items() if k != "ts"}), RECORDS),
    "torn records": (lambda events: spoil(events, 0.01, lambda e: '{"user": "u1", "ts"'), READABLE),
    "sent twice": (lambda events: [e for e in events for _ in range(2 if e["id"].endswith("7") else 1)], ONCE),
    "a clock of 1970": (lambda events: spoil(events, 0.01, lambda e: {**e, "ts": 5}), CLOCK),
    "late by hours": (lambda events: [e for e in events if not e["id"].endswith("3")]
                      + [e for e in events if e["id"].endswith("3")], IN_TIME),
    "a day is lost": (lambda events: [e for e in events if (e["ts"] - START_MS) // DAY_MS != 6], DAYS),
    "a day is thrice": (
        lambda events: sorted(
            (
                {**e, "id": f"{e['id']}-{n}", "user": f"{e['user']}-{n}"}
                for e in events
                for n in range(3 if (e["ts"] - START_MS) // DAY_MS == 6 else 1)
            ),
            key=lambda e: e["ts"],
        ),
        DAYS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", EVENT_DAMAGE)
def test_damage_of_events_is_found_and_nothing_else(sound: tuple[Lines, pa.Table], tmp_path: Path, damage: str) -> None:
    change, expected = EVENT_DAMAGE[damage]
    path = write_events(tmp_path / "events.ndjson", change(sound[0]))
    found = answer("check", path, *WORDS, code=1 if expected else 0)
    assert failed(found) == expected
    assert found["passed"] is not expected


def at(number: int, **values: Any) -> Callable[[Rows], Rows]:
    return lambda rows: [{**row, **values} if place == number else row for place, row in enumerate(rows)]


def longer(rows: Rows) -> Rows:
    """The last session of all lasts three hours more."""
    last = max(range(len(rows)), key=lambda place: rows[place]["session_end_time_ms"])
    end = rows[last]["session_end_time_ms"] + 3 * 3_600_000
    lasts = (end - rows[last]["session_start_time_ms"]) / 1000
    return at(last, session_end_time_ms=end, session_duration_seconds=lasts)(rows)


def torn(rows: Rows) -> Rows:
    """The first session is two, a second apart."""
    one, middle = rows[0], rows[0]["session_start_time_ms"] + 1_000
    left = {"session_end_time_ms": middle, "session_duration_seconds": 1.0, "event_count": 2}
    lasts = (one["session_end_time_ms"] - middle - 1_000) / 1000
    right = {"session_start_time_ms": middle + 1_000, "session_duration_seconds": lasts, "event_count": 3}
    second = {**one, **right, "session_id": f"{one['user']}_{middle + 1_000}", "start_reason": "inactivity"}
    return [{**one, **left}, second, *rows[1:]]


SESSION_DAMAGE: dict[str, tuple[Callable[[Rows], Rows], set[str]]] = {
    "nothing": (lambda rows: rows, set()),
    "another order": (lambda rows: rows[::-1], set()),
    "a session is lost": (lambda rows: rows[1:], COUNTS | ACCURACY),
    "a session is stored twice": (lambda rows: [*rows, rows[0]], STORED_ONCE | COUNTS),
    "a session of nobody's": (
        lambda rows: [*rows, {**rows[0], "user": "ghost", "session_id": "ghost_1"}], COUNTS | ACCURACY
    ),
    "no start": (at(3, session_start_time_ms=None), WHOLE | COUNTS | ACCURACY),
    "no user": (at(3, user=None), WHOLE | COUNTS | ACCURACY),
    "a wrong duration": (at(3, session_duration_seconds=1.5), VALUES | ACCURACY),
    "no events": (at(3, event_count=0), VALUES | COUNTS | ACCURACY),
    "too long": (longer, MAXIMUM | ACCURACY),
    "cut for nothing": (torn, NEAR | ACCURACY),
    "another page list": (at(3, pages_visited=["/0", "/2", "/1"]), ACCURACY),
    "no page list": (at(3, pages_visited=None), ACCURACY),
    "another count of types": (at(3, events_by_type=[("view", 4), ("click", 1)]), ACCURACY),
    "another reason": (at(3, end_reason="rule:logout"), ACCURACY),
    "another bucket": (at(3, user_hash_bucket=None), ACCURACY),
}  # fmt: skip


@pytest.mark.parametrize("damage", SESSION_DAMAGE)
def test_damage_of_sessions_is_found_and_nothing_else(
    sound: tuple[Lines, pa.Table], tmp_path: Path, damage: str
) -> None:
    change, expected = SESSION_DAMAGE[damage]
    events, sessions = sound
    path = write_events(tmp_path / "events.ndjson", events)
    schema = pa.schema([each.with_nullable(True) for each in sessions.schema])
    pq.write_table(pa.Table.from_pylist(change(sessions.to_pylist()), schema), tmp_path / "s.parquet")
    found = answer("check", path, *WORDS, "--sessions", tmp_path / "s.parquet", code=1 if expected else 0)
    assert failed(found) == expected
    assert found["counts"]["events"] == len(events)


def test_a_column_of_ones_own_is_said_not_to_be_compared(sound: tuple[Lines, pa.Table], tmp_path: Path) -> None:
    path = write_events(tmp_path / "events.ndjson", sound[0])
    pq.write_table(sound[1].append_column("mine", pa.array(range(sound[1].num_rows))), tmp_path / "s.parquet")
    found = answer("check", path, *WORDS, "--sessions", tmp_path / "s.parquet")
    assert "not compared: mine" in found["checks"][-1]["detail"]


@pytest.mark.parametrize("ending", ["csv", "ndjson", "parquet"])
@pytest.mark.parametrize("memory", ["2GB", "50KB"])
def test_sessions_of_every_format_are_sound(
    sound: tuple[Lines, pa.Table], tmp_path: Path, ending: str, memory: str
) -> None:
    path = write_events(tmp_path / "events.ndjson", sound[0])
    sessions = tmp_path / f"sessions.{ending}"
    asked("batch", path, *WORDS, "-o", sessions)
    found = answer("check", path, *WORDS, "--sessions", sessions, "--memory", memory)
    assert failed(found) == set()
    assert found["counts"]["sessions"] == sound[1].num_rows


def test_limits_come_from_the_pipeline(sound: tuple[Lines, pa.Table], tmp_path: Path) -> None:
    path = write_events(tmp_path / "events.ndjson", spoil(sound[0], 0.05, lambda e: {**e, "kind": None}))
    asked("batch", path, *WORDS, "-o", tmp_path / "s.parquet", "--gap", "5m")
    limits = tmp_path / "my.toml"
    limits.write_text(
        '[rules]\ngap = "5m"\n[check]\nrequired = ["event_type", "value"]\nmax_missing = 0.06\nmax_age = "1h"\n'
    )
    found = answer("check", path, *WORDS, "--sessions", tmp_path / "s.parquet", "--pipeline", limits, code=1)
    assert failed(found) == {"completeness: events have value", "freshness: the newest event is recent"}
    lenient = tmp_path / "lenient.toml"
    lenient.write_text("[check]\nmin_accuracy = 0.1\n")
    words = ("check", path, *WORDS, "--sessions", tmp_path / "s.parquet", "--pipeline", lenient)
    assert failed(answer(*words, "--gap", "6m", code=1)) & ACCURACY == set()


def test_the_reports_are_sound_and_escaped(tmp_path: Path) -> None:
    events = [
        {"user": HOSTILE, "ts": START_MS + n * 1_000, "id": str(n), "kind": "view", "page": "/"} for n in range(9)
    ]
    path = write_events(tmp_path / "events.ndjson", events)
    asked("batch", path, *WORDS, "-o", tmp_path / "s.parquet")
    sessions = pq.read_table(tmp_path / "s.parquet")
    pq.write_table(sessions.slice(0, 0), tmp_path / "none.parquet")
    words = ("check", path, *WORDS, "--sessions", tmp_path / "none.parquet")
    said = asked(*words, "-o", tmp_path / "r.html", "--junit", tmp_path / "j.xml", code=1, width=60)
    assert "✗ failed" in said
    assert HOSTILE in said.replace("\n           ", " ")
    page = read_page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert HOSTILE in "".join(page.itertext())
    suite = ElementTree.parse(tmp_path / "j.xml").getroot()[0]
    counted = {name: int(suite.attrib[name]) for name in ("tests", "failures", "skipped", "errors")}
    assert counted == {"tests": len(suite), "failures": 2, "skipped": 2, "errors": 0}
    assert len(suite.findall("testcase/failure")) == 2


def test_tables_of_a_home_are_checked_and_damage_is_found(tmp_path: Path) -> None:
    from sessionize.app.tables.warehouse import Warehouse

    home = tmp_path / "home"
    settings = {"events": 3000, "users": 60, "late_fraction": 0.02, "broken_fraction": 0.0}
    asked(
        "run",
        "--once",
        "--home",
        home,
        *(w for k, v in settings.items() for w in ("--set", f"input.generator.{k}={v}")),
    )
    found = answer("check", "--home", home)
    assert failed(found) == set()
    assert found["counts"]["events"] > 2900
    assert answer("run", "data_quality_checker", "--home", home) == found
    table = Warehouse(home).table("user_sessions")
    victim = table.scan().to_arrow()["session_id"][0].as_py()
    table.delete(f"session_id == '{victim}'")
    found = answer("check", "data_quality_checker", "--home", home, code=1)
    assert failed(found) == COUNTS | ACCURACY
    assert victim in next(each["detail"] for each in found["checks"] if each["group"] == "accuracy")


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    path = write_events(tmp_path / "events.ndjson", sound_events()[:20])
    with pytest.raises(ConfigError, match="goes with files"):
        asked("check", "--sessions", path, "--home", tmp_path)
    with pytest.raises(ConfigError, match="sessions are read from"):
        asked("check", path, *WORDS, "--sessions", tmp_path / "s.xlsx")
    with pytest.raises(InputError, match="cannot be read"):
        asked("check", path, *WORDS, "--sessions", tmp_path / "nowhere.parquet")
    pq.write_table(pa.table({"who": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match="no column 'user'"):
        asked("check", path, *WORDS, "--sessions", tmp_path / "other.parquet")


@settings(max_examples=60, deadline=None)
@given(strategies.events(max_size=40), strategies.events(max_size=5), strategies.policies(), strategies.rules())
def test_what_the_kernel_makes_has_no_fault(rows: Rows, late: Rows, policy: Policy, rules: Rules) -> None:
    everything = [*rows, *late]
    end_ms = max((row["time"] for row in everything), default=0)
    sessionizer = Sessionizer(policy, rules=rules)
    sessionizer.push(events_table(everything))
    stored = sessionizer.flush(end_ms)
    by = Expectation(policy=policy, rules=rules, end_ms=end_ms)
    found = judged(events_table(rows), events_table(late), stored, by)
    assert not +found.faults
    assert (found.equal, found.compared) == (stored.num_rows, stored.num_rows)
    assert found.counted == found.settled


@settings(max_examples=60, deadline=None)
@given(strategies.events(max_size=40), st.integers(0, 5), strategies.policies())
def test_sessions_without_their_late_events_wait_for_them(rows: Rows, late: int, policy: Policy) -> None:
    end_ms = max((row["time"] for row in rows), default=0)
    sessionizer = Sessionizer(policy)
    sessionizer.push(events_table(rows[late:]))
    stored = sessionizer.flush(end_ms)
    by = Expectation(policy=policy, rules=Rules(), end_ms=end_ms)
    found = judged(events_table(rows[late:]), events_table(rows[:late]), stored, by)
    assert not +found.faults
    assert found.counted == found.settled


VALUES_OF = st.one_of(
    st.tuples(st.just(pa.string()), st.lists(st.sampled_from([None, "a", "b"]))),
    st.tuples(st.just(pa.list_(pa.string())), st.lists(st.none() | st.lists(st.sampled_from(["a", "b"]), max_size=2))),
    st.tuples(
        st.just(pa.map_(pa.string(), pa.int64())),
        st.lists(st.none() | st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([1, 2])), max_size=2)),
    ),
)


@settings(max_examples=100, deadline=None)
@given(VALUES_OF, st.data())
def test_columns_differ_where_their_values_do(
    kind_and_values: tuple[pa.DataType, list[Any]], data: st.DataObject
) -> None:
    kind, values = kind_and_values
    others = data.draw(st.permutations(values))
    found = column_differs(pa.chunked_array([pa.array(values, kind)]), pa.array(others, kind))
    assert found is not None
    assert found.tolist() == [one != other for one, other in zip(values, others, strict=True)]


def test_columns_of_other_kinds_are_not_compared() -> None:
    assert column_differs(pa.array(["x"]), pa.array([1])) is None


@pytest.mark.parametrize(
    ("counts", "odd"),
    [
        ([5, 100, 100, 100, 100, 100, 5], []),
        ([5, 100, 100, 20, 100, 100, 5], [3]),
        ([5, 100, 100, 0, 100, 100, 5], [3]),
        ([5, 100, 100, 300, 100, 100, 5], [3]),
        ([100, 100, 100], None),
        # a shop that rests on Sundays is usual on Sundays
        ([9, *[100, 100, 100, 100, 100, 100, 10] * 5, 9], []),
    ],
)
def test_odd_days_are_those_far_from_the_usual(counts: list[int], odd: list[int] | None) -> None:
    found = odd_days({day: count for day, count in enumerate(counts) if count}, 0.5, 2.0)
    assert (None if found is None else [each.day for each in found]) == odd
